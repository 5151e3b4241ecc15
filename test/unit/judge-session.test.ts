import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { emptyState, foldRecord } from '../../domain/at-risk.ts';
import { explainEvidence } from '../../domain/judge/explain.ts';
import { type JudgePolicy, startMass, validateJudgePolicy } from '../../domain/judge/policy.ts';
import {
  acceptWindow,
  foldTicks,
  newSession,
  type PendingWindow,
  restoreSession,
  type Session,
  type StoredSession,
  storeSession,
  type TickResult,
} from '../../domain/judge/session.ts';
import type { Window } from '../../domain/telemetry.ts';
import { bucketOf, hour, type LogRecord, newLog, policy, segment, start } from '../support/telemetry-log.ts';

const partitions = 3;
const context = { digestOf: (value: unknown) => JSON.stringify(value), codeVersion: 'test' };

/** The windows of a log whose devices are spread over three partitions; control records go into each. */
const windowsOf = (records: readonly LogRecord[]): Window[] =>
  Array.from({ length: partitions }, (_, partition) => {
    const state = emptyState(partition, partitions);
    return records
      .filter(({ record }) => 'control' in record || Number(record.report.deviceId.slice(1)) % partitions === partition)
      .flatMap(({ at, record }, offset) => [...foldRecord(state, record, at, offset, bucketOf).windows]);
  }).flat();

const take = (session: Session, window: Window): TickResult[] => {
  if (acceptWindow(session, window, context.digestOf(window)) !== 'kept') return [];
  return foldTicks(session, context);
};
const takeAll = (windows: readonly Window[], session = newSession('r1')) => ({
  session,
  results: windows.flatMap((window) => take(session, window)),
});

/** 12 canaries and 300 controls; `harm` of the canaries crash in tick 3. Nine ticks. */
const story = (harmed: number, opensAt: number | null = null): Window[] => {
  const log = newLog();
  const canaries = Array.from({ length: 12 }, (_, n) => `t${n}`);
  const controls = Array.from({ length: 300 }, (_, n) => `c${n}`);
  for (const id of [...canaries, ...controls]) log.poll(-500, id);
  log.open(0);
  for (const id of canaries) log.offer(100, id);
  for (let at = 1_500; at < 9_000; at += 1_000) {
    for (const id of canaries) log.poll(at, id, { version: 2 });
    for (const id of controls) log.poll(at, id);
    if (opensAt !== null && at > opensAt && at < opensAt + 1_000) log.open(opensAt, { stage: 1 });
    if (at === 3_500) for (const id of canaries.slice(0, harmed)) log.harm(at, id);
  }
  log.clock(9_050);
  return windowsOf(log.records);
};

