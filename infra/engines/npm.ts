/** YARA-X as the npm registry has it: WebAssembly, which runs wherever Node does. */
import { createHash } from 'node:crypto';
import { cp, mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { SigrelError } from '../../domain/errors.ts';
import { run } from '../servers/processes.ts';

const packageName = '@virustotal/yara-x';

/**
 * Fetches a version with the machine's own npm and its configuration, and unpacks what is needed into `dir`. `integrity`: as in a
 * lock file. Throws SRP_DEP_NPM, SRP_INTEGRITY_PACK.
 */
export const fetchNpm = async (
  version: string,
  integrity: string,
  dir: string,
): Promise<{ readonly version: string; readonly packageVersion: string }> => {
  const fetched = join(dir, 'fetched');
  await mkdir(fetched);
  const what = `${packageName}@${version}`;
  const said = await run('npm', ['pack', what, '--json', '--ignore-scripts', '--pack-destination', fetched]).catch(
    (cause: Error) => {
      const message = `${what} could not be fetched with npm: is the registry reachable from here?\n${cause.message}`;
      throw new SigrelError('SRP_DEP_NPM', message, { cause });
    },
  );
  const [{ filename }]: [{ filename: string }] = JSON.parse(said.slice(said.indexOf('[')));
  // Older versions of npm name the file with the scope's slash, and write it with a dash.
  const archive = join(fetched, filename.replace('@', '').replace('/', '-'));
  const digest = `sha512-${createHash('sha512')
    .update(await readFile(archive))
    .digest('base64')}`;
  if (digest !== integrity) {
    throw new SigrelError('SRP_INTEGRITY_PACK', `${what} has the digest ${digest}, expected ${integrity}`);
  }
  await run('tar', ['-xzf', archive, '-C', fetched]);
  for (const name of ['package.json', 'pkg', 'LICENSE']) {
    await cp(join(fetched, 'package', name), join(dir, name), { recursive: true }).catch((cause: Error) => {
      if (name !== 'LICENSE') throw cause;
    });
  }
  await rm(fetched, { recursive: true });
  return { version, packageVersion: `npm-${version}` };
};
