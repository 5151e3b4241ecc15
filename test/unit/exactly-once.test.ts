/** Whatever happens to the processes that fold a log, and however it reached the broker: the same log, the same windows. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { emptyState, foldRecord, longestQuietMs } from '../../domain/at-risk.ts';
import { fromSnapshot, toSnapshot } from '../../domain/at-risk-snapshot.ts';
import { has, is, mark, type PartitionState, siteKey } from '../../domain/at-risk-state.ts';
import { acceptWindow, foldTicks, newSession } from '../../domain/judge/session.ts';
import type { TelemetryRecord, Window } from '../../domain/telemetry.ts';
import {
  asStored,
  bucketOf,
  foldLog,
  type LogRecord,
  leafMs,
  newLog,
  policy,
  randomLog,
  segment,
  start,
  withoutRange,
} from '../support/telemetry-log.ts';

const partitions = 3;
const hours = (n: number) => n * 3_600_000;
const bytes = (windows: readonly Window[]) => windows.map((window) => JSON.stringify(window));
const restored = (snapshot: Uint8Array): PartitionState => {
  const state = fromSnapshot(asStored(snapshot));
  if (state === null) throw new Error('the snapshot was refused');
  return state;
};

const partitionOf = ({ record }: LogRecord) =>
  'report' in record
    ? [...record.report.deviceId].reduce((sum, char) => sum + char.charCodeAt(0), 0) % partitions
    : null;
/** The log of one partition: reports of its devices, and every control record. */
const logOf = (records: readonly LogRecord[], partition: number) =>
  records.filter((record) => [null, partition].includes(partitionOf(record)));

const windowsOf = (records: readonly LogRecord[]): readonly Window[] =>
  Array.from({ length: partitions }, (_, partition) => {
    const state = emptyState(partition, partitions);
    return logOf(records, partition).flatMap(({ at, record }, offset) => [
      ...foldRecord(state, record, at, offset, bucketOf).windows,
    ]);
  }).flat();

const context = { digestOf: (value: unknown) => JSON.stringify(value), codeVersion: 'test' };
const judge = (windows: readonly Window[]) => {
  const session = newSession('r1');
  const results = windows
    .filter((window) => window.releaseId === 'r1')
    .flatMap((window) => {
      acceptWindow(session, window, context.digestOf(window));
      return foldTicks(session, context);
    });
  return { session, results, verdicts: results.flatMap((result) => result.verdicts) };
};

/**
 * One partition folded by processes that are killed: each step folds some records, then perhaps writes a snapshot, then
 * perhaps dies; the next one begins from a snapshot, the last or an older one (another wrote it last), and reads from a
 * little before it.
 */
type Step = { readonly records: number; readonly writes: boolean; readonly dies: boolean; readonly back: number };
const step = fc.record({
  records: fc.integer({ min: 1, max: 40 }),
  writes: fc.boolean(),
  dies: fc.boolean(),
  back: fc.integer({ min: 0, max: 2 }),
});

const foldKilled = (records: readonly LogRecord[], partition: number, steps: readonly Step[]): readonly Window[] => {
  const snapshots = [toSnapshot(emptyState(partition, partitions))];
  let state = restored(snapshots[0] as Uint8Array);
  const windows: Window[] = [];
  const foldUntil = (end: number): void => {
    for (let offset = Math.max(0, state.nextOffset - 3); offset < Math.min(end, records.length); offset += 1) {
      const { at, record } = records[offset] as LogRecord;
      windows.push(...foldRecord(state, record, at, offset, bucketOf).windows);
    }
  };
  for (const { records: count, writes, dies, back } of steps) {
    foldUntil(state.nextOffset + count);
    if (writes) snapshots.push(toSnapshot(state));
    if (dies) state = restored(snapshots[Math.max(0, snapshots.length - 1 - back)] as Uint8Array);
  }
  foldUntil(records.length);
  return windows;
};

