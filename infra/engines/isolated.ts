/** One engine run: a process group of its own, hard limits, no network, killed as a group. */
import { spawn } from 'node:child_process';
import { SigrelError } from '../../domain/errors.ts';
import { onPath } from '../servers/processes.ts';

export type Limits = {
  readonly wallMs: number;
  readonly cpuSeconds: number;
  readonly addressSpaceBytes: number;
  readonly fileBytes: number;
};

/** Generous for a few hundred rules (a load takes 0.1 s and 60 MB), and an end to a rule that eats the processor. */
export const defaultLimits: Limits = {
  wallMs: 60_000,
  cpuSeconds: 60,
  addressSpaceBytes: 4 * 2 ** 30,
  fileBytes: 256 * 2 ** 20,
};

export type Ended = {
  readonly exit: number | null;
  readonly signal: string | null;
  readonly timedOut: boolean;
  /** The end of both outputs, 16 KB at most. */
  readonly output: string;
};

let networkless: Promise<readonly string[]> | undefined;

/**
 * Runs the command to its end; the group is gone when it resolves. Rejects only when the command cannot be limited or the
 * caller aborts (with the signal's reason), never for what the engine does.
 */
export const runIsolated = async (
  command: readonly string[],
  options: { readonly cwd: string; readonly limits: Limits; readonly signal?: AbortSignal },
): Promise<Ended> => {
  const { wallMs, cpuSeconds, addressSpaceBytes, fileBytes } = options.limits;
  networkless ??= findNetworkless();
  const args = [
    // One second between the soft and the hard limit: the engine dies of SIGXCPU, which tells it from any other kill.
    ...[`--cpu=${cpuSeconds}:${cpuSeconds + 1}`, `--as=${addressSpaceBytes}`, `--fsize=${fileBytes}`],
    ...['--core=0', '--', ...(await networkless), ...command],
  ];
  options.signal?.throwIfAborted();
  return new Promise((resolve, reject) => {
    const child = spawn('prlimit', args, {
      cwd: options.cwd,
      detached: true, // leads a group: killing only the wrapper would leave the engine running
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { PATH: process.env.PATH ?? '', LC_ALL: 'C', HOME: options.cwd, TMPDIR: options.cwd },
    });
    let output = '';
    let timedOut = false;
    const keep = (chunk: Buffer) => {
      output = (output + chunk.toString('utf8')).slice(-16_384);
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    const kill = () => {
      if (child.pid === undefined) return;
      try {
        process.kill(-child.pid, 'SIGKILL');
      } catch {
        // nobody is left in the group
      }
    };
    const timer = setTimeout(() => {
      timedOut = true;
      kill();
    }, wallMs);
    const settle = (finish: () => void) => {
      clearTimeout(timer);
      options.signal?.removeEventListener('abort', kill);
      finish();
    };
    options.signal?.addEventListener('abort', kill, { once: true });
    child.on('error', (cause) =>
      settle(() =>
        reject(
          new SigrelError('SRP_DEP_PRLIMIT', 'prlimit could not be started: install the package util-linux', { cause }),
        ),
      ),
    );
    // A descendant that outlives the leader would hold the pipes open, and `close` would wait for it.
    child.on('exit', kill);
    child.on('close', (exit, signal) =>
      settle(() =>
        options.signal?.aborted ? reject(options.signal.reason) : resolve({ exit, signal, timedOut, output }),
      ),
    );
  });
};

/** `unshare` where this user may use it; in a container it often may not, which is said once. */
const findNetworkless = async (): Promise<readonly string[]> => {
  for (const flags of onPath('unshare') === null ? [] : [['--net'], ['--map-root-user', '--net']]) {
    const works = await new Promise<boolean>((resolve) => {
      const probe = spawn('unshare', [...flags, '--', 'true'], { stdio: 'ignore' });
      probe.on('error', () => resolve(false));
      probe.on('close', (code) => resolve(code === 0));
    });
    if (works) return ['unshare', ...flags, '--'];
  }
  process.emitWarning('engines run with this machine\'s network: "unshare --net" is not allowed for this user here');
  return [];
};
