import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { metrics } from '../../domain/policy.ts';
import { segmentKey } from '../../domain/release.ts';
import {
  bucketOf,
  engine,
  foldLog,
  leafMs,
  newLog,
  policy,
  randomLog,
  segment,
  start,
  withoutRange,
} from '../support/telemetry-log.ts';

describe('exposure', () => {
  test('controls are the devices known before the release opened; they enter at the opening, counted in the next tick', () => {
    const log = newLog();
    log.poll(-500, 'c1');
    log.poll(-400, 'c2');
    log.open(100);
    log.clock(3000);
    const { windows } = foldLog(log.records);
    expect(windows.map((window) => window.tick)).toEqual([0, 1, 2]);
    expect(windows[0]?.leaves).toEqual({});
    expect(leafMs(windows, 1, 'crash')).toEqual([0, 0, 0, 2 * (900 + 1000)]);
    expect(leafMs(windows, 2, 'crash')).toEqual([0, 0, 0, 2 * 1000]);
    expect(windows[2]?.counts[segment]).toMatchObject({ enrolled: 2, offered: 0 });
  });

  test('a device inside the exposure that was not served is in neither arm', () => {
    const log = newLog();
    log.poll(-500, 't1');
    log.open(100);
    log.poll(500, 't1');
    log.harm(1500, 't1', 'crash', 1);
    log.clock(9000);
    const { windows } = foldLog(log.records);
    expect(windows.every((window) => Object.keys(window.leaves).length === 0)).toBe(true);
    expect(windows[8]).toMatchObject({ exposed: { [segment]: 1 }, counts: { [segment]: { enrolled: 1, harmed: 0 } } });
  });

  test('is fixed at the start of the tick: a death during the tick does not shorten it', () => {
    const log = newLog();
    log.poll(-100, 'c1');
    log.open(0);
    log.harm(1200, 'c1');
    log.clock(3000);
    const { windows } = foldLog(log.records);
    expect(leafMs(windows, 1, 'crash')).toEqual([0, 1, 0, 2000]);
    expect(leafMs(windows, 2, 'crash')).toEqual([0, 0, 0, 0]);
    expect(leafMs(windows, 2, 'load-failure')).toEqual([0, 0, 0, 1000]);
  });

  test('a silent device leaves the risk set of every metric and enters again when it is heard', () => {
    const log = newLog();
    log.poll(0, 'c1');
    log.open(0);
    log.clock(6000); // the last heartbeat within 5000 ms covers the start of ticks 1 to 4
    log.poll(7400, 'c1');
    log.harm(7600, 'c1');
    log.clock(9000);
    const { windows } = foldLog(log.records);
    expect([4, 5, 7].map((tick) => leafMs(windows, tick, 'crash'))).toEqual([
      [0, 0, 0, 1000],
      [0, 0, 0, 0],
      [0, 0, 0, 0],
    ]);
    expect(leafMs(windows, 8, 'crash')).toEqual([0, 1, 0, 600 + 1000]);
  });

  test('a device that went quiet before the opening is no control', () => {
    const log = newLog();
    log.poll(-5000, 'c1');
    log.poll(-4999, 'c2');
    log.open(0);
    log.clock(2000);
    const { windows } = foldLog(log.records);
    expect(leafMs(windows, 1, 'crash')).toEqual([0, 0, 0, 1000]); // c2 from the opening, and no longer in tick 1
  });

  test('a device that joins during the release is at risk from its first poll, counted in the next tick', () => {
    const log = newLog();
    log.open(0);
    log.poll(1250, 'c1');
    log.harm(1300, 'c1');
    log.clock(3000);
    const { windows } = foldLog(log.records);
    expect(leafMs(windows, 1, 'crash')).toEqual([0, 0, 0, 0]);
    expect(leafMs(windows, 2, 'crash')).toEqual([0, 1, 0, 750 + 1000]);
  });

  test('segments that are not in the plan, and devices that never polled, take no part', () => {
    const log = newLog();
    log.poll(-10, 'c1', { failMode: 'fail-closed' });
    log.harm(-5, 'c2');
    log.open(0);
    log.harm(1100, 'c1');
    log.harm(1200, 'c2');
    log.clock(3000);
    const { windows } = foldLog(log.records);
    expect(windows.map((window) => window.leaves)).toEqual([{}, {}, {}]);
    expect(Object.keys(windows[0]?.counts ?? {})).toEqual([segment]);
  });

  test('a device that changes its segment leaves both arms', () => {
    const log = newLog();
    const other = segmentKey(segment.split('/')[0] ?? '', 'fail-closed');
    log.poll(-10, 'c1');
    log.open(0, { thresholds: { [segment]: 100, [other]: 100 } });
    log.poll(1500, 'c1', { failMode: 'fail-closed' });
    log.clock(4000);
    const { windows } = foldLog(log.records);
    expect(leafMs(windows, 1, 'crash')).toEqual([0, 0, 0, 2000]);
    expect(leafMs(windows, 2, 'crash')).toEqual([0, 0, 0, 0]);
    expect(leafMs(windows, 2, 'crash', other)).toEqual([0, 0, 0, 0]);
  });
});

