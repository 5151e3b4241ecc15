import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { cleanUp } from '../support/clean-up.ts';
import { startPipeline } from '../support/pipeline.ts';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sigrel-clean-up-'));
  vi.stubEnv('TMPDIR', dir);
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(dir, { recursive: true, force: true });
});

test('every step is taken, and the first failure is thrown', async () => {
  const taken: number[] = [];
  const step = (n: number, why?: string) => async () => {
    taken.push(n);
    if (why !== undefined) throw new Error(why);
  };
  await expect(cleanUp([step(1), step(2, 'first'), step(3, 'second'), step(4)])).rejects.toThrow('first');
  expect(taken).toEqual([1, 2, 3, 4]);
});

test('a pipeline that cannot start says why, and leaves nothing behind', async () => {
  const starting = startPipeline({
    ...{ namespace: 'none', devices: 1, temporalAddress: '127.0.0.1:1', kafkaBrokers: ['127.0.0.1:1'] },
    postgresUrl: 'postgres://127.0.0.1:1/none',
  });
  await expect(starting).rejects.toThrow('ECONNREFUSED');
  expect(await readdir(dir)).toEqual([]);
});
