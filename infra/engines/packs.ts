/**
 * Engine packs: Debian's Suricata of several suites, each in a folder of the user's cache with its own loader, C library
 * and data. A pack holds the files that the engine really links or reads (about 35 MB of 115 MB), as plain files.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { copyFile, mkdir, readdir, readFile, realpath, rm, writeFile } from 'node:fs/promises';
import { basename, join, sep } from 'node:path';
import { SigrelError } from '../../domain/errors.ts';
import type { EngineBuild } from '../../domain/release.ts';
import { cacheRoot, fillOnce } from '../servers/cache.ts';
import { run } from '../servers/processes.ts';
import { type Progress, step } from '../servers/progress.ts';
import { unpackPackage } from './debian.ts';
import packs from './packs.json' with { type: 'json' };

export type Pack = {
  readonly build: EngineBuild;
  readonly dir: string;
  /** The version that packs.json names; `build.version` is the one that the suite had. */
  readonly wanted: string;
};

type Wanted = (typeof packs.packs)[number];

const loader = join('lib', 'ld-linux-x86-64.so.2');
const engine = join('bin', 'suricata');

/** What packs.json names, e.g. `suricata@6.0.1`, and where it is or would be. */
export type KnownPack = {
  readonly name: string;
  readonly version: string;
  readonly source: string;
  readonly dir: string;
  /** null: not fetched yet. */
  readonly build: EngineBuild | null;
};

/** Every pack there could be, in the order of packs.json, without fetching anything. */
export const listPacks = (): Promise<readonly KnownPack[]> =>
  Promise.all(
    packs.packs.map(async (wanted) => {
      const dir = folderOf(wanted);
      const text = await readFile(join(dir, 'pack.json'), 'utf8').catch(() => null);
      return {
        ...{ name: wanted.package, version: wanted.expected, source: `Debian ${wanted.suite}`, dir },
        build: text === null ? null : (JSON.parse(text) as EngineBuild),
      };
    }),
  );

/**
 * Packs by what packs.json calls them (all, when not given), in its order; what is in the cache is used without asking the
 * archive. Throws SRP_MISSING_ENGINE for a name that is not there.
 */
export const acquirePacks = async (progress: Progress, names?: readonly string[]): Promise<readonly Pack[]> => {
  const known = packs.packs.map((wanted) => `${wanted.package}@${wanted.expected}`);
  const unknown = names?.find((name) => !known.includes(name));
  if (unknown !== undefined) {
    const message = `there is no engine "${unknown}"; known are ${known.join(', ')}`;
    throw new SigrelError('SRP_MISSING_ENGINE', message, { details: { engine: unknown } });
  }
  const chosen = packs.packs.filter(({ package: name, expected }) => names?.includes(`${name}@${expected}`) ?? true);
  const settled = await Promise.allSettled(chosen.map((wanted) => acquirePack(wanted, progress)));
  return settled.map((result) => {
    if (result.status === 'rejected') throw result.reason;
    return result.value;
  });
};

const folderOf = ({ suite, package: name, expected }: Wanted): string =>
  join(cacheRoot(), 'engines', `${suite}-${name}-for-${expected}`);

const acquirePack = async (wanted: Wanted, progress: Progress): Promise<Pack> => {
  const { suite, package: name, expected } = wanted;
  const what = `${name} of Debian ${suite}`;
  // The folder says what was asked for, pack.json what it is: with another wish the archive is asked again.
  const dir = await fillOnce(folderOf(wanted), (temporary) =>
    step(progress, `${what}: fetching and unpacking, once for this user`, () => makePack(wanted, temporary)),
  );
  const build: EngineBuild = JSON.parse(await readFile(join(dir, 'pack.json'), 'utf8'));
  if (build.version !== expected) {
    progress(`${what} is ${build.version} (${build.packageVersion}), not ${expected}: used as an engine of its own`);
  }
  return { build, dir, wanted: expected };
};

/** Command and arguments that start the pack's engine with the pack's libraries only, whatever the host has. */
export const engineCommand = (dir: string): string[] => [
  join(dir, loader),
  '--inhibit-cache',
  ...['--library-path', join(dir, 'lib')],
  join(dir, engine),
];

const makePack = async ({ suite, package: name }: Wanted, dir: string): Promise<void> => {
  const { root, packageVersion } = await unpackPackage(suite, name, dir);
  await Promise.all(['bin', 'lib', 'etc', 'share'].map((folder) => mkdir(join(dir, folder))));
  await copyFile(join(root, 'usr', 'bin', 'suricata'), join(dir, engine));
  for (const library of await linkedLibraries(root)) await copyFile(library, join(dir, 'lib', basename(library)));
  for (const file of ['classification.config', 'reference.config', 'threshold.config']) {
    await copyFile(join(root, 'etc', 'suricata', file), join(dir, 'etc', file));
  }
  // Opened at run time by rules that look at file types; otherwise the host's would be.
  await copyFile(join(root, 'usr', 'lib', 'file', 'magic.mgc'), join(dir, 'share', 'magic.mgc'));
  await rm(root, { recursive: true });
  const digest = await digestOf(dir);
  const build: EngineBuild = { name, version: await versionOf(dir), packageVersion, digest };
  await writeFile(join(dir, 'pack.json'), `${JSON.stringify(build, null, 2)}\n`);
};

/** The shared objects that the engine links, directly or not, and the loader; named by the pack's own loader. */
const linkedLibraries = async (root: string): Promise<string[]> => {
  const folders = ['lib', join('usr', 'lib')].map((folder) => join(root, folder, 'x86_64-linux-gnu'));
  const own = folders.map((folder) => join(folder, basename(loader))).find((path) => existsSync(path));
  if (own === undefined) throw new SigrelError('SRP_ENGINE_PACK', `no loader among the files unpacked in ${root}`);
  const said = await run(own, [
    ...['--inhibit-cache', '--library-path', folders.join(':')],
    ...['--list', join(root, 'usr', 'bin', 'suricata')],
  ]);
  const base = await realpath(root);
  const found = parseLinked(said);
  for (const path of found) {
    if ((await realpath(path)).startsWith(base + sep)) continue;
    throw new SigrelError(
      'SRP_ENGINE_PACK',
      `the engine would use ${path} of this machine, expected a file of its pack`,
    );
  }
  return [...new Set([own, ...found])];
};

/** Paths in the loader's answer; throws when it did not find a library. The kernel's own object has no path. */
export const parseLinked = (said: string): string[] =>
  said.split('\n').flatMap((line) => {
    if (line.includes('not found')) {
      throw new SigrelError('SRP_ENGINE_PACK', `the engine needs a library that no package brought: ${line.trim()}`);
    }
    return /=> (\/.+) \(0x[0-9a-f]+\)$/.exec(line)?.[1] ?? [];
  });

const versionOf = async (dir: string): Promise<string> => {
  const [command = '', ...args] = engineCommand(dir);
  const said = await run(command, [...args, '-V']);
  const version = /version (\d+(?:\.\d+)+)/.exec(said)?.[1];
  if (version) return version;
  throw new SigrelError('SRP_ENGINE_PACK', `the engine in ${dir} does not say its version: ${said.trim()}`);
};

/** Identity of a pack: SHA-256 over its files, sorted by path, each with the SHA-256 of its content. */
const digestOf = async (dir: string): Promise<string> => {
  const entries = await readdir(dir, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const all = createHash('sha256');
  for (const file of files.sort()) {
    const content = createHash('sha256').update(await readFile(file));
    all.update(`${file.slice(dir.length + 1)}\n${content.digest('hex')}\n`);
  }
  return all.digest('hex');
};
