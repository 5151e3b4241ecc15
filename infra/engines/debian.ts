/**
 * Packages from Debian's archive without installing them: apt resolves, downloads and checks signatures with a state of
 * its own, dpkg-deb unpacks. Needs no root and changes nothing on the machine; only the machine's proxy settings are used.
 */
import { existsSync } from 'node:fs';
import { mkdir, readdir, readlink, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { SigrelError } from '../../domain/errors.ts';
import { onPath, run } from '../servers/processes.ts';

const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';
const programs = [
  ['apt-get', 'apt'],
  ['dpkg-deb', 'dpkg'],
] as const;

/**
 * Fetches a package of a suite's `main` with everything it depends on and unpacks it below `dir`/root, using `dir` for its
 * own files meanwhile. A suite of backports or of security takes its base along. Returns that root and the package's full version. Throws SRP_DEP_* naming what is missing.
 */
export const unpackPackage = async (
  suite: string,
  name: string,
  dir: string,
): Promise<{ readonly root: string; readonly packageVersion: string }> => {
  demandPrograms();
  const base = suite.replace(/-(backports|security)$/, '');
  const mirror = await findMirror();
  const archivesOf = suite.endsWith('-security')
    ? [[await findSecurityMirror(mirror), suite] as const, [mirror, base] as const]
    : [...new Set([suite, base])].map((one) => [mirror, one] as const);
  const apt = join(dir, 'apt');
  const archives = join(apt, 'archives');
  await Promise.all([
    mkdir(join(archives, 'partial'), { recursive: true }),
    mkdir(join(apt, 'lists', 'partial'), { recursive: true }),
  ]);
  await writeFile(join(apt, 'status'), '');
  await writeFile(
    join(apt, 'sources.list'),
    archivesOf
      .map(
        ([address, one]) => `deb [signed-by=${keyring} arch=amd64 lang=none target=Packages] ${address} ${one} main\n`,
      )
      .join(''),
  );
  await writeFile(join(apt, 'apt.conf'), aptConfiguration(apt));
  try {
    await run('apt-get', ['-c', join(apt, 'apt.conf'), '-q', 'update']);
    await run('apt-get', ['-c', join(apt, 'apt.conf'), '-q', '-y', '-t', suite, '--download-only', 'install', name]);
  } catch (cause) {
    throw new SigrelError(
      'SRP_DEP_ARCHIVE',
      `${name} of Debian ${suite} could not be fetched from ${mirror}: set SIGREL_DEBIAN_MIRROR to an archive that has the suite; if a key is missing, the package debian-archive-keyring is too old.\n${cause instanceof Error ? cause.message : ''}`,
      { cause },
    );
  }
  const root = join(dir, 'root');
  await mkdir(root);
  const debs = (await readdir(archives)).filter((file) => file.endsWith('.deb')).sort();
  const main = debs.find((deb) => deb.startsWith(`${name}_`));
  if (main === undefined) throw new SigrelError('SRP_DEP_ARCHIVE', `apt fetched no package ${name} of Debian ${suite}`);
  for (const deb of debs) await run('dpkg-deb', ['-x', join(archives, deb), root]);
  await keepLinksInside(root);
  const packageVersion = (await run('dpkg-deb', ['-f', join(archives, main), 'Version'])).trim();
  await rm(apt, { recursive: true });
  return { root, packageVersion };
};

const demandPrograms = (): void => {
  for (const [program, debianPackage] of programs) {
    if (onPath(program) === null) {
      throw new SigrelError(
        'SRP_DEP_APT',
        `"${program}" is missing on PATH; it is needed to fetch the engines: install the package ${debianPackage}`,
      );
    }
  }
  if (!existsSync(keyring)) {
    throw new SigrelError('SRP_DEP_KEYRING', `${keyring} is missing: install the package debian-archive-keyring`);
  }
};

/** The archive's address: SIGREL_DEBIAN_MIRROR, else the one the machine's own apt is configured with. */
const findMirror = async (): Promise<string> => {
  const given = process.env.SIGREL_DEBIAN_MIRROR;
  if (given) return given;
  // apt reads every form of its sources itself; without this option it names only what was downloaded before.
  const format = '$(REPO_URI) $(RELEASE) $(COMPONENT)';
  const targets = await run('apt-get', [
    ...['indextargets', '--no-release-info', '--format', format],
    'Created-By: Packages',
  ]);
  const mirror = pickMirror(targets);
  if (mirror !== null) return mirror;
  throw new SigrelError(
    'SRP_DEP_MIRROR',
    "this machine's apt configuration names no Debian archive: set SIGREL_DEBIAN_MIRROR to its address (the folder that has dists/ and pool/)",
  );
};

/** Security updates lie beside the archive: SIGREL_DEBIAN_SECURITY_MIRROR, the machine's own, else by the archive's address. */
const findSecurityMirror = async (mirror: string): Promise<string> => {
  const given = process.env.SIGREL_DEBIAN_SECURITY_MIRROR;
  if (given) return given;
  const format = '$(REPO_URI) $(RELEASE) $(COMPONENT)';
  const targets = await run('apt-get', [
    ...['indextargets', '--no-release-info', '--format', format],
    'Created-By: Packages',
  ]);
  const own = targets
    .split('\n')
    .map((line) => line.trim().split(' '))
    .find(([, suite = '', component]) => /^[a-z]+-security$/.test(suite) && component === 'main');
  return own?.[0] ?? mirror.replace(/\/debian\/?$/, '/debian-security/');
};

const reachMs = 10_000;

/** Whether engines can be fetched from Debian here: the platform, the programs, and an archive that answers. */
export const canReachDebian = async (): Promise<boolean> => {
  if (process.platform !== 'linux' || process.arch !== 'x64') return false;
  try {
    demandPrograms();
    const mirror = (await findMirror()).replace(/\/?$/, '/');
    const answered = await fetch(`${mirror}dists/stable/InRelease`, {
      method: 'HEAD',
      signal: AbortSignal.timeout(reachMs),
    });
    return answered.ok;
  } catch {
    return false;
  }
};

/** Suites of the archive itself: others (security, third parties that borrow a code name) are somewhere else. */
const suites = /^(bullseye|bookworm|trixie|forky|duke|sid|(old)*stable|testing|unstable)$/;

/**
 * Picks the archive from lines of `address suite component`. An address that ends in /debian goes first, since third
 * parties also publish for Debian's suites; a wrong choice fails later at the signature.
 */
export const pickMirror = (targets: string): string | null => {
  const addresses = targets
    .split('\n')
    .map((line) => line.trim().split(' '))
    .filter(([, suite = '', component]) => suites.test(suite) && component === 'main')
    .map(([address = '']) => address);
  return addresses.find((address) => /[^/]\/debian\/?$/.test(address)) ?? addresses[0] ?? null;
};

/**
 * A state of its own on top of the machine's configuration. Cleared is what would act on the machine (hooks that empty
 * its cache) or name a release that this state does not have; set is that nothing unsigned is ever taken.
 */
const aptConfiguration = (apt: string): string => `#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
#clear APT::Default-Release;
#clear Dir::Etc::SourceParts;
#clear Dir::Etc::PreferencesParts;
Dir::Etc::SourceList "${apt}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State::Lists "${apt}/lists";
Dir::State::status "${apt}/status";
Dir::State::extended_states "${apt}/extended_states";
Dir::Cache::archives "${apt}/archives";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
APT::Architecture "amd64";
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Get::AllowUnauthenticated "false";
APT::Update::Error-Mode "any";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
// Started as root, apt would change to a user who may not write into the cache.
APT::Sandbox::User "root";
Debug::NoLocking "1";
`;

/** Absolute links become relative: left alone they would lead to the host's files, its loader among them. */
const keepLinksInside = async (root: string): Promise<void> => {
  for (const entry of await readdir(root, { recursive: true, withFileTypes: true })) {
    if (!entry.isSymbolicLink()) continue;
    const path = join(entry.parentPath, entry.name);
    const target = await readlink(path);
    if (!target.startsWith('/')) continue;
    await rm(path);
    await symlink(relative(dirname(path), join(root, target)), path);
  }
};
