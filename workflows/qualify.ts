/** Whether the field's engines take a release: its matrix, what the results come to, and whether new engines came since. */
import {
  ActivityFailure,
  ChildWorkflowFailure,
  executeChild,
  isCancellation,
  ParentClosePolicy,
  rootCause,
  workflowInfo,
} from '@temporalio/workflow';
import { type Artefact, type CellResult, type EngineId, engineId } from '../domain/release.ts';
import { isTerminal } from '../domain/release-state.ts';
import { canBeOverridden, covers } from '../domain/waiver.ts';
import type { ReleaseEvent } from '../events/catalogue.ts';
import { planning } from './activities.ts';
import type { MatrixInput, MatrixOutcome } from './matrix.ts';
import { queues } from './queues.ts';
import { byWorkflow, type Recorder } from './recorder.ts';
import { fail, type Run } from './run.ts';

/** The SHA-256 of each engine's artefact, by engine id. */
export type Digests = Readonly<Record<EngineId, string>>;

export const digestsOf = (artefacts: readonly Pick<Artefact, 'engine' | 'sha256'>[] = []): Digests =>
  Object.fromEntries(artefacts.map(({ engine, sha256 }) => [engine, sha256]));

/** Tests every cell that has no result yet. `waysBack`: what each engine goes back to. */
export const runMatrix = async (
  run: Run,
  waysBack: Digests,
  known: readonly CellResult[] = [],
): Promise<MatrixOutcome> => {
  const { releaseId, family, sourceDigest } = run.input;
  const { build: built, matrix } = run.state();
  const artefacts = digestsOf(built?.artefacts);
  // A matrix that was opened again is a workflow of its own, named by how many cells there were before.
  const again = known.length === 0 ? '' : `/${matrix?.results.length ?? 0}-${run.state().seq}`;
  const outcome = await executeChild<(input: MatrixInput) => Promise<MatrixOutcome>>('matrixWorkflow', {
    workflowId: `matrix/${releaseId}${again}`,
    taskQueue: queues.release,
    args: [
      {
        ...{ releaseId, family, sourceDigest, reportTo: workflowInfo().workflowId, artefacts, waysBack },
        known: known.map(({ cellId, observed }) => ({ cellId, observed: observed ?? null })),
      },
    ],
    parentClosePolicy: ParentClosePolicy.TERMINATE,
    staticSummary: `engine matrix of ${releaseId}`,
  });
  // Progress signals are a convenience of the view; the outcome is what counts, and completes what they did not bring.
  notePlan(run.recorder, outcome);
  for (const result of outcome.results) noteCell(run.recorder, result);
  const { requalified } = outcome;
  if (requalified.length > 0 && !isTerminal(run.state()))
    run.recorder.emit(byWorkflow, { type: 'EnginesRequalified', data: { engines: requalified } });
  return outcome;
};

/** What the results come to; false when the release ended by it. */
export const judgeMatrix = async (run: Run, matrix: MatrixOutcome): Promise<boolean> => {
  const emit = (...events: ReleaseEvent[]) => run.recorder.emit(byWorkflow, ...events);
  const voided = matrix.results.filter((result) => result.verdict === 'void').map((result) => result.cellId);
  if (matrix.cells.length === 0 || voided.length > 0) {
    const reason =
      matrix.cells.length === 0 ? 'no device is enrolled: there is no cell to test' : 'a control came out wrong';
    emit({ type: 'MatrixVoided', data: { cells: voided, reason } });
    fail(run, 'matrix-void', reason);
    return false;
  }
  const { divergences, different } = matrix;
  if (divergences.length > 0) emit({ type: 'DivergenceFound', data: { divergences } });
  const failed = await redCells(run, matrix.results, different);
  if (failed.length > 0) {
    emit({ type: 'MatrixFailed', data: { failed, wallMs: matrix.wallMs } });
    fail(run, 'matrix-failed', `${failed.length} of ${matrix.cells.length} cells did not pass`);
    return false;
  }
  if (matrix.firstUse.length > 0) emit({ type: 'FirstUseRecorded', data: { engines: matrix.firstUse } });
  emit({ type: 'MatrixPassed', data: { cells: matrix.cells.length, wallMs: matrix.wallMs } });
  return true;
};

/**
 * Cells that did not pass, less what two people let pass, and cells that differ from the others without anybody having
 * declared it: such a difference is declared in the content, and nobody lets it pass from outside. An override is for
 * what was wrong when it was asked for: what goes wrong later is another failure.
 */
