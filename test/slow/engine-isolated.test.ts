import { readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, readFile, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { isolationLine } from '../../apps/cli/commands/engines.ts';
import { defaultLimits, runIsolated } from '../../infra/engines/isolated.ts';
import { onPath } from '../../infra/servers/processes.ts';

let cwd: string;
beforeAll(async () => {
  cwd = await mkdtemp(join(tmpdir(), 'sigrel-isolated-'));
});
afterAll(() => rm(cwd, { recursive: true }));

const shell = (script: string, limits: Partial<typeof defaultLimits> = {}, signal?: AbortSignal) =>
  runIsolated(['sh', '-c', script], { cwd, limits: { ...defaultLimits, ...limits }, ...(signal ? { signal } : {}) });

/** Processes are found by what they were started with: inside, they have other numbers than outside. */
const running = (argument: string): readonly number[] =>
  readdirSync('/proc').flatMap((name) => {
    try {
      const words = readFileSync(`/proc/${name}/cmdline`, 'utf8').split('\0');
      return /^\d+$/.test(name) && words.includes(argument) && words[0] !== 'sh' && words[0] !== 'unshare'
        ? [Number(name)]
        : [];
    } catch {
      return [];
    }
  });

test('ends with its exit code and the end of what it said', async () => {
  expect(await shell('echo out; echo err >&2; exit 3')).toMatchObject({ exit: 3, signal: null, timedOut: false });
  const { output } = await shell('yes | head -c 100000; echo the end');
  expect(output).toHaveLength(16_384);
  expect(output.endsWith('the end\n')).toBe(true);
});

test('a time limit kills the whole group, not only the leader', async () => {
  const ended = shell('sleep 300.1 & wait', { wallMs: 5_000 });
  await expect.poll(() => running('300.1')).toHaveLength(1);
  expect(await ended).toMatchObject({ timedOut: true, signal: 'SIGKILL' });
  await expect.poll(() => running('300.1')).toEqual([]);
});

test('a descendant that outlives the leader is killed and not waited for', async () => {
  expect(await shell('setsid sleep 300.2 & sleep 0.2')).toMatchObject({ exit: 0, timedOut: false });
  await expect.poll(() => running('300.2')).toEqual([]);
});

test('an abort kills the group and rejects with its reason', async () => {
  const abort = new AbortController();
  const started = shell('sleep 300.3 & wait', {}, abort.signal);
  started.catch(() => {});
  await expect.poll(() => running('300.3')).toHaveLength(1);
  abort.abort(new Error('enough'));
  await expect(started).rejects.toThrow('enough');
  await expect.poll(() => running('300.3')).toEqual([]);
  await expect(shell('touch late', {}, abort.signal)).rejects.toThrow('enough');
});

test('limits on processor time, file size and memory hold', async () => {
  expect(await shell('while :; do :; done', { cpuSeconds: 1 })).toMatchObject({ signal: 'SIGXCPU', timedOut: false });
  await shell('head -c 100000 /dev/zero > big', { fileBytes: 4096 });
  expect((await readFile(join(cwd, 'big'))).length).toBe(4096);
  expect((await shell('ulimit -v; ulimit -c', { addressSpaceBytes: 2 ** 30 })).output).toBe('1048576\n0\n');
});

test("the caller's environment stays outside", async () => {
  process.env.SIGREL_TEST_SECRET = 'secret';
  expect((await shell('env')).output).not.toContain('secret');
  delete process.env.SIGREL_TEST_SECRET;
});

test('a crash is told by its signal', async () => {
  expect(await shell('sh -c "kill -SEGV \\$\\$"; exit 7')).toMatchObject({ exit: 7 });
  expect(await shell('kill -SEGV $$')).toMatchObject({ exit: null, signal: 'SIGSEGV', timedOut: false });
});

test('a fork bomb is ended with everything that it started, and nobody else feels it', async () => {
  const bomb = 'bomb() { bomb 300.4 | bomb 300.4 & sleep 300.4; }; bomb';
  const ended = await runIsolated(['bash', '-c', bomb], { cwd, limits: { ...defaultLimits, wallMs: 10_000 } });
  expect(ended.exceeded).toMatch(/more than 64 processes/);
  expect(ended).toMatchObject({ signal: 'SIGKILL', timedOut: false });
  await expect.poll(() => running('300.4')).toEqual([]);
});

test('an allocation without end is refused by the address space, or ended by what is resident', async () => {
  const grow = 'let all = []; for (;;) all.push(Buffer.alloc(16 * 2 ** 20, 1));';
  const node = (limits: Partial<typeof defaultLimits>) =>
    runIsolated([process.execPath, '-e', grow], { cwd, limits: { ...defaultLimits, wallMs: 20_000, ...limits } });
  const resident = await node({ addressSpaceBytes: null, residentBytes: 300 * 2 ** 20 });
  expect(resident.exceeded).toMatch(/MB of memory/);
  expect(resident.timedOut).toBe(false);
  const all = 'x=$(head -c 100G /dev/zero | tr "\\0" x)';
  const refused = await runIsolated(['bash', '-c', all], {
    cwd,
    limits: { ...defaultLimits, wallMs: 20_000, addressSpaceBytes: 256 * 2 ** 20 },
  });
  expect(refused.timedOut).toBe(false);
  expect(refused.exit === 0).toBe(false);
}, 45_000);

test('the memory of all processes together is what counts, and the largest of one is told', async () => {
  // Each holds 150 MB and writes to one that does not read.
  const hold = '{ head -c 150M /dev/zero | tail -c 150M | sleep 300.6; } &';
  const limits = { wallMs: 20_000, residentBytes: 400 * 2 ** 20 };
  const many = await shell(`${hold} ${hold} ${hold} ${hold} wait`, limits);
  expect(many).toMatchObject({ exceeded: expect.stringMatching(/MB of memory/), timedOut: false });
  expect(many.peakBytes).toBeLessThan(200 * 2 ** 20);
  await expect.poll(() => running('300.6')).toEqual([]);
}, 30_000);

test('the largest resident size is told', async () => {
  const { peakBytes } = await runIsolated(
    [process.execPath, '-e', 'const all = Buffer.alloc(200 * 2 ** 20, 1); setTimeout(() => all, 300)'],
    { cwd, limits: { ...defaultLimits, addressSpaceBytes: null } },
  );
  expect(peakBytes).toBeGreaterThan(200 * 2 ** 20);
});

test('what is started by another thread than the first counts too', async () => {
  const bomb = `import subprocess, threading
threading.Thread(target=lambda: [p.wait() for p in [subprocess.Popen(['sleep', '300.5']) for _ in range(70)]]).start()`;
  const ended = await runIsolated(['python3', '-c', bomb], { cwd, limits: { ...defaultLimits, wallMs: 10_000 } });
  expect(ended.exceeded).toMatch(/more than 64 processes/);
  await expect.poll(() => running('300.5')).toEqual([]);
});

test('without a process namespace, what left the group is not waited for', async () => {
  const bin = await mkdtemp(join(tmpdir(), 'sigrel-bin-'));
  for (const name of ['sh', 'setsid', 'sleep']) await symlink(onPath(name) ?? '', join(bin, name));
  vi.stubEnv('PATH', bin); // neither unshare nor prlimit
  vi.resetModules();
  const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
  try {
    const weak = await import('../../infra/engines/isolated.ts');
    expect(await weak.isolation()).toEqual({ processes: false, network: false, limits: false });
    const started = performance.now();
    const options = { cwd, limits: defaultLimits };
    const ended = await weak.runIsolated(['sh', '-c', 'echo said; setsid sleep 8.6 & sleep 0.3'], options);
    expect(ended).toMatchObject({ exit: 0, timedOut: false, output: 'said\n' });
    expect(performance.now() - started).toBeLessThan(6_000);
    expect(warned).toHaveBeenCalledTimes(2);
  } finally {
    vi.unstubAllEnvs();
    warned.mockRestore();
    await rm(bin, { recursive: true });
  }
}, 15_000);

test('people are told what is hard and what is not', () => {
  expect(isolationLine({ processes: true, network: true, limits: true })).toBe(
    'isolation: own processes, no network, hard limits',
  );
  expect(isolationLine({ processes: false, network: false, limits: false })).toContain('a limit of time only');
});