describe('served', () => {
  test('treated from the next tick on, with exposure and events since it was served', () => {
    const log = newLog();
    log.poll(-10, 't1');
    log.open(0);
    log.offer(300, 't1');
    log.harm(600, 't1');
    log.clock(3000);
    const { windows } = foldLog(log.records);
    expect(leafMs(windows, 0, 'crash')).toEqual([0, 0, 0, 0]);
    expect(leafMs(windows, 1, 'crash')).toEqual([1, 0, 700 + 1000, 0]);
    expect(leafMs(windows, 1, 'load-failure')).toEqual([0, 0, 700 + 1000, 0]);
    expect(leafMs(windows, 2, 'crash')).toEqual([0, 0, 0, 0]);
    expect(windows[0]).toMatchObject({
      firstHarmAt: start + 600,
      openTrials: { [segment]: 1 },
      counts: { [segment]: { enrolled: 1, offered: 1, harmed: 1 } },
    });
  });

  test('order inside a tick: what a control did before it was served is a control event, what it does after is not', () => {
    const opened = (log: ReturnType<typeof newLog>) => {
      log.poll(-10, 'u1');
      log.open(0);
      log.clock(1000);
      log.open(1100, { stage: 1, thresholds: { [segment]: 200 } });
    };
    const before = newLog();
    opened(before);
    before.harm(1200, 'u1', 'crash', 1);
    before.offer(1300, 'u1');
    before.clock(3000);
    expect(leafMs(foldLog(before.records).windows, 1, 'crash')).toEqual([0, 1, 0, 2000]);
    expect(leafMs(foldLog(before.records).windows, 2, 'crash')).toEqual([0, 0, 0, 0]);
    expect(leafMs(foldLog(before.records).windows, 2, 'load-failure')).toEqual([0, 0, 700 + 1000, 0]);

    const after = newLog();
    opened(after);
    after.offer(1300, 'u1');
    after.harm(1400, 'u1', 'crash', 1);
    after.clock(3000);
    expect(leafMs(foldLog(after.records).windows, 1, 'crash')).toEqual([0, 0, 0, 2000]);
    expect(leafMs(foldLog(after.records).windows, 2, 'crash')).toEqual([1, 0, 700 + 1000, 0]);
  });

  test('a report at the very end of a tick belongs to the next', () => {
    const log = newLog();
    log.poll(-10, 't1');
    log.open(0);
    log.offer(500, 't1');
    log.harm(1999, 't1', 'crash');
    log.harm(2000, 't1', 'load-failure');
    log.clock(3000);
    const { windows } = foldLog(log.records);
    expect(leafMs(windows, 1, 'crash')[0]).toBe(1);
    expect(leafMs(windows, 1, 'load-failure')[0]).toBe(0);
    expect(leafMs(windows, 2, 'load-failure')[0]).toBe(1);
  });

  test('each metric once per device, however often it happens', () => {
    const log = newLog();
    log.poll(-10, 't1');
    log.open(0);
    log.offer(500, 't1');
    for (const at of [600, 700, 1600, 2600]) log.harm(at, 't1', 'blocked-traffic');
    log.clock(5000);
    const { windows } = foldLog(log.records);
    expect(windows.map((window) => window.leaves[segment]?.['blocked-traffic']?.[0] ?? 0)).toEqual([0, 1, 0, 0, 0]);
    expect(windows[4]?.counts[segment]?.harmed).toBe(1);
  });

  test('a control is out for good after its first event, also after its update', () => {
    const log = newLog();
    log.poll(-10, 'u1');
    log.open(0);
    log.harm(1500, 'u1', 'crash', 1);
    log.open(2000, { stage: 1, thresholds: { [segment]: 200 } });
    log.offer(2100, 'u1');
    log.harm(2200, 'u1', 'crash');
    log.harm(3200, 'u1', 'crash');
    log.clock(5000);
    const { windows } = foldLog(log.records);
    expect(windows.map((window) => window.leaves[segment]?.crash?.slice(0, 2) ?? [0, 0])).toEqual([
      [0, 0],
      [0, 1],
      [0, 0],
      [0, 0],
      [0, 0],
    ]);
    expect(leafMs(windows, 3, 'crash')[2]).toBe(0);
    expect(leafMs(windows, 3, 'load-failure')).toEqual([0, 0, 1900, 0]);
    expect(windows[4]?.counts[segment]?.harmed).toBe(1); // what people are told is not what is tested
  });

  test('what a control did in the tick in which it entered is no event of the treated arm, whenever it is served', () => {
    for (const servedAt of [1_400, 2_100]) {
      const log = newLog();
      log.open(0);
      log.poll(1_100, 'u1');
      log.harm(1_200, 'u1', 'crash', 1);
      log.open(1_300, { stage: 1, thresholds: { [segment]: 200 } });
      log.offer(servedAt, 'u1');
      log.harm(servedAt + 100, 'u1');
      log.harm(servedAt + 200, 'u1', 'load-failure');
      log.clock(5_000);
      const { windows } = foldLog(log.records);
      expect(windows.map(({ tick }) => leafMs(windows, tick, 'crash'))).toEqual(Array(5).fill([0, 0, 0, 0]));
      const events = windows.map(({ tick }) => leafMs(windows, tick, 'load-failure')[0]);
      expect(events.reduce((sum, x) => sum + x, 0)).toBe(1);
    }
  });

  test('outside the exposure of its segment it is in neither arm', () => {
    const log = newLog();
    log.poll(-10, 'c1');
    log.open(0);
    log.offer(500, 'c1');
    log.harm(600, 'c1');
    log.clock(3000);
    const { windows } = foldLog(log.records);
    expect(windows.map((window) => window.leaves)).toEqual([{}, {}, {}]);
  });

  test('an offer of another content or release serves nothing', () => {
    const log = newLog();
    log.open(0);
    log.poll(500, 't1', { offer: 9 });
    log.clock(1000);
    expect(foldLog(log.records).windows[0]?.counts[segment]).toMatchObject({ enrolled: 1, offered: 0 });
  });
});

