/** What tests of the paths of a release share: the usual events, and what came before what. */
import { expect } from 'vitest';
import type { StageOutcome } from '../../domain/release.ts';
import type { ReleaseEventType } from '../../events/catalogue.ts';
import { evidence, holdVerdict, type ScriptedRelease } from './scripted.ts';

export const cleared = [holdVerdict.cell];
/** What a watch over the first stage ends with while these cells hold. */
export const heldByJudge = (cells: readonly string[] = cleared): StageOutcome => ({
  ...{ outcome: 'held', reason: 'hold', verdict: holdVerdict, cells, evidence: evidence(0) },
});

export const always = () => true;
export const built: readonly ReleaseEventType[] = ['ReleaseTriggered', 'BuildStarted', 'BuildSucceeded'];
export const signed: readonly ReleaseEventType[] = [
  ...built,
  ...(['MatrixPlanned', 'MatrixCellPassed', 'MatrixCellPassed', 'MatrixPassed'] as const),
  ...(['SignatureAdded', 'SignatureAdded', 'ManifestSigned', 'ManifestPublished'] as const),
];
export const planned: readonly ReleaseEventType[] = [...signed, 'RolloutPlanned'];
export const watched: readonly ReleaseEventType[] = ['StageEvidenceRecorded', 'StagePassed'];
export const stage: readonly ReleaseEventType[] = ['StageOpened', ...watched];
export const completed: readonly ReleaseEventType[] = ['RolloutCompleted', 'ReleaseCompleted'];
export const rolledBack: readonly ReleaseEventType[] = [
  ...(['ExposureFrozen', 'RollbackPublished', 'HaltVerified', 'ReleaseHalted'] as const),
];

/** Each of `later` happened after as many of `earlier`. */
export const expectAfter = (
  { happened }: ScriptedRelease,
  later: ScriptedRelease['happened'][number],
  earlier: ScriptedRelease['happened'][number],
) => {
  let balance = 0;
  for (const what of happened) {
    if (what === earlier) balance += 1;
    if (what === later) balance -= 1;
    expect(balance, `${later} before ${earlier} in ${happened.join(', ')}`).toBeGreaterThanOrEqual(0);
  }
  expect(happened).toContain(later);
};

export const refusal = (code: string) => ({ cause: { type: code } });
export const dataOf = (ended: Awaited<ReturnType<ScriptedRelease['end']>>, type: ReleaseEventType) =>
  ended.stream.events.filter((event) => event.type === type).map((event) => event.data);
