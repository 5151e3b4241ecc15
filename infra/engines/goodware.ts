/**
 * Good files that every machine has and that no rule may condemn: what a device runs of this product, the runtime, the
 * engine's own files, and tools of the system. They are looked at in place, and pinned by a digest over path, size and
 * content, so that a corpus that shrank is another corpus and not a gate that silently weakened.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readdir, realpath, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { SigrelError } from '../../domain/errors.ts';
import type { EngineFile } from '../../domain/ports.ts';

export type Corpus = { readonly files: readonly EngineFile[]; readonly digest: string };

const product = join(import.meta.dirname, '..', '..');

/** What a device has of this product: its agent, and the updater that verifies and fetches. */
const agentFolders = ['apps/device', 'infra/tuf', 'domain'];

const systemFiles = [
  ...['/bin/sh', '/bin/bash', '/bin/ls', '/bin/cat', '/bin/tar', '/bin/gzip', '/usr/bin/dpkg', '/usr/bin/apt-get'],
  ...['/usr/bin/env', '/usr/bin/find', '/usr/bin/awk', '/etc/passwd', '/etc/services', '/etc/os-release'],
];

/**
 * Larger ones take longer than everything else together. Node's own program (95 MB and more) is one of them, so that of the
 * runtime nothing is looked at: half a minute for each cell would buy one file.
 */
const largestBytes = 30 * 2 ** 20;

const corpora = new Map<string, Promise<Corpus>>();

/** What each group has at least; with less, a gate would look at nothing and pass. */
const fewest: Readonly<Record<string, number>> = { agent: 1, engine: 1, system: 5 };

/** Throws SRP_DEP_GOODWARE. */
export const checkGroup = (group: string, found: number): void => {
  const least = fewest[group] ?? 1;
  if (found >= least) return;
  const message = `goodware of group "${group}": ${found} files that can be read, expected at least ${least}`;
  throw new SigrelError('SRP_DEP_GOODWARE', message, { details: { group, found, least } });
};

/** The corpus for the engine in a pack's folder; made once per process. Files that this machine does not have are left out; throws SRP_DEP_GOODWARE where too few are left. */
export const goodwareFor = (packDir: string): Promise<Corpus> => {
  const known = corpora.get(packDir);
  if (known) return known;
  const made = collect(packDir);
  corpora.set(packDir, made);
  made.catch(() => corpora.delete(packDir));
  return made;
};

const collect = async (packDir: string): Promise<Corpus> => {
  const agent = await Promise.all(agentFolders.map((folder) => filesBelow(join(product, folder))));
  const groups: readonly (readonly [string, readonly string[]])[] = [
    ['agent', agent.flat()],
    ['engine', await filesBelow(packDir)],
    ['system', systemFiles],
  ];
  const seen = new Set<string>();
  const all = createHash('sha256');
  const files: EngineFile[] = [];
  for (const [group, paths] of groups) {
    const before = files.length;
    for (const path of paths) {
      const real = await realpath(path).catch(() => null);
      const size = real === null ? null : await stat(real).catch(() => null);
      if (real === null || !size?.isFile() || size.size > largestBytes || seen.has(real)) continue;
      seen.add(real);
      const name = `good.${group}.${files.length + 1}.${basename(real).replaceAll(/[^\w.-]/g, '_')}`;
      files.push({ name, path: real });
      all.update(`${group} ${basename(real)} ${size.size} ${await digestOfFile(real)}\n`);
    }
    checkGroup(group, files.length - before);
  }
  return { files, digest: all.digest('hex') };
};

const filesBelow = async (dir: string): Promise<readonly string[]> => {
  const entries = await readdir(dir, { recursive: true, withFileTypes: true }).catch(() => []);
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
};

const digestOfFile = async (path: string): Promise<string> => {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
};