describe('silence', () => {
  test('the first trial opens with the offer and is counted in the tick of its deadline, heard or not', () => {
    const log = newLog();
    log.open(0);
    log.offer(300, 't1');
    log.offer(400, 't2');
    log.say(1000, 't2', 'installed');
    log.clock(5000);
    const { windows } = foldLog(log.records);
    expect(windows.map((window) => leafMs(windows, window.tick, 'silence-first'))).toEqual([
      [0, 0, 0, 0],
      [0, 0, 0, 0],
      [0, 0, 0, 0],
      [1, 0, 2, 0],
      [0, 0, 0, 0],
    ]);
    expect(windows.map((window) => window.openTrials[segment])).toEqual([2, 2, 2, 0, 0]);
    expect(windows[3]?.counts[segment]).toMatchObject({ offered: 2, installed: 1, harmed: 1 });
    expect(windows[3]?.firstHarmAt).toBe(start + 3300);
  });

  test('a heartbeat at the very deadline is too late; one millisecond earlier is not', () => {
    for (const [at, events] of [
      [3300, 1],
      [3299, 0],
    ] as const) {
      const log = newLog();
      log.open(0);
      log.offer(300, 't1');
      log.say(at, 't1', 'healthy');
      log.clock(5000);
      expect(leafMs(foldLog(log.records).windows, 3, 'silence-first')).toEqual([events, 0, 1, 0]);
    }
  });

  test('a deadline at the end of a tick falls due in the next', () => {
    const log = newLog();
    log.open(0);
    log.offer(1000, 't1'); // deadline 4000: tick 4
    log.clock(6000);
    const { windows } = foldLog(log.records);
    expect(leafMs(windows, 3, 'silence-first')).toEqual([0, 0, 0, 0]);
    expect(leafMs(windows, 4, 'silence-first')).toEqual([1, 0, 1, 0]);
  });

  test('every later heartbeat of a treated device opens a trial; it is counted silent once', () => {
    const log = newLog();
    log.open(0);
    log.offer(100, 't1');
    log.say(1100, 't1', 'installed'); // deadline 6100
    log.poll(2100, 't1'); // deadline 7100: silent
    log.poll(9000, 't1'); // back, out of this risk set
    log.clock(16_000);
    const { windows } = foldLog(log.records);
    expect(leafMs(windows, 6, 'silence-later')).toEqual([0, 0, 1, 0]);
    expect(leafMs(windows, 7, 'silence-later')).toEqual([1, 0, 1, 0]);
    expect(windows.slice(8).every((window) => window.leaves[segment]?.['silence-later'] === undefined)).toBe(true);
  });

  test('every control heartbeat opens a trial of each length', () => {
    const log = newLog();
    log.open(0);
    log.poll(500, 'c1'); // 3500 and 5500
    log.poll(1500, 'c1'); // 4500: silent; 6500: silent
    log.clock(8000);
    const { windows } = foldLog(log.records);
    expect([3, 4].map((tick) => leafMs(windows, tick, 'silence-first'))).toEqual([
      [0, 0, 0, 1],
      [0, 1, 0, 1],
    ]);
    expect([5, 6].map((tick) => leafMs(windows, tick, 'silence-later'))).toEqual([
      [0, 0, 0, 1],
      [0, 1, 0, 1],
    ]);
  });

  test('a control served while a trial is open leaves that trial', () => {
    const log = newLog();
    log.poll(100, 'u1');
    log.open(0);
    log.poll(500, 'u1');
    log.open(1000, { stage: 1, thresholds: { [segment]: 200 } });
    log.offer(1200, 'u1'); // first trial until 4200
    log.clock(8000);
    const { windows } = foldLog(log.records);
    expect(windows.map((window) => window.leaves[segment]?.['silence-first'])).toEqual([
      undefined,
      undefined,
      undefined,
      undefined,
      [1, 0, 1, 0],
      undefined,
      undefined,
      undefined,
    ]);
    expect(windows.every((window) => window.leaves[segment]?.['silence-later'] === undefined)).toBe(true);
  });

  test('a device that was silent as a control has no judged trial after its update, but is still watched', () => {
    const log = newLog();
    log.open(0);
    log.poll(100, 'u1'); // silent at 3100 and 5100
    log.clock(6000);
    log.open(6000, { stage: 1, thresholds: { [segment]: 200 } });
    log.offer(6500, 'u1');
    log.clock(11_000);
    const { windows } = foldLog(log.records);
    expect(leafMs(windows, 3, 'silence-first')).toEqual([0, 1, 0, 1]);
    expect(leafMs(windows, 9, 'silence-first')).toEqual([0, 0, 0, 0]);
    expect(windows[8]?.openTrials[segment]).toBe(1);
    expect(windows[9]).toMatchObject({ openTrials: { [segment]: 0 }, counts: { [segment]: { harmed: 1 } } });
  });
});

