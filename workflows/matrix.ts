/** The matrix of one release: plans the cells, runs each, compares them, and tells the release as it goes. */
import { ActivityFailure, getExternalWorkflowHandle, rootCause } from '@temporalio/workflow';
import type { Divergence } from '../domain/matrix/divergence.ts';
import { type Cell, type CellResult, engineId, type Requalified } from '../domain/release.ts';
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
  /** SHA-256 of what each engine goes back to. */
  readonly waysBack: Readonly<Record<string, string>>;
  /** Cells that were tested already: others are, and compared with what these did. */
  readonly known: readonly { readonly cellId: string; readonly observed: string | null }[];
};

export type MatrixOutcome = {
  readonly cells: readonly Cell[];
  readonly fleetDevices: number;
  readonly results: readonly CellResult[];
  readonly divergences: readonly Divergence[];
  /** Cells that differ from the others without a declaration. */
  readonly different: readonly string[];
  readonly firstUse: readonly { readonly engine: string; readonly features: readonly string[] }[];
  readonly requalified: readonly Requalified[];
  readonly wallMs: number;
};

/** Every cell gets a result: one that could not be run is an `error`, never a gap. */
export async function matrixWorkflow(input: MatrixInput): Promise<MatrixOutcome> {
  const { reportTo, artefacts, waysBack, known, ...release } = input;
  const started = Date.now();
  const report = getExternalWorkflowHandle(reportTo);
  const plan = await planning.planMatrix.executeWithOptions({ summary: 'cells from the fleet' }, [release]);
  const cells = plan.cells.filter(({ cellId }) => !known.some((one) => one.cellId === cellId));
  await report.signal(matrixPlanned, { ...plan, cells });
  const tested = await Promise.all(
    cells.map(async (cell) => {
      const engine = engineId(cell.engine);
      const content = { artefact: artefacts[engine] ?? null, wayBack: waysBack[engine] ?? null };
      const found = await engines.runMatrixCell
        .executeWithOptions({ summary: `${cell.cellId}, ${cell.devices} devices` }, [{ ...release, cell, ...content }])
        .catch((error: unknown) => ({ result: notRun(cell, error), firstUse: [], requalified: null }));
      await report.signal(matrixCellFinished, found.result);
      return { ...found, engine };
    }),
  );
  const results = tested.map(({ result }) => brief(result));
  const observed = [...known, ...results].flatMap((one) => one.observed ?? []);
  const { divergences, different } = await planning.compareCells.executeWithOptions(
    { summary: 'the same on every engine?' },
    [{ ...release, observed }],
  );
  const features = new Map(tested.map(({ engine, firstUse }) => [engine, firstUse]));
  const firstUse = [...features]
    .filter(([, list]) => list.length > 0)
    .map(([engine, list]) => ({ engine, features: list }));
  // Two cells of one engine may have been the first at once.
  const news = new Map(tested.flatMap(({ requalified: one }) => (one ? [[one.engine, one] as const] : [])));
  const requalified = [...news.values()];
  return { ...plan, cells, results, divergences, different, firstUse, requalified, wallMs: Date.now() - started };
}

/** The outcome carries all cells at once, and each was told whole by its signal: here a few words do. */
const brief = (result: CellResult): CellResult => ({
  ...result,
  gates: result.gates.map((gate) => ({ ...gate, details: gate.details.slice(0, 3) })),
});

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
