import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { defaultLimits, runIsolated } from '../../infra/engines/isolated.ts';
import { identify } from '../../infra/servers/processes.ts';

let cwd: string;
beforeAll(async () => {
  cwd = await mkdtemp(join(tmpdir(), 'sigrel-isolated-'));
});
afterAll(() => rm(cwd, { recursive: true }));

const shell = (script: string, limits: Partial<typeof defaultLimits> = {}, signal?: AbortSignal) =>
  runIsolated(['sh', '-c', script], { cwd, limits: { ...defaultLimits, ...limits }, ...(signal ? { signal } : {}) });

/** A killed orphan may stay a zombie where process 1 does not reap. */
const isAlive = (pid: number): boolean => identify(pid) !== null;
const recorded = async (file: string) => Number(await readFile(join(cwd, file), 'utf8'));

test('ends with its exit code and the end of what it said', async () => {
  expect(await shell('echo out; echo err >&2; exit 3')).toMatchObject({ exit: 3, signal: null, timedOut: false });
  const { output } = await shell('yes | head -c 100000; echo the end');
  expect(output).toHaveLength(16_384);
  expect(output.endsWith('the end\n')).toBe(true);
});

test('a time limit kills the whole group, not only the leader', async () => {
  const ended = await shell('sleep 300 & echo $! > sleeper; wait', { wallMs: 2_000 });
  expect(ended).toMatchObject({ timedOut: true, signal: 'SIGKILL' });
  await expect.poll(async () => isAlive(await recorded('sleeper'))).toBe(false);
});

test('a descendant that outlives the leader is killed and not waited for', async () => {
  expect(await shell('sleep 300 & echo $! > orphan')).toMatchObject({ exit: 0, timedOut: false });
  await expect.poll(async () => isAlive(await recorded('orphan'))).toBe(false);
});

test('an abort kills the group and rejects with its reason', async () => {
  const abort = new AbortController();
  const running = shell('sleep 300 & echo $! > aborted; wait', {}, abort.signal);
  await expect.poll(() => recorded('aborted').catch(() => 0)).toBeGreaterThan(0);
  abort.abort(new Error('enough'));
  await expect(running).rejects.toThrow('enough');
  await expect.poll(async () => isAlive(await recorded('aborted'))).toBe(false);
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
