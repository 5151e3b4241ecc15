/**
 * What workflows ask of the world: types only. Each interface is implemented by a factory in this room and registered
 * on the task queue named beside it. Inputs and results are plain data below 32 KB.
 */
import type { FamilyFreeze } from '../domain/director.ts';
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
  HeldFor,
  Requalified,
  Stage,
  StageOutcome,
  TriggeredBy,
  Waiver,
} from '../domain/release.ts';
import type { FamilyEvent, NumberedEvent } from '../events/catalogue.ts';

/** Queue `release`. */
export type RecordActivities = {
  /**
   * Appends to the release's stream with acks=all, retried until it succeeded; idempotent by (streamId, seq).
   * Takes the hash of the event before the first and returns the hash of the last.
   */
  recordEvents(input: { prevHash: string | null; events: readonly NumberedEvent[] }): Promise<{ headHash: string }>;
};

/** An artefact before it has a place. */
export type WayBack = Omit<Artefact, 'path'>;

/** Queue `build`. */
export type BuildActivities = {
  /**
   * Makes the bundle from the stored source; the same bytes for the same input. With `misfit: cut` each engine is asked what
   * it loads, and its artefact goes without the rest (gaps). Findings are an outcome, not an error.
   */
  buildRelease(input: { releaseId: string; family: string; sourceDigest: string }): Promise<
    | {
        ok: true;
        bundle: {
          bundleDigest: string;
          rules: number;
          vectors: number;
          contentVersion: number;
          artefacts: readonly Artefact[];
        };
        gaps: readonly CoverageGap[];
        excluded: readonly { waiver: Waiver; engine: string; devices: number }[];
        /** What each engine goes back to: what the fleet runs on it, or for one that is new to the fleet what of that fits it. */
        waysBack: readonly WayBack[];
      }
    | { ok: false; findings: readonly (Finding & { file?: string; line?: number })[] }
  >;
};

/** Queue `engines`: as many at once as there are cores. */
export type MatrixActivities = {
  /**
   * Cells from the enrolled fleet and the support contract, in every configuration of the family, less excluded engines. An
   * engine without a pack becomes a cell that errors.
   */
  planMatrix(input: {
    releaseId: string;
    family: string;
    sourceDigest: string;
  }): Promise<{ cells: readonly Cell[]; fleetDevices: number }>;
  /** Runs all gates of one cell in killable child processes; heartbeats; a cell that did not run is an `error` result. */
  runMatrixCell(input: {
    releaseId: string;
    family: string;
    sourceDigest: string;
    cell: Cell;
    /** SHA-256 of the engine's artefact; null: none was built, it is made from the source. */
    artefact: string | null;
    /** SHA-256 of what the engine goes back to; null: nothing was ever made for it. */
    wayBack: string | null;
  }): Promise<{ result: CellResult; firstUse: readonly string[]; requalified: Requalified | null }>;
  /**
   * Rules that do different things on different engines, undeclared: the first of them, and all cells that are the fewer.
   * `observed`: of each cell that has a result.
   */
  compareCells(input: {
    releaseId: string;
    family: string;
    sourceDigest: string;
    observed: readonly string[];
  }): Promise<{ divergences: readonly Divergence[]; different: readonly string[] }>;
  /** What two people let pass for exactly this content, and is in force. */
  readOverrides(input: {
    releaseId: string;
    family: string;
    sourceDigest: string;
  }): Promise<{ overrides: readonly Waiver[] }>;
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
    waysBack: readonly WayBack[];
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
    /** Engines that the release has an artefact for: devices of others are out of it. */
    engines: readonly string[];
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
      clearedCells: readonly string[];
    },
  ): Promise<{
    directorVersion: number;
    refused?: Refusal;
  }>;
  /**
   * Watches until the stage passes, is held or regresses; heartbeats. `heldFor`: what holds the stage already; resolves with
   * `released` when that is over. While the family is frozen a stage is held for that and passes nothing.
   */
  watchStage(
    input: StageRef & {
      policy: RolloutPolicy;
      openedAt: number;
      promote: boolean;
      clearedCells: readonly string[];
      heldFor: HeldFor | null;
    },
  ): Promise<StageOutcome>;
  /** The completed release becomes the steady content under the long expiry, on fresh evidence with nothing against it. */
  completeRollout(input: {
    releaseId: string;
    family: string;
    release: Content;
  }): Promise<{ directorVersion: number; counts: Counts; refused?: Refusal }>;
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

/**
 * Why nothing was granted, or no more. `verdict`: the judge is against it; `stale`: there is no fresh evidence; `frozen`: a
 * person froze the family; `stopped`: the release was stopped anew.
 */
export type Refusal = { readonly kind: 'verdict' | 'stale' | 'frozen' | 'stopped'; readonly why: string };

export type StageRef = { readonly releaseId: string; readonly family: string; readonly stage: number };

/** Queue `halt`: reserved slots, needs only the online keys and the file store. */
export type HaltActivities = {
  /** Writes the stop marker and the frozen director document: from now on no device newly takes the release. Idempotent. */
  freezeExposure(input: {
    releaseId: string;
    family: string;
    triggeredBy: TriggeredBy;
    reason: string;
    /** Of this stop and of no other of the release. */
    stopId: string;
  }): Promise<{ directorVersion: number; frozenAt: number }>;
  /**
   * Lifts this stop and no other, and grants the same thresholds again under the lease. `refused`: everything stays frozen.
   */
  thawExposure(input: {
    releaseId: string;
    family: string;
    stopId: string;
    clearedCells: readonly string[];
  }): Promise<{ directorVersion: number; refused?: Refusal }>;
  /** Switches the director to the signed rollback for exactly the halted cohort, under the long expiry. */
  publishRollback(input: {
    releaseId: string;
    family: string;
    rollback: Content;
  }): Promise<{ directorVersion: number }>;
};

/** Another freeze than the one that was to be lifted. */
export type StandingFreeze = FamilyFreeze & { readonly directorVersion: number };

/** Queue of its own (`freezeQueue`): the freeze of a family shares nothing with the releases that it stops. */
export type FreezeActivities = {
  /** Marker and document: from now on no device of the family newly takes anything. Idempotent. */
  freezeFamily(input: { family: string; freeze: FamilyFreeze }): Promise<{ directorVersion: number; frozenAt: number }>;
  /** Lifts this freeze and no other. It grants nothing: the lease is renewed on evidence, by whoever renews it. */
  thawFamily(input: { family: string; freezeId: string }): Promise<{ thawed: boolean; stands: StandingFreeze | null }>;
  recordFamilyEvent(event: FamilyEvent): Promise<void>;
};
