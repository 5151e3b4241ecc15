/**
 * What workflows ask of the world: types only. Each interface is implemented by a factory in this room and registered
 * on the task queue named beside it. Inputs and results are plain data below 32 KB.
 */

import type { RolloutPolicy } from '../domain/policy.ts';
import type {
  Artefact,
  Cell,
  CellResult,
  Content,
  Counts,
  Finding,
  Stage,
  StageOutcome,
  TriggeredBy,
} from '../domain/release.ts';
import type { NumberedEvent } from '../events/catalogue.ts';

/** Queue `release`. */
export type RecordActivities = {
  /**
   * Appends to the release's stream with acks=all, retried until it succeeded; idempotent by (streamId, seq).
   * Takes the hash of the event before the first and returns the hash of the last.
   */
  recordEvents(input: { prevHash: string | null; events: readonly NumberedEvent[] }): Promise<{ headHash: string }>;
};

/** Queue `build`. */
export type BuildActivities = {
  /** Makes the bundle from the stored source; the same bytes for the same input. Findings are an outcome, not an error. */
  buildRelease(input: { releaseId: string; family: string; sourceDigest: string }): Promise<
    | {
        ok: true;
        bundleDigest: string;
        rules: number;
        vectors: number;
        contentVersion: number;
        artefacts: readonly Artefact[];
      }
    | { ok: false; findings: readonly (Finding & { file?: string; line?: number })[] }
  >;
};

/** Queue `engines`: as many at once as there are cores. */
export type MatrixActivities = {
  /** Cells from the enrolled fleet (inventory) and the family's modes. An engine without a pack becomes a cell that errors. */
  planMatrix(input: {
    releaseId: string;
    family: string;
    sourceDigest: string;
  }): Promise<{ cells: readonly Cell[]; fleetDevices: number }>;
  /** Runs all gates of one cell in killable child processes; heartbeats; a cell that did not run is an `error` result. */
  runMatrixCell(input: { releaseId: string; family: string; sourceDigest: string; cell: Cell }): Promise<CellResult>;
};

/** Queue `publish`: the only one with keys. */
export type PublishActivities = {
  /** Signs the release and its rollback k of n with the content keys. Idempotent. */
  signRelease(input: {
    releaseId: string;
    family: string;
    bundleDigest: string;
    contentVersion: number;
    artefacts: readonly Artefact[];
  }): Promise<{
    threshold: number;
    signatures: readonly { keyId: string; signer: string }[];
    release: Content;
    rollback: Content;
    previous: Content;
  }>;
  /** Publishes the signed content metadata and artefacts; nobody is offered anything by it. */
  publishContent(input: {
    releaseId: string;
    family: string;
    release: Content;
    rollback: Content;
  }): Promise<{ targetsVersion: number }>;
};

/** Queue `release`. Exposure up: after the log. */
export type RolloutActivities = {
  planRollout(input: {
    releaseId: string;
    family: string;
    policy: RolloutPolicy;
  }): Promise<{ salt: string; stages: readonly Stage[] }>;
  /** Telemetry stage markers first (durable in Kafka), then the director document with these thresholds under the lease. */
  openStage(
    input: StageRef & {
      salt: string;
      thresholds: Readonly<Record<string, number>>;
      release: Content;
      rollbackVersion: number;
      policy: RolloutPolicy;
      /** Start of tick 0 (ms): the same for every stage of a release. */
      startedAt: number;
      holdCleared: boolean;
    },
  ): Promise<{ directorVersion: number }>;
  /**
   * Watches until the stage passes, is held or regresses; heartbeats. `awaitFresh`: the stage is held for want of data;
   * resolves with `fresh` when there is evidence again.
   */
  watchStage(
    input: StageRef & {
      policy: RolloutPolicy;
      openedAt: number;
      promote: boolean;
      holdCleared: boolean;
      awaitFresh: boolean;
    },
  ): Promise<StageOutcome>;
  /** The completed release becomes the steady content under the long expiry. */
  completeRollout(input: {
    releaseId: string;
    family: string;
    release: Content;
  }): Promise<{ directorVersion: number; counts: Counts }>;
  /** Ends the telemetry of a release (end marker), whatever its outcome. Idempotent. */
  closeTelemetry(input: { releaseId: string; family: string }): Promise<void>;
  /** Waits until every harmed device reports healthy on the rollback content, at least `settleMs`, at most `waitMs`. */
  verifyHalt(input: {
    releaseId: string;
    family: string;
    rollbackVersion: number;
    settleMs: number;
    waitMs: number;
  }): Promise<{ counts: Counts; recovered: boolean; waitedMs: number }>;
};

export type StageRef = { readonly releaseId: string; readonly family: string; readonly stage: number };

/** Queue `halt`: reserved slots, needs only the online keys and the file store. */
export type HaltActivities = {
  /** Writes the stop marker and the frozen director document: from now on no device newly takes the release. Idempotent. */
  freezeExposure(input: {
    releaseId: string;
    family: string;
    triggeredBy: TriggeredBy;
    reason: string;
  }): Promise<{ directorVersion: number; frozenAt: number }>;
  /**
   * Lifts the stop marker of a pause and grants the same thresholds again under the lease. `thawed` false: the judge is
   * against it, and everything stays frozen. Tried again while there is no fresh evidence.
   */
  thawExposure(input: {
    releaseId: string;
    family: string;
    holdCleared: boolean;
  }): Promise<{ directorVersion: number; thawed: boolean }>;
  /** Switches the director to the signed rollback for exactly the halted cohort, under the long expiry. */
  publishRollback(input: {
    releaseId: string;
    family: string;
    rollback: Content;
  }): Promise<{ directorVersion: number }>;
};
