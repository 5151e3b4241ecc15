/**
 * What a release is at a moment: the fold of its events. The workflow, the projector, `get`, `replay` and the postmortem
 * all use this one function, so that they cannot disagree.
 */
import type { NumberedEvent } from '../events/catalogue.ts';
import { assertNever } from './errors.ts';
import type { Divergence } from './matrix/divergence.ts';
import type { RolloutPolicy } from './policy.ts';
import type {
  Artefact,
  Cell,
  CellResult,
  Content,
  Counts,
  CoverageGap,
  Finding,
  Stage,
  StageEvidence,
  Verdict,
  Waiver,
} from './release.ts';

/** In the order in which a release that goes well passes them; held, paused and halting leave that way. */
export const phases = [
  ...(['triggered', 'building', 'matrix', 'signing', 'approval', 'rolling', 'held', 'paused', 'halting'] as const),
  ...(['completed', 'blocked', 'halted', 'failed', 'cancelled'] as const),
] as const;

export type Phase = (typeof phases)[number];

export type TerminalPhase = 'completed' | 'blocked' | 'halted' | 'failed' | 'cancelled';

export const terminalPhases: readonly Phase[] = ['completed', 'blocked', 'halted', 'failed', 'cancelled'];

export type ReleaseState = {
  readonly releaseId: string;
  readonly family: string;
  readonly phase: Phase;
  /** Number of the last event folded. */
  readonly seq: number;
  readonly startedAt: string;
  readonly changedAt: string;
  readonly requestedBy: string;
  readonly note: string;
  readonly sourceDigest: string;
  readonly policy: RolloutPolicy;
  readonly policyDigest: string;
  readonly build: {
    readonly bundleDigest: string;
    readonly rules: number;
    readonly vectors: number;
    readonly contentVersion: number;
    readonly artefacts: readonly Artefact[];
  } | null;
  readonly findings: readonly (Finding & { readonly file?: string; readonly line?: number })[];
  readonly matrix: {
    readonly cells: readonly Cell[];
    readonly fleetDevices: number;
    readonly results: readonly CellResult[];
    readonly verdict: 'running' | 'passed' | 'failed' | 'void';
    readonly divergences: readonly Divergence[];
    readonly overridden: readonly Waiver[];
  } | null;
  /** Rules that engines go without. */
  readonly gaps: readonly CoverageGap[];
  /** Engines whose devices two people took out of this release. */
  readonly excluded: readonly { readonly waiver: Waiver; readonly engine: string; readonly devices: number }[];
  /** Features that engines of the field get for the first time; with any of them the stages last longer. */
  readonly firstUse: readonly { readonly engine: string; readonly features: readonly string[] }[];
  readonly manifest: {
    readonly release: Content;
    readonly rollback: Content;
    readonly signatures: number;
    readonly threshold: number;
  } | null;
  readonly approvals: { readonly needed: number; readonly by: readonly string[] } | null;
  readonly rollout: {
    readonly salt: string;
    readonly stages: readonly Stage[];
    readonly previous: Content;
    readonly startedAt: string;
    /** Open stage; -1 before the first one opens. */
    readonly stage: number;
    /** What the open stage grants; none before the first one opens. */
    readonly thresholds: Stage['thresholds'];
    readonly openedAt: string | null;
    readonly passed: number;
    /** Cells whose HOLD a person cleared; other cells and HALT stay armed. */
    readonly clearedCells: readonly string[];
  } | null;
  readonly evidence: StageEvidence | null;
  /** Device counts as last recorded, also after the end. */
  readonly counts: Counts;
  readonly hold: {
    readonly reasonCode: string;
    readonly reason: string;
    readonly verdict: Verdict | null;
    /** Cells of the judge that hold. */
    readonly cells: readonly string[];
  } | null;
  readonly halt: {
    readonly by: string;
    readonly reasonCode: string;
    readonly reason: string;
    readonly verdict: Verdict | null;
    readonly frozenAt: number | null;
    readonly rollbackVersion: number | null;
    readonly recovered: boolean | null;
  } | null;
  readonly end: { readonly reasonCode: string; readonly reason: string; readonly at: string } | null;
};

/** True when nothing more happens in this release. */
export const isTerminal = (state: ReleaseState): boolean => terminalPhases.includes(state.phase);

/** Exposure was granted at least once: such a release can be halted, not cancelled. */
export const isExposed = (state: ReleaseState): boolean => (state.rollout?.stage ?? -1) >= 0;

