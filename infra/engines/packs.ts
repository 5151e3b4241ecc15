/**
 * Engine packs: each engine version in a folder of the user's cache, with its own loader, C library and data where it is a
 * program of Debian's, as a package of npm or PyPI where it is a library. A pack holds the files that the engine really
 * links or reads, as plain files; its digest over them is the engine's identity.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { copyFile, mkdir, readdir, readFile, realpath, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join, sep } from 'node:path';
import { SigrelError } from '../../domain/errors.ts';
import type { EngineBuild } from '../../domain/release.ts';
import { inParallel } from '../in-parallel.ts';
import { cacheRoot, fillOnce } from '../servers/cache.ts';
import { run } from '../servers/processes.ts';
import { type Progress, step } from '../servers/progress.ts';
import { unpackPackage } from './debian.ts';
import { fetchNpm } from './npm.ts';
import packs from './packs.json' with { type: 'json' };
import { fetchPypi, pypiIsHere } from './pypi.ts';

export type Pack = {
  readonly build: EngineBuild;
  readonly dir: string;
  /** The version that packs.json names; `build.version` is the one that the source had. */
  readonly wanted: string;
};

/** An entry of packs.json: exactly one source. `npm` and `pypi` are digests of the one file that is taken. */
type Wanted = {
  readonly engine: string;
  readonly version: string;
  readonly debian?: string;
  readonly npm?: string;
  readonly pypi?: string;
};

const wantedPacks: readonly Wanted[] = packs.packs;
const nameOf = ({ engine, version }: Wanted): string => `${engine}@${version}`;
const sourceOf = ({ debian, npm }: Wanted): string => (debian ? `Debian ${debian}` : npm ? 'npm' : 'PyPI');

const loader = join('lib', 'ld-linux-x86-64.so.2');

/** Debian's packages: the program, how it tells its version, and what it reads that no linker names. */
const programs: Readonly<
  Record<string, { path: string; versionFlag: string; data: readonly (readonly [string, string])[] }>
> = {
  suricata: {
    path: join('usr', 'bin', 'suricata'),
    versionFlag: '-V',
    data: [
      ...['classification.config', 'reference.config', 'threshold.config'].map(
        (file) => [join('etc', 'suricata', file), join('etc', file)] as const,
      ),
      // Opened at run time by rules that look at file types; otherwise the host's would be.
      [join('usr', 'lib', 'file', 'magic.mgc'), join('share', 'magic.mgc')],
    ],
  },
  yara: {
    path: join('usr', 'bin', 'yara'),
    versionFlag: '--version',
    data: [[join('usr', 'lib', 'file', 'magic.mgc'), join('share', 'magic.mgc')]],
  },
  clamav: { path: join('usr', 'bin', 'clamscan'), versionFlag: '--version', data: [] },
};

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
    wantedPacks.map(async (wanted) => {
      const dir = folderOf(wanted);
      const text = await readFile(join(dir, 'pack.json'), 'utf8').catch(() => null);
      return {
        ...{ name: wanted.engine, version: wanted.version, source: sourceOf(wanted), dir },
        build: text === null ? null : (JSON.parse(text) as EngineBuild),
      };
    }),
  );

/** Names (`yara@4.0.5`) of all packs of these engines that this machine can have. */
export const packsOf = (engines: readonly string[]): readonly string[] =>
  wantedPacks.filter((wanted) => engines.includes(wanted.engine) && (!wanted.pypi || pypiIsHere())).map(nameOf);

/**
 * Packs by name (all that this machine can have, when none is given), in the order of packs.json; what is in the cache is used
 * without asking its source. Throws SRP_MISSING_ENGINE for a name that is not there, SRP_DEP_* when a source cannot be
 * reached, SRP_INTEGRITY_PACK when files of a pack have changed.
 */
export const acquirePacks = async (progress: Progress, names?: readonly string[]): Promise<readonly Pack[]> => {
  const known = wantedPacks.map(nameOf);
  const unknown = names?.find((name) => !known.includes(name));
  if (unknown !== undefined) {
    const message = `there is no engine "${unknown}"; known are ${known.join(', ')}`;
    throw new SigrelError('SRP_MISSING_ENGINE', message, { details: { engine: unknown } });
  }
  const left = names === undefined && !pypiIsHere() ? wantedPacks.filter(({ pypi }) => pypi) : [];
  if (left.length > 0)
    progress(`${left.map(nameOf).join(', ')} left out: they need Linux on x64 and Python 3.9 with pip`);
  const chosen = wantedPacks.filter((wanted) => names?.includes(nameOf(wanted)) ?? !left.includes(wanted));
  // All of them are tried before the first failure is thrown.
  const settled = await inParallel(chosen, atOnce, async (wanted) => {
    const [result] = await Promise.allSettled([acquirePack(wanted, progress)]);
    return result;
  });
  return settled.map((result) => {
    if (result.status === 'rejected') throw result.reason;
    return result.value;
  });
};

/** Fetching waits for the network, unpacking for the disk. */
const atOnce = 3;

const folderOf = (wanted: Wanted): string => {
  const { engine, version, debian, npm } = wanted;
  const source = debian ?? (npm ? 'npm' : 'pypi');
  return join(cacheRoot(), 'engines', `${source}-${engine}-for-${version}`);
};

