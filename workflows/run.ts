/** What the parts of a release's workflow share: the run, and the two ends that several of them come to. */
import type { RolloutPolicy } from '../domain/policy.ts';
import type { ReleaseState } from '../domain/release-state.ts';
import type * as messages from './messages.ts';
import { byWorkflow, type Recorded, type Recorder } from './recorder.ts';

export type ReleaseInput = {
  readonly releaseId: string;
  readonly family: string;
  readonly requestedBy: string;
  readonly note: string;
  /** SHA-256 of the source bundle in the blob store. */
  readonly sourceDigest: string;
  readonly policy: RolloutPolicy;
  readonly policyDigest: string;
  /** What the run before has recorded; null at the start. */
  readonly carried: Recorded | null;
};

/** Everything a part of the workflow needs; one per run. */
export type Run = {
  readonly input: ReleaseInput;
  readonly recorder: Recorder;
  readonly state: () => ReleaseState;
  /** Grows whenever somebody asks for attention. */
  readonly attention: () => number;
  /** Runs `work` until it ends or until somebody asks for attention (since `seen`, or now); then `work` is cancelled. */
  readonly unlessInterrupted: <T>(
    work: () => Promise<T>,
    seen?: number,
  ) => Promise<{ done: true; value: T } | { done: false }>;
  readonly promotion: () => messages.PersonRequest | null;
  readonly clearPromotion: () => void;
  /** A freeze took effect: whoever asked for it may be told. */
  readonly noteFrozen: (directorVersion: number) => void;
  /** From now on the content becomes the steady one: a stop would come too late to be one, and is refused. */
  readonly close: () => void;
  /** It does not: what was refused may be asked again. */
  readonly reopen: () => void;
};

/** The release ends before anybody was offered it. */
export const fail = (run: Run, reasonCode: string, reason: string): void =>
  run.recorder.emit(byWorkflow, {
    type: 'ReleaseFailed',
    data: { triggeredBy: 'workflow', by: 'release', reasonCode, reason },
  });
