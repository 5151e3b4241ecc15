/** What can be said to a running release. Updates are for people and answer at once; signals are for machines. */
import { defineQuery, defineSignal, defineUpdate } from '@temporalio/workflow';
import type { Cell, CellResult, Verdict } from '../domain/release.ts';
import type { ReleaseState } from '../domain/release-state.ts';

export type PersonRequest = { readonly by: string; readonly reason: string };
/** Where the release stands after the request took effect. */
export type Answer = { readonly phase: string; readonly seq: number };

export const approve = defineUpdate<Answer, [{ readonly by: string; readonly note: string }]>('approve');
export const pause = defineUpdate<Answer, [PersonRequest]>('pause');
export const resume = defineUpdate<Answer, [PersonRequest]>('resume');
export const promote = defineUpdate<Answer, [PersonRequest]>('promote');
export const halt = defineUpdate<Answer, [PersonRequest]>('halt');
export const cancel = defineUpdate<Answer, [PersonRequest]>('cancel');

/** From the judge: HALT of this release. A repetition changes nothing. */
export const regressionVerdict = defineSignal<[Verdict]>('regressionVerdict');

/** From the matrix child: what it plans and what it found, as it goes. */
export const matrixPlanned =
  defineSignal<[{ readonly cells: readonly Cell[]; readonly fleetDevices: number }]>('matrixPlanned');
export const matrixCellFinished = defineSignal<[CellResult]>('matrixCellFinished');

/** The state as the workflow sees it: what the log will say once everything is recorded. */
export const currentState = defineQuery<ReleaseState | null>('currentState');
