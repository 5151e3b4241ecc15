/** Holes through which other systems let a bad rollout pass (prior art): none of them is one here. */
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { createRolloutActivities } from '../../activities/rollout.ts';
import type { DirectorDocument } from '../../domain/director.ts';
import { defaultPolicy, type RolloutPolicy } from '../../domain/policy.ts';
import type { EvidenceReader } from '../../domain/ports.ts';
import type { SegmentCounts } from '../../domain/release.ts';
import { assessStage, type JudgeStatus, refuseRenewal, type StageQuestion } from '../../domain/stage-rule.ts';
import { parsePolicy } from '../../events/policy-schema.ts';
import { createMemoryInventory } from '../../infra/memory/inventory.ts';
import { directorThat, standing } from '../support/directors.ts';
import { judgeStatus, sampleVerdict } from '../support/streams.ts';

const now = 10_000_000;
const policy: RolloutPolicy = {
  ...defaultPolicy,
  ...{ tickMs: 200, freshTicks: 3 },
  stages: [{ name: 'canary', kind: 'canary', size: 8, minMs: 1_000, minDevices: 8, promote: true }],
};
const counts = (changes: Partial<SegmentCounts> = {}): Record<string, SegmentCounts> => ({
  'a/fail-open': { enrolled: 100, offered: 8, installed: 8, healthy: 8, harmed: 0, recovered: 0, ...changes },
});
/** Everything that the stage asks for. */
const good = (changes: Partial<JudgeStatus> = {}): JudgeStatus =>
  judgeStatus({
    ...{ lastTick: 50, lastWindowClosedAt: now - 100, counts: counts(), exposed: { 'a/fail-open': 8 } },
    ...changes,
  });
const hold = { verdict: { ...sampleVerdict, kind: 'hold' }, clearedAt: null } as const;
/** Long after its minimum time, and a person asked to go on. */
const question = (changes: Partial<StageQuestion> = {}): StageQuestion => ({
  ...{ policy, stage: 0, openedAt: now - 3_600_000, now, promote: true, clearedCells: [] },
  ...changes,
});
const outcome = (status: JudgeStatus | null, changes: Partial<StageQuestion> = {}) =>
  assessStage(question(changes), status).outcome;

test('the stage of these tests passes when nothing is wrong', () => {
  expect(outcome(good())).toBe('passed');
});

describe('hawkBit', () => {
  test('1: a group whose devices have all ended goes on although its success threshold was not met', () => {
    // Every device has installed and has its end, most of them a bad one; no error threshold is reached, so nothing halts.
    const ended = good({ counts: counts({ healthy: 3, harmed: 5, recovered: 5 }), openTrials: {} });
    expect(outcome(ended)).toBe('watching');
    expect(outcome(ended, { openedAt: 0 })).toBe('watching');
    expect(outcome(good({ counts: counts({ healthy: 0, harmed: 0, installed: 0 }) }))).toBe('watching');
  });

  test.each([
    ['alphaA', { judge: { alphaA: 'often' } }],
    ['alphaB', { judge: { alphaB: Number.NaN } }],
    ['alphaHold', { judge: { alphaHold: '5 %' } }],
    ['a limit of which nobody knows', { errorThreshold: 50 }],
    ['freshTicks', { freshTicks: '' }],
    ['leaseMs', { leaseMs: 'a while' }],
    ['minDevices', { stages: [{ name: 'c', kind: 'canary', size: 8, minMs: '1s', minDevices: 'many' }] }],
    ['minMs', { stages: [{ name: 'c', kind: 'canary', size: 8, minMs: 'soon', minDevices: 8 }] }],
    ['size', { stages: [{ name: 'c', kind: 'canary', size: '1 %', minMs: '1s', minDevices: 8 }] }],
  ])('2: a threshold that cannot be read means "no error": %s', (_, written) => {
    expect(parsePolicy(written)).toMatchObject({ ok: false });
  });

  test.each<[string, Partial<JudgeStatus>]>([
    ['the age of the last window', { lastWindowClosedAt: Number.NaN }],
    ['healthy devices', { counts: counts({ healthy: Number.NaN }) }],
    ['open trials', { openTrials: { 'a/fail-open': Number.NaN } }],
    ['exposed devices', { exposed: { 'a/fail-open': Number.NaN } }],
    ['the stage', { stage: Number.NaN }],
  ])('2: nor does an observation that is no number: %s', (_, changes) => {
    expect(outcome(good(changes))).not.toBe('passed');
  });

  test('2: nor evidence that is no number, where the stage waits for it', () => {
    const unknown = good({ promote: { cell: 'crash/*', value: Number.NaN, limit: 20 } });
    expect(outcome(unknown, { promote: false })).toBe('watching');
    expect(outcome(good(), { promote: false })).toBe('passed');
  });
});