/** Folds one event. Events come in order of their numbers; the first is always ReleaseTriggered. */
export const evolve = (state: ReleaseState | null, event: NumberedEvent): ReleaseState => {
  if (event.type === 'ReleaseTriggered') return begin(event);
  if (state === null) throw new Error(`the stream ${event.streamId} begins with ${event.type}, not ReleaseTriggered`);
  return { ...state, ...change(state, event), seq: event.seq, changedAt: event.occurredAt };
};

/** The state after these events; null before the first. */
export const foldEvents = (events: Iterable<NumberedEvent>): ReleaseState | null => {
  let state: ReleaseState | null = null;
  for (const event of events) state = evolve(state, event);
  return state;
};

type Triggered = Extract<NumberedEvent, { type: 'ReleaseTriggered' }>;

const begin = (event: Triggered): ReleaseState => ({
  releaseId: event.streamId,
  family: event.data.family,
  phase: 'triggered',
  seq: event.seq,
  startedAt: event.occurredAt,
  changedAt: event.occurredAt,
  requestedBy: event.data.requestedBy,
  note: event.data.note,
  sourceDigest: event.data.sourceDigest,
  policy: event.data.policy,
  policyDigest: event.data.policyDigest,
  build: null,
  findings: [],
  matrix: null,
  gaps: [],
  excluded: [],
  firstUse: [],
  manifest: null,
  approvals: null,
  rollout: null,
  evidence: null,
  counts: {},
  hold: null,
  halt: null,
  end: null,
});