/** What the judge keeps: the first of each place; a second one with other bytes is a fork. */
const firstOfEach = (windows: readonly Window[]): readonly string[] => {
  const places = new Map<string, string>();
  for (const window of windows) {
    const place = `${window.releaseId} ${window.tick} ${window.partition}`;
    const text = JSON.stringify(window);
    if (places.has(place)) expect(text).toBe(places.get(place));
    places.set(place, text);
  }
  return [...places.values()];
};

describe('a process that is killed', () => {
  test('anywhere, and goes on from any snapshot, repeats windows byte for byte and leaves none out', () => {
    let repeated = 0;
    fc.assert(
      fc.property(randomLog, fc.array(step, { maxLength: 12 }), (records, steps) => {
        const expected = foldKilled(records, 0, []);
        const windows = foldKilled(records, 0, steps);
        expect(firstOfEach(windows)).toEqual(bytes(expected));
        repeated += windows.length - expected.length;
      }),
      { numRuns: 150 },
    );
    expect(repeated).toBeGreaterThan(100);
  });

  test('changes no decision, in whatever order the partitions deliver', () => {
    fc.assert(
      fc.property(
        randomLog,
        fc.tuple(...Array.from({ length: partitions }, () => fc.array(step, { maxLength: 8 }))),
        fc.infiniteStream(fc.nat()),
        (records, steps, picks) => {
          const expected = judge(windowsOf(records));
          const queues = steps.map((one, partition) => [...foldKilled(logOf(records, partition), partition, one)]);
          const shuffled: Window[] = [];
          while (queues.some((queue) => queue.length > 0)) {
            const waiting = queues.filter((queue) => queue.length > 0);
            const queue = waiting[picks.next().value % waiting.length];
            shuffled.push(...(queue?.splice(0, 1) ?? []));
          }
          const got = judge(shuffled);
          expect(got.session.refused).toBeNull();
          expect(got.results).toEqual(expected.results);
        },
      ),
      { numRuns: 60 },
    );
  });
});

describe('how records reach the log', () => {
  test('every record twice: the windows differ in nothing but the log range', () => {
    fc.assert(
      fc.property(randomLog, (records) => {
        const doubled = records.flatMap((record) => [record, record]);
        expect(withoutRange(foldLog(doubled).windows)).toEqual(withoutRange(foldLog(records).windows));
      }),
      { numRuns: 100 },
    );
  });

  test('records of different devices with one append time in another order give the same windows', () => {
    let moved = 0;
    fc.assert(
      fc.property(randomLog, fc.infiniteStream(fc.nat()), (records, picks) => {
        const coarse = records.map(({ at, record }) => ({ at: Math.ceil(at / 1_500) * 1_500, record }));
        const reordered = coarse.slice();
        for (let index = 1; index < reordered.length; index += 1) {
          const [one, other] = [reordered[index - 1], reordered[index]] as [LogRecord, LogRecord];
          if (picks.next().value % 3 === 0 || !mayChange(one, other)) continue;
          [reordered[index - 1], reordered[index]] = [other, one];
          moved += 1;
        }
        expect(bytes(foldLog(reordered).windows)).toEqual(bytes(foldLog(coarse).windows));
      }),
      { numRuns: 150 },
    );
    expect(moved).toBeGreaterThan(100);
  });
  const mayChange = (one: LogRecord, other: LogRecord): boolean =>
    one.at === other.at &&
    'report' in one.record &&
    'report' in other.record &&
    one.record.report.deviceId !== other.record.report.deviceId;

  test('a report that comes late, or after a later one, is counted when it comes', () => {
    const log = newLog();
    log.poll(-10, 'c1');
    log.poll(-9, 'c2');
    log.open(0);
    log.harm(1_200, 'c1'); // sequence 2
    log.poll(1_300, 'c1'); // sequence 3
    log.harm(1_400, 'c2', 'load-failure');
    log.clock(6_000);
    const at = (ms: number, { record }: LogRecord) => ({ at: start + ms, record });
    const [hello1, hello2, open, crash, poll, failure, end] = log.records as [
      ...[LogRecord, LogRecord, LogRecord, LogRecord, LogRecord, LogRecord, LogRecord],
    ];
    const late = [hello1, hello2, open, poll, at(3_200, failure), at(4_200, crash), at(4_300, crash), end];
    const { windows } = foldLog(late);
    expect(windows.map(({ tick }) => leafMs(windows, tick, 'crash')[1])).toEqual([0, 0, 0, 0, 1, 0]);
    expect(windows.map(({ tick }) => leafMs(windows, tick, 'load-failure')[1])).toEqual([0, 0, 0, 1, 0, 0]);
  });
});

