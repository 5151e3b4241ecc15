/**
 * Every event of a release stream, and those of a family beside them: types only, so that workflows can use them without zod.
 * Names are past tense in the words of the trade; numbers are fields, not sentences.
 */
import type { Alarm } from '../domain/alarm.ts';
import type { Divergence } from '../domain/matrix/divergence.ts';
import type { RolloutPolicy } from '../domain/policy.ts';
import type {
  Artefact,
  Cell,
  CellResult,
  Content,
  Counts,
  CoverageGap,
  Finding,
  Requalified,
  Stage,
  StageEvidence,
  TriggeredBy,
  Verdict,
  Waiver,
} from '../domain/release.ts';

export type Decision = {
  readonly triggeredBy: TriggeredBy;
  /** Person, service or workflow that asked. */
  readonly by: string;
  readonly reasonCode: string;
  readonly reason: string;
};

export type ReleaseEvents = {
  ReleaseTriggered: {
    readonly family: string;
    readonly requestedBy: string;
    readonly note: string;
    /** SHA-256 of the source bundle in the store. */
    readonly sourceDigest: string;
    readonly policy: RolloutPolicy;
    readonly policyDigest: string;
  };
  ReleaseRefused: Decision;
  ReleaseQueued: { readonly behind: string };
  BuildStarted: { readonly sourceDigest: string };
  BuildSucceeded: {
    readonly bundleDigest: string;
    readonly rules: number;
    readonly vectors: number;
    readonly contentVersion: number;
    readonly artefacts: readonly Artefact[];
  };
  BuildFailed: { readonly findings: readonly (Finding & { readonly file?: string; readonly line?: number })[] };
  /** An engine's artefact goes without these rules, which do not load there. */
  CoverageGapRecorded: CoverageGap;
  /** Devices of an engine that two people excluded get nothing of this release. */
  CellExcluded: { readonly waiver: Waiver; readonly engine: string; readonly devices: number };
  MatrixPlanned: { readonly cells: readonly Cell[]; readonly fleetDevices: number };
  MatrixCellPassed: { readonly result: CellResult };
  MatrixCellFailed: { readonly result: CellResult };
  MatrixCellErrored: { readonly result: CellResult };
  /** A device enrolled with an engine that was not tested: exposure does not grow until it is. */
  MatrixReopened: { readonly cells: readonly Cell[] };
  /** Rules that alert on one engine and stay silent on another, without anybody having declared it. */
  DivergenceFound: { readonly divergences: readonly Divergence[] };
  /** A red cell that two people let pass. */
  CellOverridden: { readonly waiver: Waiver; readonly cellId: string; readonly gates: readonly string[] };
  /** Features that some engine of the field never got before: the stages of this release last longer. */
  FirstUseRecorded: { readonly engines: readonly { readonly engine: string; readonly features: readonly string[] }[] };
  /** The first controls that an engine build passed with this code that runs and grades engines (requirement R10). */
  EnginesRequalified: { readonly engines: readonly Requalified[] };
  MatrixVoided: { readonly cells: readonly string[]; readonly reason: string };
  MatrixPassed: { readonly cells: number; readonly wallMs: number };
  MatrixFailed: { readonly failed: readonly string[]; readonly wallMs: number };
  SignatureAdded: { readonly keyId: string; readonly signer: string; readonly covers: readonly number[] };
  ManifestSigned: {
    readonly threshold: number;
    readonly signatures: number;
    readonly release: Content;
    readonly rollback: Content;
  };
  ManifestPublished: {
    readonly contentVersion: number;
    readonly rollbackVersion: number;
    readonly targetsVersion: number;
  };
  ApprovalRequested: { readonly needed: number };
  ApprovalGranted: { readonly by: string; readonly note: string; readonly granted: number; readonly needed: number };
  RolloutPlanned: { readonly salt: string; readonly stages: readonly Stage[]; readonly previous: Content };
  StageOpened: { readonly stage: number; readonly name: string; readonly thresholds: Readonly<Record<string, number>> };
  StageEvidenceRecorded: StageEvidence;
  StagePassed: Decision & { readonly stage: number; readonly name: string };
  StageHeld: Decision & {
    readonly stage: number;
    readonly name: string;
    readonly verdict: Verdict | null;
    /** All cells of the judge that hold. */
    readonly cells?: readonly string[];
  };
  RolloutPaused: Decision & { readonly stage: number };
  RolloutResumed: Decision & { readonly stage: number };
  LeaseLapsed: { readonly stage: number; readonly lastTick: number; readonly reason: string };
  RolloutCompleted: { readonly counts: Counts };
  RegressionDetected: Verdict & { readonly stage: number };
  HaltRequested: Decision & { readonly stage: number | null };
  ExposureFrozen: { readonly directorVersion: number; readonly frozenAt: number; readonly triggeredBy: TriggeredBy };
  RollbackPublished: { readonly rollbackVersion: number; readonly directorVersion: number };
  HaltVerified: { readonly counts: Counts; readonly recovered: boolean; readonly waitedMs: number };
  ReleaseHalted: Decision;
  ReleaseCompleted: { readonly contentVersion: number };
  ReleaseFailed: Decision;
  ReleaseCancelled: Decision;
};

export type ReleaseEventType = keyof ReleaseEvents;

/** An event before it gets its place in the stream. */
export type ReleaseEvent = {
  [T in ReleaseEventType]: { readonly type: T; readonly data: ReleaseEvents[T] };
}[ReleaseEventType];

export type Actor = { readonly kind: 'person' | 'workflow' | 'judge' | 'service'; readonly id: string };

/** An event with its place: everything here is hashed (with `prevHash` and `hash` added by events/chain). */
export type NumberedEvent = ReleaseEvent & {
  readonly eventId: string;
  readonly streamId: string;
  readonly seq: number;
  readonly schemaVersion: number;
  /** Workflow time, ISO 8601 in UTC: the same on every attempt. */
  readonly occurredAt: string;
  readonly actor: Actor;
  readonly causationId: string | null;
  readonly correlationId: string;
  readonly workflow: { readonly workflowId: string; readonly runId: string };
};

/** As it stands in the log. */
export type StoredEvent = NumberedEvent & { readonly prevHash: string; readonly hash: string };

/**
 * What happens to a family beside the streams of its releases: `distribution.events.v1`, alarms in `ops.events.v1`; key:
 * family. Several processes write them, so that they have no numbers and no chain: identity is the event's id.
 */
export type FamilyEvents = {
  FamilyFrozen: {
    readonly freezeId: string;
    readonly by: string;
    readonly reason: string;
    readonly until: string | null;
    readonly directorVersion: number;
    readonly frozenAt: number;
  };
  /** Written before the freeze is lifted: exposure waits for the log. */
  FamilyThawed: { readonly freezeId: string; readonly by: string; readonly reason: string };
  /** Written before the document is signed again: this lease ends at `until` at the latest. */
  LeaseRenewed: {
    readonly releaseId: string;
    readonly stage: number;
    readonly directorVersion: number;
    readonly until: string;
  };
  AlarmRaised: Alarm;
  AlarmCleared: Pick<Alarm, 'alarmId' | 'kind' | 'releaseId' | 'since'>;
};

export type FamilyEventType = keyof FamilyEvents;

export type FamilyEvent = {
  [T in FamilyEventType]: { readonly type: T; readonly data: FamilyEvents[T] };
}[FamilyEventType] & {
  readonly eventId: string;
  readonly family: string;
  readonly schemaVersion: number;
  readonly occurredAt: string;
  readonly actor: Actor;
};
