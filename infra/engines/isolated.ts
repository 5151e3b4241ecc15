/** One engine run: a process group of its own, hard limits, no network, killed as a group. */
import { spawn } from 'node:child_process';
import { onPath } from '../servers/processes.ts';

export type Limits = {
  readonly wallMs: number;
  readonly cpuSeconds: number;
  readonly addressSpaceBytes: number;
  readonly fileBytes: number;
};

/** Generous for a few hundred rules (a load takes 0.5 s and 60 MB), and an end to a rule that eats the processor. */
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

/** Runs the command to its end. Never rejects for what the engine does; the group is gone when it resolves. */
export const runIsolated = async (
  command: readonly string[],
  options: { readonly cwd: string; readonly limits: Limits; readonly signal?: AbortSignal },
): Promise<Ended> => {
  networkless ??= findNetworkless();
  const { wallMs, cpuSeconds, addressSpaceBytes, fileBytes } = options.limits;
  const wrapped = [
    ...['prlimit', `--cpu=${cpuSeconds}`, `--as=${addressSpaceBytes}`, `--fsize=${fileBytes}`],
    ...['--core=0', '--', ...(await networkless), ...command],
  ];
  const [program = '', ...args] = wrapped;
  return new Promise((resolve) => {
    const child = spawn(program, args, {
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
    options.signal?.addEventListener('abort', kill, { once: true });
    if (options.signal?.aborted) kill();
    const end = (exit: number | null, signal: string | null) => {
      clearTimeout(timer);
      options.signal?.removeEventListener('abort', kill);
      kill();
      resolve({ exit, signal, timedOut, output });
    };
    child.on('error', (error) => {
      output += error.message;
      end(null, 'not started');
    });
    child.on('close', end);
  });
};

/** `unshare` where this user may use it; in a container it often may not, and then loopback is all there is to lose. */
const findNetworkless = async (): Promise<readonly string[]> => {
  if (onPath('unshare') === null) return [];
  for (const flags of [['-n'], ['-r', '-n']]) {
    const works = await new Promise<boolean>((resolve) => {
      const probe = spawn('unshare', [...flags, '--', 'true'], { stdio: 'ignore' });
      probe.on('error', () => resolve(false));
      probe.on('close', (code) => resolve(code === 0));
    });
    if (works) return ['unshare', ...flags, '--'];
  }
  return [];
};