test('a tick is folded when every partition has delivered it, and its numbers are the sums', () => {
  const windows = story(0);
  const { session, results } = takeAll(windows);
  expect(results.map((result) => result.evidence.tick)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
  expect(session.pending.size).toBe(0);
  const parts = windows.filter((window) => window.tick === 5);
  expect(parts.length).toBe(partitions);
  const fifth = results[5];
  expect(fifth?.evidence.leaves[segment]?.crash).toEqual([0, 0, expect.closeTo(12 / 3600), expect.closeTo(300 / 3600)]);
  expect(fifth?.evidence.offsets.map((origin) => origin.partition)).toEqual([0, 1, 2]);
  expect(fifth?.status).toMatchObject({
    lastTick: 5,
    lastWindowClosedAt: start + 6_000,
    stage: 0,
    holds: [],
    halt: null,
  });
  expect(fifth?.status.counts[segment]).toMatchObject({ enrolled: 312, offered: 12, harmed: 0 });
  expect(fifth?.status.exposed).toEqual({ [segment]: 12 });
});

test('evidence for going on is of the stage in force alone, and its least cell is named with its limit', () => {
  const one = takeAll(story(0));
  const two = takeAll(story(0, 5_000));
  const opened = two.results.findIndex(({ status }) => status.stage === 1);
  expect(opened).toBeGreaterThan(4);
  // ln E of crashes at the first bet: without any event it grows by the same in every tick.
  const crash = ({ promote }: Session) => promote?.logs[1]?.[0] ?? Number.NaN;
  expect(crash(two.session)).toBeGreaterThan(0);
  expect(crash(two.session) / crash(one.session)).toBeCloseTo((9 - opened) / 9, 1);
  // So little exposure says next to nothing yet, of any of the critical cells.
  const last = two.results.at(-1)?.status.promote;
  expect(last).toEqual({ cell: expect.stringMatching(/\/\*$/), value: expect.closeTo(1, 3), limit: 20 });
});

test('harmed canaries give HOLD and HALT with the counts of their cell, once', () => {
  const { session, results } = takeAll(story(6));
  const verdicts = results.flatMap((result) => result.verdicts);
  // The fleet-wide cell and the one of the segment: each raises its own HOLD, once.
  expect(verdicts.map(({ kind, cell }) => (kind === 'halt' ? kind : cell)).sort()).toEqual([
    ...['crash/*', `crash/${segment}`, 'halt'],
  ]);
  const halt = verdicts.find((verdict) => verdict.kind === 'halt');
  expect(halt).toMatchObject({
    tick: 3,
    metric: 'crash',
    x: 6,
    y: 0,
    thresholdA: 100,
    thresholdB: 20,
    firstTick: 0,
    lastTick: 3,
    codeVersion: 'test',
    firstHarmAt: start + 3_500,
    inTick: [6, 0, expect.closeTo(12 / 3600), expect.closeTo(300 / 3600)],
    attribution: {
      latchedBoth: expect.arrayContaining([`crash/${segment}`]),
      suspects: expect.arrayContaining(['crash/*', `crash/${segment}`]),
      leading: halt?.cell,
    },
  });
  expect(halt?.attribution?.suspects).toHaveLength(2);
  expect(halt?.statA).toBeGreaterThanOrEqual(100);
  expect(halt?.treatedHours).toBeCloseTo((12 * 3_900) / hour, 9);
  expect(session.halt).toEqual(halt);
  expect(results.at(-1)?.status.halt).toEqual(halt);
  expect(results.at(-1)?.status.counts[segment]?.harmed).toBe(6);
});

test('neither the order of delivery, repeats nor restarts change anything', () => {
  const windows = story(5);
  const expected = takeAll(windows);
  fc.assert(
    fc.property(fc.infiniteStream(fc.nat({ max: 2 * partitions })), (choices) => {
      const queues = Array.from({ length: partitions }, (_, p) => windows.filter((window) => window.partition === p));
      const results: TickResult[] = [];
      let session = newSession('r1');
      while (queues.some((queue) => queue.length > 0)) {
        const choice = choices.next().value ?? 0;
        const queue = queues[choice % partitions];
        const window = queue?.[0];
        if (queue === undefined || window === undefined) continue;
        results.push(...take(session, window));
        if (choice < partitions) queue.shift();
        else if (choice === 2 * partitions) session = throughJson(session);
      }
      expect(results).toEqual(expected.results);
      expect(storeSession(session)).toEqual(storeSession(expected.session));
    }),
    { numRuns: 30 },
  );
});

const throughJson = (session: Session): Session => {
  const stored: StoredSession = JSON.parse(JSON.stringify(storeSession(session)));
  const pending = [...session.pending.values()].flatMap((waiting) => [...waiting.values()]);
  const read: PendingWindow[] = JSON.parse(JSON.stringify(pending));
  return restoreSession(stored, read);
};

test('what another version of the statistics has stored is refused, not folded on', () => {
  const { session } = takeAll(story(0));
  const { version: _version, ...old } = storeSession(session);
  const read = restoreSession(old as StoredSession, []);
  expect(read).toMatchObject({ releaseId: 'r1', judge: null, refused: expect.stringContaining('halt the release') });
  const [window] = story(0);
  expect(window && acceptWindow(read, window, 'd')).toBe('refused');
});

test('a missing partition is waited for, never taken as zeros', () => {
  const windows = story(6).filter((window) => window.partition !== 1 || window.tick < 2);
  const { session, results } = takeAll(windows);
  expect(results.map((result) => result.evidence.tick)).toEqual([0, 1]);
  expect(session.refused).toBeNull();
  expect(session.pending.size).toBe(7);
});

test('two bodies for one place are a fork: nothing more is taken', () => {
  const windows = story(0);
  const other = (window: Window): Window => ({ ...window, lastOffset: '4711' });
  const session = newSession('r1');
  const first = windows.find((window) => window.tick === 0);
  if (first === undefined) throw new Error('the story has a tick 0');
  expect(acceptWindow(session, first, context.digestOf(first))).toBe('kept');
  expect(acceptWindow(session, first, context.digestOf(first))).toBe('repeat');
  expect(acceptWindow(session, other(first), context.digestOf(other(first)))).toBe('refused');
  expect(session.refused).toContain('two different windows of tick 0');
  expect(takeAll(windows, session).results).toEqual([]);
});

test('a window of a tick that was folded is left to the caller to compare', () => {
  const { session } = takeAll(story(0));
  const folded = story(0).find((window) => window.tick === 4);
  expect(folded && acceptWindow(session, folded, context.digestOf(folded))).toBe('folded');
});

test.each<[string, (window: Window) => Window]>([
  ['carry no plan', (window) => ({ ...window, plan: null })],
  [
    'another plan',
    (window) =>
      window.partition === 2 && window.plan ? { ...window, plan: { ...window.plan, startedAt: 1 } } : window,
  ],
  ['no segment', (window) => ({ ...window, counts: {}, leaves: {} })],
  ['not part of the release', (window) => ({ ...window, leaves: { elsewhere: { crash: [0, 0, 1, 1] } } })],
  ['without treated exposure', (window) => ({ ...window, leaves: { [segment]: { crash: [1, 0, 0, 1] } } })],
])('a window that %s is refused and no tick is folded', (reason, change) => {
  const { session, results } = takeAll(story(0).map(change));
  expect(results).toEqual([]);
  expect(session.refused).toContain(reason);
});

test('a later stage counts from the tick in which every partition knows it, and spends its start mass there', () => {
  const log = newLog();
  log.poll(-500, 'u0');
  log.poll(-500, 'c1');
  log.open(0);
  log.open(2_500, { stage: 1, thresholds: { [segment]: 200 } });
  log.clock(6_000);
  // Partition 2 hears of the stage one tick later.
  const windows = windowsOf(log.records).map((window) =>
    window.partition === 2 && window.tick === 3 ? { ...window, stage: 0 } : window,
  );
  const { session, results } = takeAll(windows);
  expect(results.map((result) => result.status.stage)).toEqual([0, 0, 0, 0, 1, 1]);
  const planTicks = policy.stages.reduce((sum, stage) => sum + stage.minMs, 0) / policy.tickMs;
  expect(session.judge?.used).toBeCloseTo(startMass(0, 0, planTicks) + startMass(4, 1, planTicks), 12);
});

describe('the stage that leaves no control', () => {
  const everybody = policy.stages.findIndex(({ kind }) => kind === 'all');
  /** Everybody gets it from 10 s on; `crashes` of 300 devices crash in each of two later ticks. */
  const last = (crashes: number): Window[] => {
    const log = newLog();
    const ids = Array.from({ length: 300 }, (_, n) => `c${n}`);
    for (const id of ids) log.poll(-500, id);
    log.open(0);
    for (let at = 1_500; at < 30_000; at += 1_000) {
      if (at === 10_500) {
        log.open(10_400, { stage: everybody, thresholds: { [segment]: 10_000 } });
        for (const id of ids) log.offer(at, id);
      } else for (const id of ids) log.poll(at, id, { version: at > 10_500 ? 2 : 1 });
      for (const tick of [14_500, 15_500]) {
        const from = tick === 14_500 ? 0 : crashes;
        if (at === tick) for (const id of ids.slice(from, from + crashes)) log.harm(at + 100, id);
      }
    }
    log.clock(30_050);
    return windowsOf(log.records);
  };

  test('is judged against what its controls had shown, with all numbers of the verdict', () => {
    const { session, results } = takeAll(last(20));
    const opened = results.findIndex(({ status }) => status.stage === everybody);
    // No device is control any more.
    for (const { evidence } of results.slice(opened + 1)) expect(evidence.leaves[segment]?.crash?.[3] ?? 0).toBe(0);
    expect(session.halt).toMatchObject({ metric: 'crash', kind: 'halt', statA: session.halt?.statB });
    expect(session.halt?.cell).toMatch(/^crash\/.*\/before$/);
    const before = results.slice(0, opened).map(({ evidence }) => evidence.leaves[segment]?.crash ?? [0, 0, 0, 0]);
    const exposure = before.reduce((sum, [, , , control]) => sum + control, 0);
    expect(exposure).toBeGreaterThan(0.5);
    // 20 of 300 devices in a tick, against no event in all the controls' time.
    expect(session.halt).toMatchObject({ y: 0, controlHours: expect.closeTo(exposure, 9) });
    expect([20, 40]).toContain(session.halt?.x);
    expect(session.halt?.statA).toBeGreaterThanOrEqual(100);
  });

  test('no fault, no halt; and the release before it has no such cell', () => {
    const { session, results } = takeAll(last(0));
    expect([session.halt, session.holds]).toEqual([null, []]);
    const frozen = session.plan?.live.policy.cells.filter(({ kind }) => kind === 'frozen') ?? [];
    expect(frozen.map(({ id }) => id)).toContain(`crash/${segment}/before`);
    expect(frozen.some(({ metric }) => metric.startsWith('silence'))).toBe(false);
    expect(validateJudgePolicy(session.plan?.live.policy as JudgePolicy)).toEqual([]);
    const early = takeAll(story(0)).session.plan?.live.policy.cells ?? [];
    expect(early.some(({ kind }) => kind === 'frozen')).toBe(false);
    expect(new Set(results.map(({ evidence }) => evidence.tick)).size).toBe(results.length);
  });

  test('is explained as it was judged, tick by tick', () => {
    const { session, results } = takeAll(last(20));
    const ticks = results.map(({ evidence }) => evidence);
    const explained = explainEvidence(policy, ticks);
    expect(explained.ticks.every(({ asRecorded }) => asRecorded)).toBe(true);
    expect(explained.halt).toMatchObject({ tick: session.halt?.tick, cell: session.halt?.cell });
    const cell = explained.cells.find((one) => one.cell === `crash/${segment}/before`);
    expect(cell).toMatchObject({ segment, x: 40, y: 0, control: session.halt?.controlHours });
    const chosen = explainEvidence(policy, ticks, { segment });
    expect(chosen.cells.map((one) => one.cell)).toContain(`crash/${segment}/before`);
  });
});
