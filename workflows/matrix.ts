/** The matrix of one release: plans the cells, runs each, compares them, and tells the release as it goes. */
import { ActivityFailure, getExternalWorkflowHandle, rootCause } from '@temporalio/workflow';
import type { Divergence } from '../domain/matrix/divergence.ts';
import { type Cell, type CellResult, engineId } from '../domain/release.ts';
import { engines, planning } from './activities.ts';
import { matrixCellFinished, matrixPlanned } from './messages.ts';

export type MatrixInput = {
  readonly releaseId: string;
  readonly family: string;
  readonly sourceDigest: string;
  /** Workflow id of the release: progress is signalled there. */
  readonly reportTo: string;
  /** SHA-256 of the artefact of each engine, by engine id. */
  readonly artefacts: Readonly<Record<string, string>>;
  /** Cells that were tested already: others are, and compared with what these did. */
  readonly known: readonly { readonly cellId: string; readonly observed: string | null }[];
};

export type MatrixOutcome = {
  readonly cells: readonly Cell[];
  readonly fleetDevices: number;
  readonly results: readonly CellResult[];
  readonly divergences: readonly Divergence[];
  readonly firstUse: readonly { readonly engine: string; readonly features: readonly string[] }[];
  readonly wallMs: number;
};

/** Every cell gets a result: one that could not be run is an `error`, never a gap. */
export async function matrixWorkflow(input: MatrixInput): Promise<MatrixOutcome> {
  const { reportTo, artefacts, known, ...release } = input;
  const started = Date.now();
  const report = getExternalWorkflowHandle(reportTo);
  const plan = await planning.planMatrix.executeWithOptions({ summary: 'cells from the fleet' }, [release]);
  const cells = plan.cells.filter(({ cellId }) => !known.some((one) => one.cellId === cellId));
  await report.signal(matrixPlanned, { ...plan, cells });
  const tested = await Promise.all(
    cells.map(async (cell) => {
      const artefact = artefacts[engineId(cell.engine)] ?? null;
      const found = await engines.runMatrixCell
        .executeWithOptions({ summary: `${cell.cellId}, ${cell.devices} devices` }, [{ ...release, cell, artefact }])
        .catch((error: unknown) => ({ result: notRun(cell, error), firstUse: [] }));
      await report.signal(matrixCellFinished, found.result);
      return { ...found, engine: engineId(cell.engine) };
    }),
  );
  const results = tested.map(({ result }) => result);
  const observed = [...known, ...results].flatMap((one) => one.observed ?? []);
  const { divergences } = await planning.compareCells.executeWithOptions({ summary: 'the same on every engine?' }, [
    { ...release, observed },
  ]);
  const features = new Map(tested.map(({ engine, firstUse }) => [engine, firstUse]));
  const firstUse = [...features]
    .filter(([, list]) => list.length > 0)
    .map(([engine, list]) => ({ engine, features: list }));
  return { ...plan, cells, results, divergences, firstUse, wallMs: Date.now() - started };
}

const notRun = (cell: Cell, error: unknown): CellResult => {
  if (!(error instanceof ActivityFailure)) throw error;
  return {
    cellId: cell.cellId,
    verdict: 'error',
    rulesExpected: 0,
    rulesLoaded: null,
    gates: [
      {
        gate: 'result',
        verdict: 'error',
        observed: 'none',
        operator: '==',
        limit: 'a result',
        details: [{ words: rootCause(error) ?? error.message }],
      },
    ],
    wallMs: 0,
  };
};