const acquirePack = async (wanted: Wanted, progress: Progress): Promise<Pack> => {
  const { engine, version } = wanted;
  const what = `${engine} ${version} of ${sourceOf(wanted)}`;
  // The folder says what was asked for, pack.json what it is: with another wish the source is asked again.
  const dir = await fillOnce(folderOf(wanted), (temporary) =>
    step(progress, `${what}: fetching, once for this user`, () => makePack(wanted, temporary)),
  );
  const build: EngineBuild = JSON.parse(await readFile(join(dir, 'pack.json'), 'utf8'));
  await checkUnchanged(dir, build);
  if (build.version !== version) {
    progress(`${what} is ${build.version} (${build.packageVersion}) by now: used as an engine of its own`);
  }
  return { build, dir, wanted: version };
};

const checked = new Set<string>();

/** Once per process: an engine whose files were changed answers for another one. */
const checkUnchanged = async (dir: string, build: EngineBuild): Promise<void> => {
  if (checked.has(dir)) return;
  const digest = await digestOf(dir);
  if (digest !== build.digest) {
    const message = `the files of ${build.name} ${build.version} in ${dir} have changed: its digest is ${digest.slice(0, 12)}, expected ${build.digest.slice(0, 12)}. Remove the folder, and it is fetched again`;
    throw new SigrelError('SRP_INTEGRITY_PACK', message, { details: { engine: build.name } });
  }
  checked.add(dir);
};

/** Command and arguments that start the pack's program with the pack's libraries only, whatever the host has. */
export const engineCommand = ({ dir, build }: Pick<Pack, 'dir' | 'build'>): string[] => [
  join(dir, loader),
  '--inhibit-cache',
  ...['--library-path', join(dir, 'lib')],
  join(dir, 'bin', basename(programs[build.name]?.path ?? build.name)),
];

const makePack = async (wanted: Wanted, dir: string): Promise<void> => {
  const { engine: name } = wanted;
  const found = await (wanted.debian !== undefined
    ? makeProgram(name, wanted.debian, dir)
    : wanted.npm !== undefined
      ? fetchNpm(wanted.version, wanted.npm, dir)
      : fetchPypi(wanted.version, wanted.pypi ?? '', dir));
  const build: EngineBuild = { name, ...found, digest: await digestOf(dir) };
  await writeFile(join(dir, 'pack.json'), `${JSON.stringify(build, null, 2)}\n`);
};

const makeProgram = async (
  name: string,
  suite: string,
  dir: string,
): Promise<{ readonly version: string; readonly packageVersion: string }> => {
  const program = programs[name];
  if (!program) throw new SigrelError('SRP_BUG_PACK', `nobody says how a pack of ${name} is made`);
  const { root, packageVersion } = await unpackPackage(suite, name, dir);
  await Promise.all(['bin', 'lib', 'etc', 'share'].map((folder) => mkdir(join(dir, folder))));
  await copyFile(join(root, program.path), join(dir, 'bin', basename(program.path)));
  for (const library of await linkedLibraries(root, program.path)) {
    await copyFile(library, join(dir, 'lib', basename(library)));
  }
  for (const [from, to] of program.data) {
    await mkdir(dirname(join(dir, to)), { recursive: true });
    await copyFile(join(root, from), join(dir, to));
  }
  await rm(root, { recursive: true });
  const unknown = { name, version: '', packageVersion, digest: '' };
  return { version: await versionOf({ dir, build: unknown }, program.versionFlag), packageVersion };
};

/** The shared objects that the program links, directly or not, and the loader; named by the pack's own loader. */
const linkedLibraries = async (root: string, program: string): Promise<string[]> => {
  const folders = ['lib', join('usr', 'lib')].map((folder) => join(root, folder, 'x86_64-linux-gnu'));
  const own = folders.map((folder) => join(folder, basename(loader))).find((path) => existsSync(path));
  if (own === undefined) throw new SigrelError('SRP_ENGINE_PACK', `no loader among the files unpacked in ${root}`);
  const said = await run(own, [
    ...['--inhibit-cache', '--library-path', folders.join(':')],
    ...['--list', join(root, program)],
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

const versionOf = async (pack: Pick<Pack, 'dir' | 'build'>, flag: string): Promise<string> => {
  const [command = '', ...args] = engineCommand(pack);
  const said = await run(command, [...args, flag]);
  const version = /(\d+(?:\.\d+)+)/.exec(said)?.[1];
  if (version) return version;
  throw new SigrelError('SRP_ENGINE_PACK', `the engine in ${pack.dir} does not say its version: ${said.trim()}`);
};

/** Identity of a pack: SHA-256 over its files, sorted by path, each with the SHA-256 of its content. */
const digestOf = async (dir: string): Promise<string> => {
  const entries = await readdir(dir, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const all = createHash('sha256');
  for (const file of files.sort()) {
    const name = file.slice(dir.length + 1);
    if (name === 'pack.json') continue; // names the digest itself
    const content = createHash('sha256').update(await readFile(file));
    all.update(`${name}\n${content.digest('hex')}\n`);
  }
  return all.digest('hex');
};
