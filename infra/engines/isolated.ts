/** One engine run: processes of its own, hard limits, no network, ended all together. */
import { spawn } from 'node:child_process';
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { SigrelError } from '../../domain/errors.ts';
import { onPath } from '../servers/processes.ts';

export type Limits = {
  readonly wallMs: number;
  readonly cpuSeconds: number;
  /** null: not limited, for runtimes that reserve far more than they use (WebAssembly, Python's native code). */
  readonly addressSpaceBytes: number | null;
  /** Of all its processes together, looked at while it runs: what grows faster is ended by the address space, or by the kernel. */
  readonly residentBytes: number;
  readonly fileBytes: number;
};

/** Generous for a few hundred rules (a load takes 0.1 s and 60 MB), and an end to a rule that eats the processor. */
export const defaultLimits: Limits = {
  wallMs: 60_000,
  cpuSeconds: 60,
  addressSpaceBytes: 4 * 2 ** 30,
  residentBytes: 3 * 2 ** 30,
  fileBytes: 256 * 2 ** 20,
};

/** After its end: what it wrote last is read long before. */
const mostClosingMs = 2_000;

/** An engine has a handful; a fork bomb has as many as it is allowed. */
const mostProcesses = 64;

export type Ended = {
  readonly exit: number | null;
  readonly signal: string | null;
  readonly timedOut: boolean;
  /** Why it was ended before its time, for people; null: it was not. */
  readonly exceeded: string | null;
  /** The end of both outputs, 16 KB at most. */
  readonly output: string;
  /** Largest resident size of one of the engine's processes, sampled; null where /proc does not tell. */
  readonly peakBytes: number | null;
};

/** Often at first: a small run is over after a few of these. */
const sampleEveryMs = (sinceMs: number): number => (sinceMs < 200 ? 8 : 20);

const read = (path: string): string => {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return ''; // ended, or no such system
  }
};

const threadsOf = (pid: number): readonly string[] => {
  try {
    return readdirSync(`/proc/${pid}/task`);
  } catch {
    return [];
  }
};

/** The process and what any of its threads started, at most `most` of them. */
const family = (pid: number, most: number): readonly number[] => {
  const found = [pid];
  for (let at = 0; at < found.length && found.length <= most; at += 1) {
    for (const thread of threadsOf(found[at] ?? 0)) {
      const children = read(`/proc/${found[at]}/task/${thread}/children`).split(' ');
      found.push(...children.filter((one) => one !== '').map(Number));
    }
  }
  return found;
};

/** Resident now, and the kernel's own high-water mark: a late sample misses only what was added since. */
const residentOf = (pid: number): { readonly now: number; readonly peak: number } => {
  const status = read(`/proc/${pid}/status`);
  const bytes = (field: RegExp) => Number(field.exec(status)?.[1] ?? 0) * 1024;
  return { now: bytes(/^VmRSS:\s+(\d+) kB$/m), peak: bytes(/^VmHWM:\s+(\d+) kB$/m) };
};

let wrapping: Promise<readonly string[]> | undefined;

export type Isolation = { readonly processes: boolean; readonly network: boolean; readonly limits: boolean };

/** What this machine and user allow: processes and network of its own for each run, and limits that the kernel keeps. */
export const isolation = async (): Promise<Isolation> => {
  wrapping ??= findWrapping();
  const flags = await wrapping;
  return { processes: flags.includes('--pid'), network: flags.includes('--net'), limits: hasPrlimit() };
};

/**
 * Runs the command to its end; nothing of it is left when this resolves. Rejects only when the command cannot be limited or
 * the caller aborts (with the signal's reason), never for what the engine does.
 */
