/** Reads a family's folder. `base:` in family.yaml names another folder whose files are there unless this one has its own. */
import { lstat, readdir, readFile } from 'node:fs/promises';
import { isAbsolute, join, relative, resolve } from 'node:path';
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

/** The files of a folder over those of its base. */
const collect = async (dir: string, depth: number): Promise<SourceFile[] | ContentFinding> => {
  const own = await readFolder(dir);
  if (!Array.isArray(own)) return own;
  const base = baseOf(own);
  if (base === null) return own;
  const refuse = (message: string): ContentFinding => ({ code: 'base', file: 'family.yaml', message });
  if (isAbsolute(base)) return refuse(`base is ${base}, expected a path relative to this folder`);
  if (depth >= maximumBases)
    return refuse(`more than ${maximumBases} bases after each other: do they name each other?`);
  const below = await collect(resolve(dir, base), depth + 1);
  if (!Array.isArray(below)) {
    return below.code === 'missing-folder' ? refuse(`base is ${base}: ${below.message}`) : below;
  }
  return [...below.filter((file) => !own.some((mine) => mine.path === file.path)), ...own].map((file) =>
    file.path === 'vectors.yaml' ? mergeVectors(below, own) : file,
  );
};

/** Nothing is read before its size is known, nor anything of a folder that is no family. */
const readFolder = async (dir: string): Promise<SourceFile[] | ContentFinding> => {
  const shown = relative(process.cwd(), dir) || '.';
  const stat = await lstat(dir).catch(() => null);
  if (!stat?.isDirectory()) {
    const message = `there is no folder ${shown}; expected a family with family.yaml, rules/ and vectors/`;
    return { code: 'missing-folder', file: shown, message };
  }
  const top = await readdir(dir);
  if (top.length > 0 && !top.includes('family.yaml')) {
    const message = `family.yaml is missing in ${shown}: expected the folder of a family`;
    return { code: 'missing-file', file: 'family.yaml', message };
  }
  const files: SourceFile[] = [];
  let total = 0;
  const tooLarge = (file: string, observed: string, limit: string): ContentFinding => ({
    code: 'too-large',
    file,
    message: `${file} has ${observed}, expected at most ${limit}`,
  });
  for (const entry of await readdir(dir, { recursive: true, withFileTypes: true })) {
    if (entry.isDirectory()) continue;
    const path = join(entry.parentPath, entry.name);
    const name = relative(dir, path);
    if (!entry.isFile())
      return { code: 'no-file', file: name, message: `${name} is a link or no regular file; expected files only` };
    const { size } = await lstat(path);
    total += size;
    if (size > limits.fileBytes) return tooLarge(name, `${size} bytes`, `${limits.fileBytes} in one file`);
    if (total > limits.totalBytes) return tooLarge(shown, `more than ${limits.totalBytes} bytes`, 'that in all files');
    if (files.length >= limits.files) return tooLarge(shown, `more than ${limits.files} files`, 'that');
    files.push({ path: name, bytes: await readFile(path) });
  }
  return files;
};

/** The vectors of a base stay: new ones are added after them. What is no list is left for readFamily to name. */
const mergeVectors = (below: readonly SourceFile[], own: readonly SourceFile[]): SourceFile => {
  const sources = [below, own].flatMap((files) => files.find((file) => file.path === 'vectors.yaml') ?? []);
  const merged: unknown[] = [];
  for (const source of sources) {
    const list = parseQuietly(source.bytes);
    if (!Array.isArray(list)) return source;
    merged.push(...list);
  }
  const text = merged.map((vector) => `- ${JSON.stringify(vector)}\n`).join('');
  return { path: 'vectors.yaml', bytes: new TextEncoder().encode(text) };
};

const baseOf = (files: readonly SourceFile[]): string | null => {
  const head = files.find((file) => file.path === 'family.yaml');
  const value = head ? parseQuietly(head.bytes) : null;
  const base = typeof value === 'object' && value !== null && 'base' in value ? value.base : null;
  return typeof base === 'string' ? base : null;
};

/** null for what is no YAML: readFamily says what is wrong with it. */
const parseQuietly = (bytes: Uint8Array): unknown => {
  try {
    return parse(new TextDecoder().decode(bytes));
  } catch {
    return null;
  }
};
