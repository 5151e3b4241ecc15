/** The matrix of one release: plans the cells, runs each, and tells the release as it goes. */
import { ActivityFailure, getExternalWorkflowHandle, rootCause } from '@temporalio/workflow';
import type { Cell, CellResult } from '../domain/release.ts';
import { engines, planning } from './activities.ts';
import { matrixCellFinished, matrixPlanned } from './messages.ts';

export type MatrixInput = {
  readonly releaseId: string;
  readonly family: string;
  readonly sourceDigest: string;
  /** Workflow id of the release: progress is signalled there. */
  readonly reportTo: string;
};

export type MatrixOutcome = {
  readonly cells: readonly Cell[];
  readonly fleetDevices: number;
  readonly results: readonly CellResult[];
  readonly wallMs: number;
};

/** Every cell gets a result: one that could not be run is an `error`, never a gap. */
export async function matrixWorkflow(input: MatrixInput): Promise<MatrixOutcome> {
  const { reportTo, ...release } = input;
  const started = Date.now();
  const report = getExternalWorkflowHandle(reportTo);
  const plan = await planning.planMatrix.executeWithOptions({ summary: 'cells from the fleet' }, [release]);
  await report.signal(matrixPlanned, plan);
  const results = await Promise.all(
    plan.cells.map(async (cell) => {
      const result = await engines.runMatrixCell
        .executeWithOptions({ summary: `${cell.cellId}, ${cell.devices} devices` }, [{ ...release, cell }])
        .catch((error: unknown) => notRun(cell, error));
      await report.signal(matrixCellFinished, result);
      return result;
    }),
  );
  return { ...plan, results, wallMs: Date.now() - started };
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
