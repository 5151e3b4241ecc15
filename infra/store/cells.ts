/** Results of cells as files named by everything that they depend on. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { CellStore } from '../../domain/ports.ts';
import { writeWhole } from './blobs.ts';

/** What is damaged is not there: the cell is tested again. */
export const createCellStore = <Result>(dir: string): CellStore<Result> => {
  const pathOf = (key: string) => join(dir, key.slice(0, 2), `${key}.json`);
  return {
    get: async (key) => {
      try {
        return JSON.parse(await readFile(pathOf(key), 'utf8'));
      } catch {
        return null;
      }
    },
    put: (key, result) => writeWhole(pathOf(key), JSON.stringify(result)),
  };
};