describe('device counts', () => {
  test('harmed, then recovered on the rollback content; harm after it is not the release’s', () => {
    const log = newLog();
    log.open(0);
    for (const id of ['t1', 't2']) {
      log.offer(100, id);
      log.say(200, id, 'installed');
      log.say(300, id, 'healthy');
    }
    log.harm(400, 't1', 'update-failure');
    log.harm(500, 't1', 'blocked-traffic');
    log.say(1500, 't1', 'healthy', 2);
    log.say(2500, 't1', 'healthy', 3);
    log.say(2600, 't2', 'healthy', 3);
    log.harm(2700, 't2', 'crash', 3);
    log.clock(4000);
    const { windows } = foldLog(log.records);
    const at = (tick: number) => windows[tick]?.counts[segment];
    // A device that said it was healthy and then broke is none that a stage passes on.
    expect(at(0)).toEqual({ enrolled: 2, offered: 2, installed: 2, healthy: 1, harmed: 1, recovered: 0 });
    expect(at(1)?.recovered).toBe(0);
    expect(at(3)).toEqual({ enrolled: 2, offered: 2, installed: 2, healthy: 1, harmed: 1, recovered: 1 });
  });

  test('a healthy device that falls silent is not counted as healthy until it is heard again', () => {
    const log = newLog();
    log.open(0);
    log.offer(100, 't1');
    log.say(200, 't1', 'installed');
    log.say(300, 't1', 'healthy');
    log.clock(30_000);
    log.poll(30_100, 't1', { version: 2 });
    log.clock(32_000);
    const { windows } = foldLog(log.records);
    const healthy = windows.map((window) => window.counts[segment]?.healthy);
    expect(healthy[0]).toBe(1);
    expect(healthy).toContain(0);
    expect(healthy.at(-1)).toBe(1);
  });
});

