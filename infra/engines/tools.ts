/** What the matrix needs to test cells on this machine. */
import { join } from 'node:path';
import type { MatrixTools } from '../../domain/matrix/run-cell.ts';
import { controlsDigest, digestOf, digestOfBytes, runnerDigest, testDigest } from '../content/digests.ts';
import { createCellStore } from '../store/cells.ts';
import type { Engines } from './catalogue.ts';
import { goodwareFor } from './goodware.ts';
import { smokeCaptures } from './smoke.ts';

/** `cellsDir`: where results are kept. */
export const createMatrixTools = (engines: Engines, cellsDir: string): MatrixTools => ({
  engines,
  cells: createCellStore(cellsDir),
  qualified: createCellStore(join(cellsDir, 'qualified')),
  goodware: async (engine) => {
    const dir = await engines.dirOf(engine);
    return dir === null ? null : goodwareFor(dir);
  },
  smoke: smokeCaptures(),
  ...{ digestOf, digestOfBytes, controlsDigest, testDigest, runnerDigest },
  now: Date.now,
});
