/** Child processes that may outlive us: started apart, found again by pid and start time, ended by pid. */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { delimiter, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SigrelError } from '../../domain/errors.ts';

/** A pid alone is reused after a reboot or a long while; with its start time it names one process for good. */
export type Identity = { readonly pid: number; readonly started: number };

/** Who has this pid now; null when nobody. On systems without /proc the start time is 0 and only the pid counts. */
export const identify = (pid: number): Identity | null => {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') return null;
  }
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    // A leader is a zombie already while its other threads still hold the ports: only then is nobody left.
    if (fields[0] === 'Z' && Number(fields[17]) <= 1) return null;
    return { pid, started: Number(fields[19]) };
  } catch {
    return existsSync('/proc/self/stat') ? null : { pid, started: 0 };
  }
};

/** Whether that very process still lives. */
export const isSame = (identity: Identity | null): boolean =>
  identity !== null && identify(identity.pid)?.started === identity.started;

export const parseIdentity = (text: string): Identity | null => {
  const [pid, started] = text.split('-').map(Number);
  return Number.isInteger(pid) && Number.isInteger(started) ? { pid: Number(pid), started: Number(started) } : null;
};

export type Spawned = { readonly identity: Identity; readonly child: ChildProcess };

/** Starts a server in a session of its own (Ctrl-C does not reach it) with its output in a log file. */
export const spawnServer = (
  command: string,
  args: readonly string[],
  options: {
    readonly log: string;
    readonly env?: NodeJS.ProcessEnv;
    readonly cwd?: string;
    readonly uid?: number;
    readonly gid?: number;
  },
): Spawned => {
  mkdirSync(dirname(options.log), { recursive: true });
  const log = openSync(options.log, 'a');
  const { log: _log, ...spawnOptions } = options;
  const child = spawn(command, args, { ...spawnOptions, detached: true, stdio: ['ignore', log, log] });
  closeSync(log);
  child.on('error', () => {}); // seen below: no pid
  child.unref();
  const identity = child.pid === undefined ? null : identify(child.pid);
  if (identity === null) {
    throw new SigrelError('SRP_DEP_START', `${command} could not be started; see ${options.log}`);
  }
  return { identity, child };
};

/** Ends a process: asks, waits, then forces. Only that very process, never one that took over its pid. */
export const endProcess = async (identity: Identity, graceMs = 15_000): Promise<void> => {
  const signal = (name: NodeJS.Signals) => {
    if (!isSame(identity)) return;
    try {
      process.kill(identity.pid, name);
    } catch {
      // gone in between
    }
  };
  signal('SIGTERM');
  const deadline = Date.now() + graceMs;
  while (isSame(identity) && Date.now() < deadline) await sleep(50);
  signal('SIGKILL');
  while (isSame(identity)) await sleep(20);
};

/** Waits until `ready` says so; fails early when the process died, naming the end of its log. */
export const waitReady = async (
  name: string,
  identity: Identity,
  log: string,
  ready: () => Promise<boolean>,
  timeoutMs: number,
): Promise<void> => {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const isReady = await ready();
    // Also when something answers: on its port that may be another server, which was there before it.
    if (!isSame(identity))
      throw new SigrelError('SRP_DEP_START', `${name} ended while starting; its log says:\n${tail(log)}`);
    if (isReady) return;
    if (Date.now() > deadline) {
      await endProcess(identity, 0);
      throw new SigrelError(
        'SRP_DEP_START',
        `${name} was not ready after ${timeoutMs / 1000} s; its log says:\n${tail(log)}`,
      );
    }
    await sleep(50);
  }
};

/** Runs a program to its end; throws with the end of what it printed when it failed. */
export const run = (
  command: string,
  args: readonly string[],
  options: {
    readonly cwd?: string;
    readonly env?: NodeJS.ProcessEnv;
    readonly uid?: number;
    readonly gid?: number;
  } = {},
): Promise<string> =>
  new Promise((resolve, reject) => {
    const child = spawn(command, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    const keep = (chunk: Buffer) => {
      output = (output + chunk.toString()).slice(-64_000);
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    child.on('error', (cause) => reject(new SigrelError('SRP_DEP_RUN', `${command} could not be started`, { cause })));
    child.on('close', (code, signal) => {
      if (code === 0) resolve(output);
      else {
        const end = output.split('\n').slice(-20).join('\n');
        reject(new SigrelError('SRP_DEP_RUN', `${command} ended with ${signal ?? `exit code ${code}`}:\n${end}`));
      }
    });
  });

/** Ports that this process gave out: between its choice and its use a port is free, and would be chosen again. */
const givenOut = new Set<number>();

/** A loopback port that is free now; the wanted one when it is. */
export const freePort = async (wanted = 0): Promise<number> => {
  const tryPort = (port: number) =>
    new Promise<number>((resolve, reject) => {
      const server = createServer();
      server.once('error', reject);
      server.listen({ port, host: '127.0.0.1', exclusive: true }, () => {
        const address = server.address();
        server.close(() => resolve(typeof address === 'object' && address ? address.port : 0));
      });
    });
  for (let asked = wanted; ; asked = 0) {
    const port = asked === 0 ? await tryPort(0) : await tryPort(asked).catch(() => tryPort(0));
    // Who wants a certain one had it before.
    if (port === wanted || !givenOut.has(port)) {
      givenOut.add(port);
      return port;
    }
  }
};

/** The first program of that name on PATH; null when there is none. */
export const onPath = (name: string): string | null =>
  (process.env.PATH ?? '')
    .split(delimiter)
    .map((folder) => join(folder, name))
    .find((path) => existsSync(path)) ?? null;

const tail = (file: string): string => {
  try {
    return readFileSync(file, 'utf8').split('\n').slice(-15).join('\n');
  } catch {
    return '(no log)';
  }
};