test('exposure carried from tick to tick is what looking at every member at every tick gives', () => {
  const lookAtAll = (records: readonly LogRecord[]): readonly Window[] => {
    const state = emptyState(0, 1);
    return records.flatMap(({ at, record }, offset) => {
      for (const release of state.releases.values()) {
        release.members.flags.forEach((flags, row) => {
          if (!(flags & is.joined) || has(release.members, row, is.changed)) return;
          mark(release.members, row, is.changed);
          release.changed.push(row);
        });
      }
      return [...foldRecord(state, record, at, offset, bucketOf).windows];
    });
  };
  // Clocks often enough that ticks close one by one.
  const ticking = (records: readonly LogRecord[]): readonly LogRecord[] =>
    records.flatMap((record, index) => {
      const before = records[index - 1]?.at ?? record.at;
      const clocks = Math.floor((record.at - before) / 400);
      return [
        ...Array.from({ length: Math.min(clocks, 100) }, (_, n): LogRecord => {
          const clock: TelemetryRecord = { control: { kind: 'clock' } };
          return { at: before + (n + 1) * 400, record: clock };
        }),
        record,
      ];
    });
  fc.assert(
    fc.property(randomLog, (records) => {
      expect(bytes(lookAtAll(ticking(records)))).toEqual(bytes(foldLog(ticking(records)).windows));
    }),
    { numRuns: 200 },
  );
});

// ---- the broker's clock

/** Every append time from `from` on is `by` later. */
const jumped = (records: readonly LogRecord[], from: number, by: number): readonly LogRecord[] =>
  records.map(({ at, record }) => ({ at: at >= start + from ? at + by : at, record }));

/** 12 canaries that took the content in tick 0 and 300 controls; all poll every second but `silent` ones after 6.4 s. */
const fleetStory = (ticks: number, silent = 0): readonly LogRecord[] => {
  const log = newLog();
  const canaries = Array.from({ length: 12 }, (_, n) => `t${n}`);
  const controls = Array.from({ length: 300 }, (_, n) => `c${n}`);
  for (const id of [...canaries, ...controls]) log.poll(-500, id);
  log.open(0);
  for (const id of canaries) {
    log.offer(100, id);
    log.say(200, id, 'installed');
    log.say(300, id, 'healthy');
  }
  for (let at = 1_400; at < ticks * 1_000; at += 1_000) {
    for (const id of canaries.slice(at > 6_400 ? silent : 0)) log.poll(at, id, { version: 2 });
    for (const id of controls) log.poll(at, id);
  }
  log.clock(ticks * 1_000 + 50);
  return log.records;
};

