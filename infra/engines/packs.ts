/**
 * Engine packs: Debian's Suricata of several suites, each unpacked (not installed) with its own C library into a folder of
 * the user's cache. apt resolves, downloads and checks signatures with a state of its own per suite; nothing on the
 * machine is changed and no root is needed.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { lstat, mkdir, readdir, readFile, readlink, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { SigrelError } from '../../domain/errors.ts';
import type { EngineBuild } from '../../domain/release.ts';
import { cacheRoot, fillOnce } from '../servers/cache.ts';
import { onPath, run } from '../servers/processes.ts';
import { type Progress, step } from '../servers/progress.ts';
import packs from './packs.json' with { type: 'json' };

export type Pack = {
  readonly build: EngineBuild;
  readonly suite: string;
  readonly dir: string;
  /** Relative to `dir`: the pack's own loader, every folder with a shared object, and the engine. */
  readonly loader: string;
  readonly libraries: readonly string[];
  readonly executable: string;
};

const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';

/** All packs, fetched and unpacked when they are not in the cache (about 15 s each on the first call, nothing later). */
export const acquirePacks = async (progress: Progress): Promise<readonly Pack[]> => {
  const found: Pack[] = [];
  for (const { suite, package: name, expected } of packs.packs) {
    const dir = await fillOnce(join(cacheRoot(), 'engines', `${name}-${suite}`), (temporary) =>
      step(progress, `${name} of Debian ${suite}: fetching and unpacking, once for this user`, () =>
        fetchPack(suite, name, temporary),
      ),
    );
    const pack: Omit<Pack, 'dir'> = JSON.parse(await readFile(join(dir, 'pack.json'), 'utf8'));
    if (pack.build.version !== expected) {
      progress(
        `${name} of Debian ${suite} is ${pack.build.version} (${pack.build.packageVersion}), not ${expected}: used as an engine of its own`,
      );
    }
    found.push({ ...pack, dir });
  }
  return found;
};

/**
 * The archive's address: SIGREL_DEBIAN_MIRROR, else what the machine's own apt is configured with. Throws
 * SRP_DEP_DEBIAN_MIRROR when neither names one.
 */
const findMirror = async (): Promise<string> => {
  const given = process.env.SIGREL_DEBIAN_MIRROR;
  if (given) return given;
  const targets = await run('apt-get', ['indextargets', '--format', '$(REPO_URI)', 'Created-By: Packages']);
  const archive = targets.split('\n').find((uri) => /\/debian\/?$/.test(uri));
  if (archive) return archive;
  throw new SigrelError(
    'SRP_DEP_DEBIAN_MIRROR',
    "no Debian archive is in this machine's apt configuration: set SIGREL_DEBIAN_MIRROR to one, e.g. http://<mirror>/debian",
  );
};

