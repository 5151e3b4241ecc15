/** Reads a family's folder. `base:` in family.yaml names another folder whose files are there unless this one has its own. */
import { lstat, readdir, readFile } from 'node:fs/promises';
import { isAbsolute, join, relative, resolve } from 'node:path';
import { isNode, LineCounter, parse, parseDocument } from 'yaml';
import { type Family, limits, type ParsedYaml, type SourceFile } from '../../domain/content/family.ts';
import { readFamily } from '../../domain/content/read-family.ts';
import type { ContentFinding } from '../../domain/content/rules.ts';

export type LoadedFamily =
  | { readonly ok: true; readonly family: Family; readonly files: readonly SourceFile[] }
  | { readonly ok: false; readonly findings: readonly ContentFinding[] };

/** What the pipeline makes of files that it has already, e.g. out of a bundle. */
export const parseFamily = (files: readonly SourceFile[]) => readFamily(files, parseYaml);

const parseYaml = (text: string): ParsedYaml => {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines });
  const [error] = document.errors;
  if (error) throw error;
  return {
    value: document.toJS() ?? null,
    lineOf: (path) => {
      const node = path.length === 0 ? document.contents : document.getIn(path, true);
      const start = isNode(node) ? node.range?.[0] : undefined;
      return start === undefined ? undefined : lines.linePos(start).line;
    },
  };
};

/** Never throws for what is in the folder: everything wrong is a finding with its place. */
export const loadFamily = async (dir: string): Promise<LoadedFamily> => {
  const collected = await collect(resolve(dir), 0);
  if (!Array.isArray(collected)) return { ok: false, findings: [collected] };
  const files = collected.map(({ path, bytes }) => ({ path, bytes })).toSorted((a, b) => (a.path < b.path ? -1 : 1));
  const read = parseFamily(files);
  if (read.ok) return { ...read, files };
  // What came from a base is named where it lies, seen from this folder.
  const origins = new Map(collected.map(({ path, origin }) => [path, relative(resolve(dir), origin)]));
  const placed = read.findings.map((finding) =>
    finding.file === undefined ? finding : { ...finding, file: origins.get(finding.file) ?? finding.file },
  );
  return { ok: false, findings: placed };
};

/** `origin`: where it was read. */
type FoundFile = SourceFile & { readonly origin: string };

const maximumBases = 4;
const vectorsFile = /^vectors(-[\w-]+)?\.yaml$/;

/** The files of a folder over those of its base. */
const collect = async (dir: string, depth: number): Promise<FoundFile[] | ContentFinding> => {
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
  // Vectors add up: those of the base stay in a file of their own, so that a finding names the line that a person wrote.
  const inherited = below.map((file) =>
    vectorsFile.test(file.path) ? { ...file, path: file.path.replace('.yaml', '-base.yaml') } : file,
  );
  return [...inherited.filter((file) => !own.some((mine) => mine.path === file.path)), ...own];
};

/** Nothing is read before its size is known, nor anything of a folder that is no family. */
const readFolder = async (dir: string): Promise<FoundFile[] | ContentFinding> => {
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
  const files: FoundFile[] = [];
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
    files.push({ path: name, bytes: await readFile(path), origin: path });
  }
  return files;
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