describe('a broker whose clock jumps an hour ahead', () => {
  const records = jumped(fleetStory(16), 7_400, hours(1));
  const windows = windowsOf(records);
  const { results, verdicts } = judge(windows);
  const inside = (tick: number) => tick > 8 && tick < 3_600;

  test('passes every tick once; those inside say nothing about any device', () => {
    expect(results.map(({ evidence }) => evidence.tick)).toEqual(results.map((_, tick) => tick));
    expect(results.length).toBe(3_600 + 16);
    expect(results.filter(({ evidence }) => inside(evidence.tick) && Object.keys(evidence.leaves).length > 0)).toEqual(
      [],
    );
  });

  test('makes nobody silent: no verdict, nobody harmed, all healthy as before', () => {
    expect(verdicts).toEqual([]);
    const silences = windows.flatMap(({ leaves }) =>
      (['silence-first', 'silence-later'] as const).map((metric) => leaves[segment]?.[metric]?.slice(0, 2) ?? [0, 0]),
    );
    expect(silences.flat().filter((events) => events > 0)).toEqual([]);
    expect(results.at(-1)?.status.counts[segment]).toMatchObject({ offered: 12, healthy: 12, harmed: 0 });
  });

  test('loses no trial and no exposure of what follows', () => {
    const quiet = judge(windowsOf(fleetStory(16))).results;
    const trials = (of: typeof results) =>
      of.reduce((sum, { evidence }) => sum + (evidence.leaves[segment]?.['silence-first']?.[2] ?? 0), 0);
    expect(trials(results)).toBe(trials(quiet));
    expect(trials(results)).toBe(12);
    expect(results.at(-1)?.evidence.leaves[segment]?.crash).toEqual(quiet.at(-1)?.evidence.leaves[segment]?.crash);
  });

  test('hides no device that really fell silent', () => {
    const story = (jump: number) => judge(windowsOf(jumped(fleetStory(24, 9), 7_400, jump)));
    expect(story(0).verdicts.map(({ kind }) => kind)).toContain('halt');
    const halt = story(hours(1)).verdicts.find(({ kind }) => kind === 'halt');
    expect(halt).toMatchObject({ metric: 'silence-later', x: 9, y: 0 });
    expect(halt?.tick).toBeGreaterThan(3_600);
  });

  test('is folded the same by processes that are killed', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 3, maxLength: 12 }), fc.integer({ min: 1, max: 900 }), (steps, scale) => {
        const one = logOf(jumped(fleetStory(10), 7_400, hours(1)), 0);
        const longer = steps.map((each) => ({ ...each, records: each.records * (scale % 30) + 1 }));
        expect(firstOfEach(foldKilled(one, 0, longer))).toEqual(bytes(foldKilled(one, 0, [])));
      }),
      { numRuns: 8 },
    );
  });
});

test('a pause as long as gateways may leave between two records is no gap', () => {
  const silentAfter = (pauseMs: number) => {
    const log = newLog();
    log.open(0);
    log.offer(100, 't1');
    log.clock(100 + pauseMs);
    log.clock(200 + pauseMs + 1_000 * policy.tickMs);
    return foldLog(log.records.slice(0, 3)).windows.at(-1)?.counts[segment]?.harmed;
  };
  expect(silentAfter(longestQuietMs)).toBe(1);
  expect(silentAfter(longestQuietMs + 1)).toBe(0);
});

describe('a broker whose clock steps an hour back', () => {
  const quiet = windowsOf(fleetStory(16));
  const windows = windowsOf(jumped(fleetStory(16), 7_400, -hours(1)));

  test('reopens no tick: time stands still, and no tick is complete until it has caught up', () => {
    expect(bytes(windows)).toEqual(bytes(quiet.filter(({ tick }) => tick < 6)));
    const { session, verdicts } = judge(windows);
    expect([session.judge?.nextTick, verdicts]).toEqual([6, []]);
  });

  test('and then catches up: every tick once, no verdict', () => {
    const log = fleetStory(16);
    const caughtUp = [...jumped(log, 7_400, -hours(1)), ...log.filter(({ at }) => at >= start + 15_000)];
    const { results, verdicts } = judge(windowsOf(caughtUp));
    expect(results.map(({ evidence }) => evidence.tick)).toEqual(Array.from({ length: 16 }, (_, tick) => tick));
    expect(verdicts).toEqual([]);
  });

  test('who is heard while time stands still is heard at the time at which it stands', () => {
    const log = newLog();
    log.poll(-10, 'c1');
    log.open(0);
    log.clock(3_000);
    log.poll(1_000, 'c1'); // reachable until 8,000
    log.clock(9_000);
    const { windows } = foldLog(log.records);
    expect([7, 8].map((tick) => leafMs(windows, tick, 'crash')[3])).toEqual([1_000, 0]);
  });
});

