/** A local Temporal development server: acquired from PATH, the cache, or built from its Go module. */
import { existsSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { SigrelError } from '../../domain/errors.ts';
import { searchAttributes } from '../temporal/search-attributes.ts';
import { cacheRoot, fillOnce } from './cache.ts';
import { type Identity, onPath, run, spawnServer, waitReady } from './processes.ts';
import { type Progress, step } from './progress.ts';

const version = '1.8.2';

/** The program: `temporal` on PATH, else the cache, else built with Go (about 7 minutes on two cores, once per user). */
export const acquireTemporal = async (progress: Progress): Promise<string> => {
  const given = onPath('temporal');
  if (given) return given;
  const dir = await fillOnce(join(cacheRoot(), 'temporal', version), async (temporary) => {
    const go = onPath('go');
    if (!go) {
      throw new SigrelError(
        'SRP_DEP_TEMPORAL',
        'Temporal is neither on PATH nor in the cache, and Go is missing to build it: install Go >= 1.26.4 (package golang-go, or go.dev), or put the program "temporal" on PATH',
      );
    }
    await step(progress, `Temporal ${version}: building with Go, once for this user (about 7 min on two cores)`, () =>
      run(go, ['build', '-o', join(temporary, 'temporal'), 'github.com/temporalio/cli/cmd/temporal'], {
        cwd: join(import.meta.dirname, 'temporal-build'),
        env: { ...process.env, CGO_ENABLED: '0', GOTOOLCHAIN: 'local', GOFLAGS: '-mod=readonly -buildvcs=false' },
      }),
    );
  });
  return join(dir, 'temporal');
};

/**
 * Starts the development server on its database file (created when missing). The poll rates take a sequence of ten
 * no-op activities from 1.05 s to 0.24 s: by default a shard's queue is read only 20 times a second.
 */
export const startTemporal = async (
  program: string,
  options: {
    readonly dir: string;
    readonly port: number;
    readonly uiPort: number;
    readonly log: string;
    /** Beside `default`; they get the search attributes too. */
    readonly namespaces: readonly string[];
  },
): Promise<Identity> => {
  await mkdir(options.dir, { recursive: true });
  const database = join(options.dir, `temporal-${version}.db`);
  if (!existsSync(database)) await rm(`${database}-wal`, { force: true });
  const { identity } = spawnServer(
    program,
    [
      'server',
      'start-dev',
      ...['--ip', '127.0.0.1', '--port', String(options.port), '--ui-port', String(options.uiPort)],
      ...['--db-filename', database, '--sqlite-pragma', 'journal_mode=WAL'],
      ...['--ui-disable-news-fetch', '--log-level', 'error'],
      ...['--dynamic-config-value', 'history.transferProcessorMaxPollRPS=2000'],
      ...['--dynamic-config-value', 'history.timerProcessorMaxPollRPS=2000'],
      ...options.namespaces.filter((name) => name !== 'default').flatMap((name) => ['--namespace', name]),
      ...Object.entries(searchAttributes).flatMap(([name, type]) => ['--search-attribute', `${name}=${type}`]),
    ],
    { log: options.log, env: { ...process.env, GOMEMLIMIT: '1GiB' } },
  );
  const address = `127.0.0.1:${options.port}`;
  const healthy = () =>
    run(program, ['operator', 'cluster', 'health', '--address', address]).then(
      () => true,
      () => false,
    );
  await waitReady(
    'Temporal',
    identity,
    options.log,
    async () => (await accepts(options.port)) && (await healthy()),
    60_000,
  );
  return identity;
};

/** Whether somebody listens on that loopback port. */
export const accepts = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1' });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