describe('the log', () => {
  test('windows cover the log without gaps and carry the stage in force at their start', () => {
    const log = newLog();
    log.poll(-10, 'c1');
    log.open(0);
    log.clock(500);
    log.open(1200, { stage: 1, thresholds: { [segment]: 200 } });
    log.clock(2300);
    log.clock(5100);
    const { windows } = foldLog(log.records);
    expect(windows.map(({ tick, stage, firstOffset, lastOffset }) => [tick, stage, firstOffset, lastOffset])).toEqual([
      [0, 0, '1', '2'],
      [1, 0, '3', '3'],
      [2, 1, '4', '4'],
      [3, 1, '5', '4'],
      [4, 1, '5', '4'],
    ]);
    expect(windows.map((window) => window.plan?.startedAt ?? null)).toEqual([start, null, null, null, null]);
  });

  test('a partition that learns late of the release delivers the empty ticks before', () => {
    const log = newLog();
    log.poll(2400, 'c1');
    log.open(2500);
    log.clock(4000);
    const { windows } = foldLog(log.records);
    expect(windows.map((window) => window.tick)).toEqual([0, 1, 2, 3]);
    expect(leafMs(windows, 3, 'crash')).toEqual([0, 0, 0, 500 + 1000]);
  });

  test('what a poll says of its device that is new is kept with its append time', () => {
    const log = newLog(() => 'pair');
    log.poll(-10, 'c1');
    log.poll(500, 'c1');
    log.poll(700, 'c1', { version: 2 });
    const described = (count: number) => foldLog(log.records.slice(0, count)).state.described.get('c1');
    expect([1, 2, 3].map(described)).toEqual([-10, -10, 700].map((at) => ({ describedAt: start + at, site: 'pair' })));
  });

  test('append times that step back do not reopen a tick', () => {
    const log = newLog();
    log.poll(-10, 'c1');
    log.open(0);
    log.clock(1500);
    log.harm(900, 'c1');
    log.clock(2000);
    const { windows } = foldLog(log.records);
    expect(leafMs(windows, 1, 'crash')).toEqual([0, 1, 0, 2000]);
  });

  test('repeated markers change nothing, and an ended release stays ended', () => {
    const log = newLog();
    log.poll(-10, 'c1');
    log.open(0);
    log.open(10);
    log.open(20, { stage: 1, thresholds: { [segment]: 200 } });
    log.open(30);
    log.clock(1000);
    log.end(1100);
    log.open(1200);
    log.clock(9000);
    const { windows, state } = foldLog(log.records);
    expect(windows.map((window) => window.tick)).toEqual([0]);
    expect(state.releases.size).toBe(0);
  });

  test('two releases are folded side by side', () => {
    const log = newLog();
    log.poll(-10, 'c1');
    log.open(0);
    log.open(500, { releaseId: 'r2', startedAt: start + 500 });
    log.clock(2000);
    const { windows } = foldLog(log.records);
    expect(windows.map(({ releaseId, tick }) => `${releaseId} ${tick}`).sort()).toEqual(['r1 0', 'r1 1', 'r2 0']);
  });

  test('a device id that is a property name of objects is a device like any other', () => {
    const log = newLog();
    log.poll(-10, '__proto__');
    log.open(0);
    log.clock(2000);
    expect(foldLog(log.records, 1).windows[1]?.counts[segment]?.enrolled).toBe(1);
  });
});