test('a partition that delivers nothing stops the judge at its tick, however far the others are', () => {
  const windows = windowsOf(fleetStory(16, 9)).filter(({ partition, tick }) => partition !== 1 || tick < 4);
  const { session, results, verdicts } = judge(windows);
  expect([results.length, session.judge?.nextTick, verdicts]).toEqual([4, 4, []]);
  expect(results.at(-1)?.status.lastWindowClosedAt).toBe(start + 4_000);
});

describe('devices that were not heard for longer than the log keeps reports', () => {
  const days = (n: number) => n * hours(24);
  const story = () => {
    const log = newLog();
    log.poll(0, 'c1');
    log.poll(0, 't1');
    log.open(1_000);
    log.end(2_000);
    for (let day = 1; day <= 8; day += 1) {
      log.poll(days(day), 't1', { version: day });
      // Gaps are no time in which anybody could have been heard.
      for (let minute = 1; minute < 24 * 60; minute += 1) log.clock(days(day) + minute * 60_000);
    }
    return log;
  };

  test('are forgotten before a release opens: they are no part of it', () => {
    const log = story();
    expect([...foldLog(log.records).state.devices.rows.keys()]).toEqual(['c1', 't1']);
    log.open(days(9) - 30_000, { releaseId: 'r2', startedAt: start + days(9) - 30_000 });
    log.clock(days(9) - 20_000);
    const { state, windows } = foldLog(log.records);
    expect(windows.at(-1)?.counts[segment]?.enrolled).toBe(1);
    expect([...state.devices.rows]).toEqual([['t1', 0]]);
    expect(state.devices.table.polledVersion[0]).toBe(8);
  });

  test('leave their site to the others, and a site that nobody speaks for goes with its last device', () => {
    const log = newLog((id) => ({ t1: 'pair', c1: 'pair', c2: 'alone' })[id]);
    for (const id of ['c1', 'c2', 't1']) log.poll(0, id);
    // It stays open for eight days: ticks of a second would be many, and say the same.
    log.open(1_000, { policy: { ...policy, tickMs: 60_000 } });
    for (let day = 1; day <= 8; day += 1) {
      log.poll(days(day), 't1');
      for (let minute = 1; minute < 24 * 60; minute += 1) log.clock(days(day) + minute * 60_000);
    }
    log.end(days(9) - 20_000);
    const { state } = foldLog(log.records);
    const { rows, table } = state.devices;
    expect([...rows]).toEqual([
      [siteKey('pair'), 0],
      ['t1', 1],
    ]);
    // The site's kind was c1's; the next device that is heard gives it its own.
    expect([...table.link.slice(0, 2), ...table.isSite.slice(0, 2)]).toEqual([0, 1, 1, 0]);
    log.poll(days(9) - 10_000, 't1');
    expect(foldLog(log.records).state.devices.table.link[0]).toBe(2);
  });

  test('and are like new ones when they come back', () => {
    const log = story();
    log.open(days(9) - 30_000, { releaseId: 'r2', startedAt: start + days(9) - 30_000 });
    log.end(days(9) - 20_000, 'r2');
    log.poll(days(9) - 10_000, 'c1');
    log.open(days(9) - 9_000, { releaseId: 'r3', startedAt: start + days(9) - 9_000 });
    log.clock(days(9) - 5_500);
    const windows = foldLog(log.records, 1_000).windows.filter(({ releaseId }) => releaseId === 'r3');
    expect(windows.map(({ counts }) => counts[segment]?.enrolled)).toEqual([2, 2, 2]);
    expect(leafMs(windows, 2, 'crash')).toEqual([0, 0, 0, 1_000]);
  });
});