const change = (
  state: ReleaseState,
  event: Exclude<NumberedEvent, { type: 'ReleaseTriggered' }>,
): Partial<ReleaseState> => {
  const ended = (phase: TerminalPhase, decision: { reasonCode: string; reason: string }): Partial<ReleaseState> => ({
    phase,
    end: { reasonCode: decision.reasonCode, reason: decision.reason, at: event.occurredAt },
  });
  switch (event.type) {
    case 'ReleaseQueued':
    case 'StagePassed':
      return event.type === 'StagePassed' && state.rollout
        ? { rollout: { ...state.rollout, passed: event.data.stage + 1 } }
        : {};
    case 'BuildStarted':
      return { phase: 'building' };
    case 'BuildSucceeded':
      return { phase: 'matrix', build: event.data };
    case 'BuildFailed':
      return { findings: event.data.findings };
    case 'MatrixPlanned':
      return {
        phase: 'matrix',
        matrix: { ...event.data, results: [], verdict: 'running', divergences: [], overridden: [] },
      };
    case 'MatrixCellPassed':
    case 'MatrixCellFailed':
    case 'MatrixCellErrored':
      return withResult(state, event.data.result);
    case 'CoverageGapRecorded':
      return { gaps: [...state.gaps, event.data] };
    case 'CellExcluded':
      return { excluded: [...state.excluded, event.data] };
    case 'FirstUseRecorded':
      return { firstUse: event.data.engines };
    case 'EnginesRequalified':
      return {};
    case 'MatrixReopened':
      return state.matrix
        ? { matrix: { ...state.matrix, cells: withCells(state.matrix.cells, event.data.cells) } }
        : {};
    case 'DivergenceFound':
      return state.matrix ? { matrix: { ...state.matrix, divergences: event.data.divergences } } : {};
    case 'CellOverridden':
      return state.matrix
        ? { matrix: { ...state.matrix, overridden: [...state.matrix.overridden, event.data.waiver] } }
        : {};
    case 'MatrixPassed':
      return { phase: 'signing', ...verdict(state, 'passed') };
    case 'MatrixFailed':
      return verdict(state, 'failed');
    case 'MatrixVoided':
      return verdict(state, 'void');
    case 'SignatureAdded':
      return {};
    case 'ManifestSigned': {
      const { release, rollback, signatures, threshold } = event.data;
      return { manifest: { release, rollback, signatures, threshold } };
    }
    case 'ManifestPublished':
      return {};
    case 'ApprovalRequested':
      return { phase: 'approval', approvals: { needed: event.data.needed, by: [] } };
    case 'ApprovalGranted':
      return state.approvals ? { approvals: { ...state.approvals, by: [...state.approvals.by, event.data.by] } } : {};
    case 'RolloutPlanned':
      return {
        phase: 'rolling',
        rollout: {
          ...event.data,
          startedAt: event.occurredAt,
          stage: -1,
          thresholds: {},
          openedAt: null,
          passed: 0,
          clearedCells: [],
        },
      };
    case 'StageOpened':
      return state.rollout
        ? {
            phase: 'rolling',
            rollout: {
              ...state.rollout,
              ...{ stage: event.data.stage, thresholds: event.data.thresholds, openedAt: event.occurredAt },
            },
          }
        : {};
    case 'StageEvidenceRecorded':
      return { evidence: event.data, counts: event.data.counts };
    case 'StageHeld': {
      const { reasonCode, reason, verdict: found } = event.data;
      const cells = event.data.cells ?? (found === null ? [] : [found.cell]);
      // A pause and a halt that came first stand, whatever a watch found at the same moment: the hold waits behind a pause.
      const phase = state.phase === 'paused' || state.phase === 'halting' ? state.phase : 'held';
      return { phase, hold: { reasonCode, reason, verdict: found, cells } };
    }
    case 'RolloutPaused':
      return { phase: 'paused' };
    case 'RolloutResumed':
      // A pause that is lifted lifts nothing that held the stage before.
      if (state.phase === 'paused' && state.hold !== null) return { phase: 'held' };
      return {
        phase: 'rolling',
        hold: null,
        // What the judge itself cleared it knows.
        rollout:
          state.rollout && event.data.triggeredBy === 'person'
            ? { ...state.rollout, clearedCells: [...state.rollout.clearedCells, ...(state.hold?.cells ?? [])] }
            : state.rollout,
      };
    case 'LeaseLapsed':
      return {};
    case 'RolloutCompleted':
      return { counts: event.data.counts };
    case 'RegressionDetected': {
      const { metric, segment } = event.data;
      const reason = `regression of ${metric} in ${segment ?? 'the whole fleet'}`;
      return halting(state, { by: 'judge', reasonCode: `regression-${metric}`, reason, verdict: event.data });
    }
    case 'HaltRequested':
      return halting(state, { ...event.data, verdict: null });
    case 'ExposureFrozen':
      return state.halt ? { halt: { ...state.halt, frozenAt: event.data.frozenAt } } : {};
    case 'RollbackPublished':
      return state.halt ? { halt: { ...state.halt, rollbackVersion: event.data.rollbackVersion } } : {};
    case 'HaltVerified':
      return {
        counts: event.data.counts,
        halt: state.halt && { ...state.halt, recovered: event.data.recovered },
      };
    case 'ReleaseHalted':
      return ended('halted', event.data);
    case 'ReleaseCompleted':
      return ended('completed', { reasonCode: 'completed', reason: `content ${event.data.contentVersion} is steady` });
    case 'ReleaseRefused':
      return ended('blocked', event.data);
    case 'ReleaseFailed':
      return ended(blocking.includes(event.data.reasonCode) ? 'blocked' : 'failed', event.data);
    case 'ReleaseCancelled':
      return ended('cancelled', event.data);
    default:
      return assertNever(event);
  }
};

/** The content was refused by a gate; every other reason is a failure of the pipeline. */
const blocking: readonly string[] = ['build-failed', 'matrix-failed', 'matrix-void'];

const withCells = (cells: readonly Cell[], more: readonly Cell[]): readonly Cell[] => [
  ...cells.filter(({ cellId }) => !more.some((one) => one.cellId === cellId)),
  ...more,
];

/** A cell that is tested again has its last result. */
const withResult = (state: ReleaseState, result: CellResult): Partial<ReleaseState> =>
  state.matrix
    ? {
        matrix: {
          ...state.matrix,
          results: [...state.matrix.results.filter((known) => known.cellId !== result.cellId), result],
        },
      }
    : {};

const verdict = (state: ReleaseState, found: 'passed' | 'failed' | 'void'): Partial<ReleaseState> =>
  state.matrix ? { matrix: { ...state.matrix, verdict: found } } : {};

/** The first cause of a halt stays: what arrives later changes neither who nor why. */
const halting = (
  state: ReleaseState,
  cause: { by: string; reasonCode: string; reason: string; verdict: Verdict | null },
): Partial<ReleaseState> => ({
  phase: 'halting',
  halt: state.halt ?? {
    by: cause.by,
    reasonCode: cause.reasonCode,
    reason: cause.reason,
    verdict: cause.verdict,
    frozenAt: null,
    rollbackVersion: null,
    recovered: null,
  },
});
