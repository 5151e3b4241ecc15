/** What proves that a halt is over: windows that closed after the rollback was out, by the broker's clock. */
import { expect, test } from 'vitest';
import { createRolloutActivities, type RolloutPorts } from '../../activities/rollout.ts';
import type { DirectorDocument } from '../../domain/director.ts';
import type { DirectorStore } from '../../domain/ports.ts';
import type { JudgeStatus } from '../../domain/stage-rule.ts';
import { judgeStatus } from '../support/streams.ts';

const hour = 3_600_000;
const settleMs = 80;
const rolledBackAt = Date.now();
const closedAt = (after: number): JudgeStatus =>
  judgeStatus({ lastWindowClosedAt: rolledBackAt + after, openTrials: {}, counts: {} });

const contentOf = (contentVersion: number, releaseId: string) => ({ contentVersion, releaseId, artefacts: [] });
const lease = { startedAt: 0, leaseMs: 1, freshMs: 1, clearedCells: [] };
/** As it is after a rollback. */
const granted: DirectorDocument = {
  ...{ family: 'ips', directorVersion: 4, mode: 'rollback', steady: contentOf(1, 'baseline') },
  rollout: { content: contentOf(2, 'r1'), salt: 's', stage: 0, thresholds: { 'e/fail-open': 1 }, lease },
  rollback: contentOf(3, 'r1'),
};

/** Looks at each of these in turn, and at the last one from then on. */
const verify = async (
  looks: readonly (JudgeStatus | null)[],
  clockOffset: number,
  waitMs = 60_000,
  document: () => Promise<DirectorDocument> = async () => granted,
) => {
  let looked = 0;
  const read = async () => ({ document: await document(), expiresAt: 0, signedAt: 0, stopped: false, freeze: null });
  const ports = {
    director: { read } as Partial<DirectorStore> as DirectorStore,
    evidence: { judgeStatus: async () => looks[Math.min(looked++, looks.length - 1)] ?? null },
    now: () => Date.now() + clockOffset,
    heartbeat: () => {},
    cancelled: () => new AbortController().signal,
  } as Partial<RolloutPorts> as RolloutPorts;
  const { recovered } = await createRolloutActivities(ports).verifyHalt({
    ...{ releaseId: 'r1', family: 'ips', rollbackVersion: 3, settleMs, waitMs },
  });
  return { recovered, looked };
};

test('a window that closed before proves nothing, also to a worker whose clock is an hour behind', async () => {
  const looks = [closedAt(0), closedAt(settleMs - 1), closedAt(hour)];
  expect(await verify(looks, 0)).toEqual({ recovered: true, looked: 3 });
  expect(await verify(looks, -hour)).toEqual({ recovered: true, looked: 3 });
});

test('a worker whose clock is an hour ahead proves nothing, and says so when its time is over', async () => {
  expect(await verify([closedAt(0), closedAt(10 * settleMs)], hour, 200)).toMatchObject({ recovered: false });
});

test('a judge that knows nothing of a release proves that nobody took it only when it was never granted', async () => {
  const of = async (document: DirectorDocument) =>
    (await verify([null], 0, 3 * settleMs, async () => document)).recovered;
  expect(await of(granted)).toBe(false);
  const other = granted.rollout && { ...granted.rollout, content: contentOf(4, 'r2') };
  // Another one has followed: what became of this one cannot be seen any more.
  expect(await of({ ...granted, mode: 'rolling', steady: contentOf(3, 'r1'), rollout: other, rollback: null })).toBe(
    false,
  );
  expect(await of({ ...granted, rollout: null })).toBe(true);
  // It waited behind another one, which goes on.
  expect(await of({ ...granted, mode: 'rolling', rollout: other, rollback: null })).toBe(true);
  const unreadable = () => Promise.reject(new Error('the store is away'));
  expect((await verify([null], 0, 3 * settleMs, unreadable)).recovered).toBe(false);
});