const redCells = async (
  run: Run,
  results: readonly CellResult[],
  different: readonly string[],
): Promise<readonly string[]> => {
  const { releaseId, family, sourceDigest } = run.input;
  const red = results.filter((result) => result.verdict !== 'pass');
  if (red.length === 0) return [...new Set(different)];
  const { overrides } = await planning.readOverrides({ releaseId, family, sourceDigest });
  const known = run.state().matrix?.overridden ?? [];
  const open = red.filter((result) => {
    const waiver = canBeOverridden(result) ? overrides.find((one) => covers(one, result)) : undefined;
    if (!waiver) return true;
    const { cellId } = result;
    const gates = result.gates.filter((one) => one.verdict !== 'pass').map(({ gate }) => gate);
    if (!known.some(({ waiverId }) => waiverId === waiver.waiverId))
      run.recorder.emit(byWorkflow, { type: 'CellOverridden', data: { waiver, cellId, gates } });
    return false;
  });
  return [...new Set([...open.map(({ cellId }) => cellId), ...different])];
};

export type Fielded = {
  /** Engines that devices and the support contract have now, less excluded ones. */
  readonly engines: readonly EngineId[];
  /** What is wrong, for people; null: all of them were tested with this content and passed. */
  readonly problem: string | null;
};

/**
 * Whether every engine that the field has now was tested: a device that enrolled meanwhile with another one opens the
 * matrix again. That the field cannot be looked at is a problem too, and no reason to roll back what runs well.
 */
export const checkFleet = async (run: Run): Promise<Fielded> => {
  try {
    return await compareFleet(run);
  } catch (error) {
    if (!(error instanceof ActivityFailure || error instanceof ChildWorkflowFailure) || isCancellation(error))
      throw error;
    return { engines: [], problem: `whether new engines came cannot be told: ${rootCause(error) ?? error.message}` };
  }
};

const compareFleet = async (run: Run): Promise<Fielded> => {
  const { releaseId, family, sourceDigest } = run.input;
  const { cells } = await planning.planMatrix({ releaseId, family, sourceDigest });
  if (cells.length === 0) return { engines: [], problem: 'no engine is left: nothing was tested that anybody runs' };
  const engines = [...new Set(cells.map(({ engine }) => engineId(engine)))];
  const results = () => run.state().matrix?.results ?? [];
  // A cell without a result is tried again: its engine may be here by now.
  const known = results().filter((result) => result.verdict === 'pass' || result.verdict === 'fail');
  const fresh = cells.filter(({ cellId }) => !known.some((result) => result.cellId === cellId));
  if (fresh.length > 0) {
    run.recorder.emit(byWorkflow, { type: 'MatrixReopened', data: { cells: fresh } });
    await runMatrix(run, digestsOf(run.state().manifest?.rollback.artefacts), known);
  }
  const current = results().filter(({ cellId }) => cells.some((cell) => cell.cellId === cellId));
  // Compared as the field is now: an engine that left it, or was excluded, differs from nobody any more.
  const observed = current.flatMap((one) => one.observed ?? []);
  const { divergences, different } = await planning.compareCells({ releaseId, family, sourceDigest, observed });
  const before = run.state().matrix?.divergences ?? [];
  if (JSON.stringify(before) !== JSON.stringify(divergences))
    run.recorder.emit(byWorkflow, { type: 'DivergenceFound', data: { divergences } });
  const untried = cells.filter(({ cellId }) => !current.some((result) => result.cellId === cellId));
  const bad = [...(await redCells(run, current, different)), ...untried.map(({ cellId }) => cellId)];
  return { engines, problem: bad.length === 0 ? null : `devices run ${bad.join(', ')}, which did not pass the matrix` };
};

export const notePlan = (recorder: Recorder, plan: Pick<MatrixOutcome, 'cells' | 'fleetDevices'>): void => {
  const state = recorder.state();
  if (state === null || state.matrix !== null || isTerminal(state)) return;
  recorder.emit(byWorkflow, {
    type: 'MatrixPlanned',
    data: { cells: plan.cells, fleetDevices: plan.fleetDevices },
  });
};

export const noteCell = (recorder: Recorder, result: CellResult): void => {
  const state = recorder.state();
  if (!state?.matrix || isTerminal(state)) return;
  const before = state.matrix.results.find((known) => known.cellId === result.cellId);
  if (before && before.verdict === result.verdict) return;
  const types = {
    pass: 'MatrixCellPassed',
    fail: 'MatrixCellFailed',
    void: 'MatrixCellFailed',
    error: 'MatrixCellErrored',
  } as const;
  recorder.emit(byWorkflow, { type: types[result.verdict], data: { result } });
};