describe('properties', () => {
  test('reports that come again after others change nothing but the log range', () => {
    fc.assert(
      fc.property(randomLog, (records) => {
        const replayed = records.flatMap((record, index) => {
          const earlier = records[Math.max(0, index - 3)];
          return earlier && 'report' in earlier.record ? [record, { at: record.at, record: earlier.record }] : [record];
        });
        expect(withoutRange(foldLog(replayed).windows)).toEqual(withoutRange(foldLog(records).windows));
      }),
      { numRuns: 100 },
    );
  });

  test('an event never lacks its exposure, and no device is counted twice for a metric', () => {
    fc.assert(
      fc.property(randomLog, (records) => {
        const { windows } = foldLog(records);
        for (const metric of metrics) {
          let events = 0;
          for (const window of windows) {
            const [x, y, treated, control] = window.leaves[segment]?.[metric.id] ?? [0, 0, 0, 0];
            events += x + y;
            expect(x === 0 || treated > 0).toBe(true);
            expect(y === 0 || control > 0).toBe(true);
            expect(metric.trial === 'device-hour' || x <= treated).toBe(true);
            expect(metric.trial === 'device-hour' || y <= control).toBe(true);
          }
          expect(events).toBeLessThanOrEqual(8);
        }
        expect(windows.map((window) => window.tick)).toEqual(windows.map((_, index) => index));
        expect(windows.at(-1)?.openTrials[segment]).toBe(0);
      }),
      { numRuns: 200 },
    );
  });

  test('the first trial of every served device is counted exactly once', () => {
    fc.assert(
      fc.property(randomLog, (records) => {
        const { windows } = foldLog(records);
        const trials = windows.reduce((sum, window) => sum + (window.leaves[segment]?.['silence-first']?.[2] ?? 0), 0);
        const offered = windows.at(-1)?.counts[segment]?.offered ?? 0;
        expect(trials).toBeLessThanOrEqual(offered);
      }),
      { numRuns: 100 },
    );
  });
});

test('the helpers of this file mean what they say', () => {
  expect(['t1', 'u1', 'c1'].map((id) => bucketOf('', id))).toEqual([10, 150, 5000]);
  expect(segment).toBe(`ids-1.0-${engine.digest.slice(0, 8)}/fail-open`);
  expect(policy.firstSilenceMs).toBeLessThan(policy.silenceMs);
});

test('a device that says much in one tick has one trial of each kind in it, and is silent all the same', () => {
  const heard = (says: number) => {
    const log = newLog();
    for (const id of ['t1', 'c1']) log.poll(-500, id);
    log.open(0);
    log.offer(100, 't1');
    for (let n = 0; n < says; n += 1) log.poll(1_100 + n, 't1', { version: 2 });
    log.clock(8_000);
    return foldLog(log.records).windows;
  };
  // The later trials of the reports in tick 1 fall due in tick 6.
  for (const says of [1, 2, 10]) expect(leafMs(heard(says), 6, 'silence-later')).toEqual([1, 0, 1, 0]);
});
