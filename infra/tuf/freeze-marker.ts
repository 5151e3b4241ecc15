/** The freeze of a family: a file of its own in the store. Whoever can write a file there can stop a family. */
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { FamilyFreeze } from '../../domain/director.ts';
import { writeWhole } from '../store/blobs.ts';

const fileOf = (dir: string, family: string): string => join(dir, `frozen-${family}.json`);

/** null: the family is not frozen. A file that cannot be read as a freeze is one: who put it there meant to stop. */
export const readFreeze = async (dir: string, family: string): Promise<FamilyFreeze | null> => {
  const text = await readFile(fileOf(dir, family), 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null;
    throw error;
  });
  if (text === null) return null;
  const unreadable = { freezeId: 'unreadable', by: 'unknown', at: new Date(0).toISOString(), until: null };
  try {
    const found: Partial<FamilyFreeze> | null = JSON.parse(text);
    return { ...unreadable, reason: 'its file says no reason', ...found };
  } catch {
    return { ...unreadable, reason: `its file in ${dir} cannot be read` };
  }
};

export const writeFreeze = (dir: string, family: string, freeze: FamilyFreeze): Promise<void> =>
  writeWhole(fileOf(dir, family), JSON.stringify(freeze));

export const removeFreeze = (dir: string, family: string): Promise<void> => rm(fileOf(dir, family), { force: true });
