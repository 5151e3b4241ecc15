/** What proves that a halt is over: windows that closed after the rollback was out, by the broker's clock. */
import { expect, test } from 'vitest';
import { createRolloutActivities, type RolloutPorts } from '../../activities/rollout.ts';
import type { JudgeStatus } from '../../domain/stage-rule.ts';
import { judgeStatus } from '../support/streams.ts';

const hour = 3_600_000;
const settleMs = 80;
const rolledBackAt = Date.now();
const closedAt = (after: number): JudgeStatus =>
  judgeStatus({ lastWindowClosedAt: rolledBackAt + after, openTrials: {}, counts: {} });

/** Looks at each of these in turn, and at the last one from then on. */
const verify = async (looks: readonly (JudgeStatus | null)[], clockOffset: number, waitMs = 60_000) => {
  let looked = 0;
  const ports = {
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