// ---- the real watch over a stage, with a clock that goes on by one tick with every look

const idle: DirectorDocument = {
  ...{ family: 'ips', directorVersion: 1, mode: 'steady', rollout: null, rollback: null },
  steady: { contentVersion: 1, releaseId: 'baseline', artefacts: [] },
};
type WatchChanges = {
  readonly held?: boolean;
  readonly cancelled?: AbortSignal;
  readonly policy?: RolloutPolicy;
  readonly note?: (at: number) => Promise<void>;
};
const watch = (evidence: EvidenceReader, changes: WatchChanges = {}) => {
  let looks = 0;
  const { watchStage } = createRolloutActivities({
    ...{
      evidence: {
        judgeStatus: (releaseId) => {
          looks += 1;
          return evidence.judgeStatus(releaseId);
        },
      },
      bucketOf: () => 0,
      heartbeat: () => {},
      telemetry: { append: async () => {}, control: async () => {} },
    },
    inventory: createMemoryInventory([]),
    watches: { note: async (_releaseId, at) => changes.note?.(at), lastSeen: async () => null },
    director: directorThat({ read: async () => standing(idle) }),
    now: () => now + looks * policy.tickMs,
    cancelled: () => changes.cancelled ?? new AbortController().signal,
  });
  return watchStage({
    ...{ releaseId: 'r1', family: 'ips', stage: 0, openedAt: now, promote: true, clearedCells: [] },
    policy: changes.policy ?? policy,
    heldFor: changes.held ? { reason: 'no-data', cells: [] } : null,
  });
};