export const runIsolated = async (
  command: readonly string[],
  options: {
    readonly cwd: string;
    readonly limits: Limits;
    readonly signal?: AbortSignal;
    readonly env?: Readonly<Record<string, string>>;
    /** Where its standard output goes, whole; without it only the end is kept. */
    readonly outputFile?: string;
  },
): Promise<Ended> => {
  const { wallMs, cpuSeconds, addressSpaceBytes, residentBytes, fileBytes } = options.limits;
  wrapping ??= findWrapping();
  const before = await wrapping;
  const limited = [
    'prlimit',
    // One second between the soft and the hard limit: the engine dies of SIGXCPU, which tells it from any other kill.
    ...[`--cpu=${cpuSeconds}:${cpuSeconds + 1}`, `--fsize=${fileBytes}`, '--core=0'],
    ...(addressSpaceBytes === null ? [] : [`--as=${addressSpaceBytes}`]),
    '--',
  ];
  const [program = '', ...args] = [...before, ...(hasPrlimit() ? limited : []), ...command];
  options.signal?.throwIfAborted();
  const out = options.outputFile === undefined ? null : openSync(options.outputFile, 'w');
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      cwd: options.cwd,
      detached: true, // leads a group: killing only the wrapper would leave the engine running
      stdio: ['ignore', out ?? 'pipe', 'pipe'],
      env: { PATH: process.env.PATH ?? '', LC_ALL: 'C', HOME: options.cwd, TMPDIR: options.cwd, ...options.env },
    });
    let output = '';
    let timedOut = false;
    let exceeded: string | null = null;
    let peakBytes: number | null = null;
    const keep = (chunk: Buffer) => {
      output = (output + chunk.toString('utf8')).slice(-16_384);
    };
    if (out !== null) closeSync(out);
    child.stdout?.on('data', keep);
    child.stderr?.on('data', keep);
    const kill = () => {
      if (child.pid === undefined) return;
      try {
        process.kill(-child.pid, 'SIGKILL');
      } catch {
        // nobody is left in the group
      }
    };
    const exceed = (why: string): void => {
      exceeded ??= why;
      kill();
    };
    const wrappers = before.includes('sh') ? 2 : 0;
    const started = performance.now();
    const look = () => {
      sampling = setTimeout(look, sampleEveryMs(performance.now() - started));
      if (child.pid === undefined) return;
      const all = family(child.pid, mostProcesses);
      // The wrappers before the engine are small and always there.
      const resident = all.slice(wrappers).map(residentOf);
      const peak = Math.max(0, ...resident.map((one) => one.peak));
      if (peak > 0) peakBytes = Math.max(peakBytes ?? 0, peak);
      const used = resident.reduce((sum, one) => sum + one.now, 0);
      // What was taken and given back between two looks was used as well.
      const most = Math.max(used, peak);
      if (most > residentBytes) exceed(`ended: it used ${Math.round(most / 2 ** 20)} MB of memory`);
      if (all.length > mostProcesses) exceed(`ended: it started more than ${mostProcesses} processes`);
    };
    let sampling = setTimeout(look, 0);
    const timer = setTimeout(() => {
      timedOut = true;
      kill();
    }, wallMs);
    const settle = (finish: () => void) => {
      clearTimeout(timer);
      clearTimeout(sampling);
      options.signal?.removeEventListener('abort', kill);
      finish();
    };
    options.signal?.addEventListener('abort', kill, { once: true });
    child.on('error', (cause) =>
      settle(() =>
        reject(new SigrelError('SRP_DEP_START', `${program} could not be started: ${cause.message}`, { cause })),
      ),
    );
    // A descendant that outlives the leader would hold the pipes open, and `close` would wait for it: also one that left the
    // group, where there is no process namespace to end it with.
    let closing: NodeJS.Timeout | undefined;
    child.on('exit', () => {
      kill();
      closing = setTimeout(() => {
        child.stdout?.destroy();
        child.stderr?.destroy();
      }, mostClosingMs);
    });
    child.on('close', (code, signal) => {
      clearTimeout(closing);
      settle(() => {
        if (options.signal?.aborted) return reject(options.signal.reason);
        const ended = { exceeded, timedOut, output, peakBytes };
        resolve({ ...ended, ...endOf(code, signal, before.length > 0) });
      });
    });
  });
};

/** A wrapper that waits for the engine tells its signal as 128 and the signal's number, as a shell does. */
const endOf = (exit: number | null, signal: string | null, wrapped: boolean): Pick<Ended, 'exit' | 'signal'> => {
  if (!wrapped || exit === null || exit <= 128 || exit > 128 + 31) return { exit, signal };
  const name = signals[exit - 128];
  return name === undefined ? { exit, signal } : { exit: null, signal: name };
};
const signals: Readonly<Record<number, string>> = {
  ...{ 4: 'SIGILL', 6: 'SIGABRT', 7: 'SIGBUS', 8: 'SIGFPE', 9: 'SIGKILL', 11: 'SIGSEGV', 15: 'SIGTERM' },
  ...{ 24: 'SIGXCPU', 25: 'SIGXFSZ', 31: 'SIGSYS' },
};

let prlimitThere: boolean | undefined;

const hasPrlimit = (): boolean => {
  if (prlimitThere === undefined) {
    prlimitThere = onPath('prlimit') !== null;
    if (!prlimitThere)
      process.emitWarning('engines run with a limit of time only: there is no prlimit (util-linux) here');
  }
  return prlimitThere;
};

/** The first process of a namespace ignores most signals: an engine that crashes must not be the first. */
const first = ['sh', '-c', '"$@"; exit $?', 'sh'];

/**
 * `unshare` as far as this user may use it: without network, and in a process namespace of its own, whose end is the end of
 * everything in it, whatever group or session it moved to.
 */
const findWrapping = async (): Promise<readonly string[]> => {
  const apart = ['--pid', '--fork', '--kill-child'];
  const ways = [['--net', ...apart], ['--map-root-user', '--net', ...apart], ['--net'], ['--map-root-user', '--net']];
  for (const flags of onPath('unshare') === null ? [] : ways) {
    const works = await new Promise<boolean>((resolve) => {
      const probe = spawn('unshare', [...flags, '--', 'true'], { stdio: 'ignore' });
      probe.on('error', () => resolve(false));
      probe.on('close', (code) => resolve(code === 0));
    });
    if (works) return ['unshare', ...flags, '--', ...(flags.includes('--pid') ? first : [])];
  }
  process.emitWarning('engines run with this machine\'s network: "unshare --net" is not allowed for this user here');
  return [];
};
