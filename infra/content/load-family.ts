/** Reads a family's folder. `base:` in family.yaml names another folder whose files are there unless this one has its own. */
import { lstat, readdir, readFile } from 'node:fs/promises';
import { join, relative, resolve } from 'node:path';
import { parse } from 'yaml';
import { type Family, limits, readFamily, type SourceFile } from '../../domain/content/family.ts';
import type { ContentFinding } from '../../domain/content/rules.ts';

export type LoadedFamily =
  | { readonly ok: true; readonly family: Family; readonly files: readonly SourceFile[] }
  | { readonly ok: false; readonly findings: readonly ContentFinding[] };

/** What the pipeline makes of files that it has already, e.g. out of a bundle. */
export const parseFamily = (files: readonly SourceFile[]) => readFamily(files, (text) => parse(text));

/** Never throws for what is in the folder: everything wrong is a finding with its place. */
export const loadFamily = async (dir: string): Promise<LoadedFamily> => {
  const collected = await collect(resolve(dir), 0);
  if (!Array.isArray(collected)) return { ok: false, findings: [collected] };
  const files = collected.toSorted((a, b) => (a.path < b.path ? -1 : 1));
  const read = parseFamily(files);
  return read.ok ? { ...read, files } : read;
};

const maximumBases = 4;

const collect = async (dir: string, depth: number): Promise<SourceFile[] | ContentFinding> => {
  const shown = relative(process.cwd(), dir) || '.';
  const stat = await lstat(dir).catch(() => null);
  if (!stat?.isDirectory()) {
    return {
      code: 'missing-folder',
      file: shown,
      message: `there is no folder ${shown}; expected a family with family.yaml, rules/ and vectors/`,
    };
  }
  const own: SourceFile[] = [];
  for (const entry of await readdir(dir, { recursive: true, withFileTypes: true })) {
    if (entry.isDirectory()) continue;
    const path = join(entry.parentPath, entry.name);
    const name = relative(dir, path);
    if (!entry.isFile())
      return { code: 'no-file', file: name, message: `${name} is a link or no regular file; expected files only` };
    const { size } = await lstat(path);
    if (size > limits.fileBytes) {
      return {
        code: 'too-large',
        file: name,
        message: `${name} has ${size} bytes, expected at most ${limits.fileBytes} in one file`,
      };
    }
    own.push({ path: name, bytes: await readFile(path) });
  }
  const base = baseOf(own);
  if (base === null) return own;
  if (depth >= maximumBases)
    return {
      code: 'base',
      file: 'family.yaml',
      message: `more than ${maximumBases} bases after each other: do they name each other?`,
    };
  const below = await collect(resolve(dir, base), depth + 1);
  if (!Array.isArray(below)) return below;
  return [...below.filter((file) => !own.some((mine) => mine.path === file.path)), ...own].map((file) =>
    file.path === 'vectors.yaml' ? mergeVectors(below, own) : file,
  );
};

/** The vectors of a base stay: new ones are added after them. */
const mergeVectors = (below: readonly SourceFile[], own: readonly SourceFile[]): SourceFile => {
  const lists = [below, own].flatMap((files) => files.find((file) => file.path === 'vectors.yaml')?.bytes ?? []);
  const text = lists.map((bytes) => new TextDecoder().decode(bytes).trimEnd()).join('\n');
  return { path: 'vectors.yaml', bytes: new TextEncoder().encode(`${text}\n`) };
};

const baseOf = (files: readonly SourceFile[]): string | null => {
  const head = files.find((file) => file.path === 'family.yaml');
  if (!head) return null;
  try {
    const value: unknown = parse(new TextDecoder().decode(head.bytes));
    const base = typeof value === 'object' && value !== null && 'base' in value ? value.base : null;
    return typeof base === 'string' ? base : null;
  } catch {
    return null; // readFamily says what is wrong with the YAML
  }
};