describe('Argo Rollouts', () => {
  test('an analysis without a single measurement is a success', async () => {
    expect(outcome(null)).toBe('held');
    expect(outcome(null, { openedAt: now })).toBe('watching');
    expect(await watch({ judgeStatus: async () => null })).toMatchObject({ outcome: 'held', reason: 'no-data' });
  });

  test('an analysis that is terminated early is a success', async () => {
    const terminated = new AbortController();
    const watching = watch({ judgeStatus: async () => null }, { cancelled: terminated.signal });
    terminated.abort();
    await expect(watching).rejects.toMatchObject({ name: 'AbortError' });
    // And a stage that nobody watches any more is not granted any longer.
    const lease = { startedAt: 0, leaseMs: 60_000, freshMs: 600, clearedCells: [] };
    const content = { contentVersion: 2, releaseId: 'r1', artefacts: [] };
    const rollout = { content, salt: 's', stage: 0, thresholds: {}, lease };
    const document = {
      ...{ family: 'ips', directorVersion: 2, mode: 'rolling' as const, steady: content, rollback: null, rollout },
    };
    expect(refuseRenewal(document, good(), now - 601, now)).toMatch(/no workflow has looked/);
    expect(refuseRenewal(document, good(), now - 600, now)).toBeNull();
  });

  test('a watch that goes on is noted in time for the lease, also after a note that failed', async () => {
    const patientPolicy = { ...policy, freshTicks: 20 };
    const ended = new AbortController();
    const noted: number[] = [];
    const watching = watch(
      { judgeStatus: async () => null },
      {
        ...{ policy: patientPolicy, cancelled: ended.signal },
        note: async (at) => {
          noted.push((at - now) / policy.tickMs);
          if (noted.length === 2) throw new Error('connection refused');
          if (noted.length === 4) ended.abort();
        },
      },
    );
    await expect(watching).rejects.toMatchObject({ name: 'AbortError' });
    // At the first look, after a quarter of twenty ticks, at once again where that one was not kept, a quarter later.
    expect(noted).toEqual([1, 6, 7, 12]);
  });

  test('a stage that is held for want of fresh evidence goes on when that is clearly fresh, not at the limit', async () => {
    // In ticks; the limit is at three.
    const ages = [2.9, 2.1, 2.6, 2];
    let looks = 0;
    const judgeStatusOf = async () => {
      looks += 1;
      return good({ lastWindowClosedAt: now + (looks - (ages[looks - 1] ?? 0)) * policy.tickMs });
    };
    expect(await watch({ judgeStatus: judgeStatusOf }, { held: true })).toMatchObject({ outcome: 'released' });
    expect(looks).toBe(ages.length);
  });

  test('a run is reported successful although every measurement errored (#4479)', async () => {
    const judgeStatusGone = async () => {
      throw new Error('connection refused');
    };
    expect(await watch({ judgeStatus: judgeStatusGone })).toMatchObject({ outcome: 'held', reason: 'no-data' });
  });

  test('measurements that were good once carry a run whose later ones are missing', async () => {
    let asked = 0;
    const wentAway = async () => {
      asked += 1;
      if (asked > 1) throw new Error('connection refused');
      return good({ counts: counts({ healthy: 7 }), lastWindowClosedAt: now });
    };
    expect(await watch({ judgeStatus: wentAway })).toMatchObject({ outcome: 'held', reason: 'no-data' });
    // It was asked again until what was seen once was twice as old as it may be.
    expect(asked).toBe(2 * policy.freshTicks + 1);
  });

  test('an inconclusive analysis is promoted anyway (#3850)', () => {
    expect(outcome(good({ holds: [hold] }))).toBe('held');
    expect(outcome(good({ promote: { cell: 'crash/*', value: 19, limit: 20 } }), { promote: false })).toBe('watching');
  });
});

describe('Flagger', () => {
  test('the threshold is ignored while the canary waits (#1801): for want of data', async () => {
    const stale = good({ halt: sampleVerdict, lastWindowClosedAt: 0 });
    expect(await watch({ judgeStatus: async () => stale }, { held: true })).toMatchObject({
      outcome: 'regression',
    });
  });
  test('the threshold is ignored while the canary waits (#1801): for its minimum time, or for more devices', () => {
    for (const waits of [good({ halt: sampleVerdict, counts: {} }), good({ halt: sampleVerdict, stage: -1 })]) {
      expect(outcome(waits, { openedAt: now, promote: false })).toBe('regression');
    }
  });
  test('a verdict that comes in the middle of a wait ends it', async () => {
    let halt: JudgeStatus['halt'] = null;
    const watching = watch({ judgeStatus: async () => good({ halt, lastWindowClosedAt: 0 }) }, { held: true });
    await sleep(1);
    halt = sampleVerdict;
    expect(await watching).toMatchObject({ outcome: 'regression' });
  });
});

describe('nothing passes', () => {
  test.each<[string, JudgeStatus | null]>([
    ['on NO_DATA', null],
    ['on windows that are too old', good({ lastWindowClosedAt: now - 601 })],
    ['on zero devices', good({ counts: {}, exposed: {} })],
    ['on segments in which nobody is', good({ counts: counts({ enrolled: 0, offered: 0, installed: 0, healthy: 0 }) })],
    [
      'on a segment in which nobody was exposed',
      good({ counts: { ...counts(), 'b/fail-open': { ...counts()['a/fail-open'], healthy: 0 } as SegmentCounts } }),
    ],
    ['on HALT', good({ halt: sampleVerdict })],
    ['on HOLD', good({ holds: [hold] })],
  ])('%s', (_, status) => {
    expect(outcome(status)).not.toBe('passed');
    expect(outcome(status, { promote: false })).not.toBe('passed');
  });
});
