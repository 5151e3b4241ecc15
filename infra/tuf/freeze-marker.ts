/** The freeze of a family: a file of its own in the store. Whoever can write a file there can stop a family. */
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { FamilyFreeze } from '../../domain/director.ts';
import { writeWhole } from '../store/blobs.ts';

const fileOf = (dir: string, family: string): string => join(dir, `frozen-${family}.json`);

/** Whoever put something there that nobody can read has put it there for good: it is not a moment's trouble of the disk. */
const unreadableCodes: readonly unknown[] = ['EISDIR', 'EACCES', 'EPERM'];

/**
 * null: the family is not frozen. A file that cannot be read as a freeze is one: who put it there meant to stop. What it says
 * is taken as far as it can be written down again, whoever wrote it: a stop by hand must not be in the way of another one.
 */
export const readFreeze = async (dir: string, family: string): Promise<FamilyFreeze | null> => {
  const text = await readFile(fileOf(dir, family), 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null;
    if (unreadableCodes.includes(error.code)) return '';
    throw error;
  });
  if (text === null) return null;
  const found = parsed(text);
  const reason = found === null ? `its file in ${dir} cannot be read` : 'its file says no reason';
  return {
    freezeId: wordsOf(found?.freezeId) ?? 'unreadable',
    reason: wordsOf(found?.reason) ?? reason,
    by: wordsOf(found?.by) ?? 'unknown',
    at: timeOf(found?.at) ?? new Date(0).toISOString(),
    until: timeOf(found?.until),
  };
};

const parsed = (text: string): { readonly [K in keyof FamilyFreeze]?: unknown } | null => {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
};
const wordsOf = (value: unknown): string | null => (typeof value === 'string' ? value.toWellFormed() : null);
const timeOf = (value: unknown): string | null => {
  const at = typeof value === 'string' ? Date.parse(value) : Number.NaN;
  return Number.isNaN(at) ? null : new Date(at).toISOString();
};

export const writeFreeze = (dir: string, family: string, freeze: FamilyFreeze): Promise<void> =>
  writeWhole(fileOf(dir, family), JSON.stringify(freeze));

export const removeFreeze = (dir: string, family: string): Promise<void> =>
  rm(fileOf(dir, family), { force: true, recursive: true });