const fetchPack = async (suite: string, name: string, dir: string): Promise<void> => {
  for (const [program, debianPackage] of [
    ['apt-get', 'apt'],
    ['dpkg-deb', 'dpkg'],
    ['prlimit', 'util-linux'],
  ] as const) {
    if (onPath(program) === null) {
      const what = `"${program}" is missing on PATH; it is needed to fetch the engines: install the package ${debianPackage}`;
      throw new SigrelError('SRP_DEP_APT', what);
    }
  }
  if (!existsSync(keyring)) {
    throw new SigrelError('SRP_DEP_KEYRING', `${keyring} is missing: install the package debian-archive-keyring`);
  }
  const apt = join(dir, 'apt');
  const archives = join(apt, 'cache', 'archives');
  await mkdir(join(archives, 'partial'), { recursive: true });
  await mkdir(join(apt, 'lists', 'partial'), { recursive: true });
  await writeFile(join(apt, 'status'), '');
  await writeFile(join(apt, 'sources.list'), `deb [signed-by=${keyring}] ${await findMirror()} ${suite} main\n`);
  const options = [
    ...['-o', `Dir::Etc::SourceList=${join(apt, 'sources.list')}`, '-o', 'Dir::Etc::SourceParts=/dev/null'],
    ...['-o', 'Dir::Etc::Preferences=/dev/null', '-o', 'Dir::Etc::PreferencesParts=/dev/null'],
    ...['-o', `Dir::State::Lists=${join(apt, 'lists')}`, '-o', `Dir::State::status=${join(apt, 'status')}`],
    ...['-o', `Dir::Cache=${join(apt, 'cache')}`, '-o', 'APT::Install-Recommends=false'],
    ...['-o', 'APT::Architecture=amd64', '-o', 'APT::Architectures::=amd64', '-o', 'Debug::NoLocking=1'],
    // Started as root, apt would change to a user who may not write into the cache.
    ...['-o', 'APT::Sandbox::User=root', '-o', 'Acquire::Languages=none'],
  ];
  await run('apt-get', [...options, '-q', 'update']);
  await run('apt-get', [...options, '-q', '-y', '--download-only', 'install', name]);
  const root = join(dir, 'root');
  await mkdir(root);
  const debs = (await readdir(archives)).filter((file) => file.endsWith('.deb')).sort();
  for (const deb of debs) await run('dpkg-deb', ['-x', join(archives, deb), root]);
  const main = debs.find((deb) => deb.startsWith(`${name}_`));
  if (main === undefined) throw new SigrelError('SRP_DEP_APT', `apt did not fetch ${name} from ${suite}`);
  const packageVersion = (await run('dpkg-deb', ['-f', join(archives, main), 'Version'])).trim();
  await rm(apt, { recursive: true });
  const files = await settleTree(root);
  const pack = {
    suite,
    loader: locate(files, /\/ld-linux-x86-64\.so\.2$/, name),
    libraries: [...new Set(files.filter((file) => /\.so(\.|$)/.test(file)).map(dirname))].sort(),
    executable: locate(files, /^root\/usr\/bin\/suricata$/, name),
  };
  const version = await versionOf({ ...pack, dir });
  const build: EngineBuild = { name, version, packageVersion, digest: await digestOf(dir, files) };
  await writeFile(join(dir, 'pack.json'), `${JSON.stringify({ ...pack, build }, null, 2)}\n`);
};

/** Command and arguments that start the pack's engine with the pack's libraries only. */
export const engineCommand = (pack: Pick<Pack, 'dir' | 'loader' | 'libraries' | 'executable'>): string[] => [
  join(pack.dir, pack.loader),
  '--library-path',
  pack.libraries.map((folder) => join(pack.dir, folder)).join(':'),
  join(pack.dir, pack.executable),
];

const versionOf = async (pack: Pick<Pack, 'dir' | 'loader' | 'libraries' | 'executable'>): Promise<string> => {
  const [command = '', ...args] = engineCommand(pack);
  const said = await run(command, [...args, '-V']);
  const version = /version (\d+(?:\.\d+)+)/.exec(said)?.[1];
  if (!version)
    throw new SigrelError('SRP_ENGINE_VERSION', `the engine in ${pack.dir} does not say its version: ${said}`);
  return version;
};

/**
 * All files below `root`, relative to its parent, sorted. Absolute links become relative ones on the way: left alone they
 * would lead to the host's files, its loader among them.
 */
const settleTree = async (root: string): Promise<string[]> => {
  const base = dirname(root);
  const files: string[] = [];
  for (const entry of await readdir(root, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isSymbolicLink()) {
      const target = await readlink(path);
      if (!target.startsWith('/')) {
        files.push(relative(base, path));
        continue;
      }
      await rm(path);
      await symlink(relative(dirname(path), join(root, target)), path);
      files.push(relative(base, path));
    } else if (entry.isFile()) files.push(relative(base, path));
  }
  return files.sort();
};

const locate = (files: readonly string[], pattern: RegExp, name: string): string => {
  const found = files.find((file) => pattern.test(file));
  if (found === undefined) throw new SigrelError('SRP_ENGINE_PACK', `the pack of ${name} has no file ${pattern}`);
  return found;
};

/** Identity of what was unpacked: SHA-256 over every path with its content, links with their target. */
const digestOf = async (dir: string, files: readonly string[]): Promise<string> => {
  const all = createHash('sha256');
  for (const file of files) {
    const path = join(dir, file);
    const isLink = (await lstat(path)).isSymbolicLink();
    const content = isLink ? `link ${await readlink(path)}` : await readFile(path);
    all.update(`${file}\n${createHash('sha256').update(content).digest('hex')}\n`);
  }
  return all.digest('hex');
};
