import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test, vi } from 'vitest';

/** Of a new process, as it were: it is computed once. */
const fresh = async () => {
  vi.resetModules();
  return (await import('../../infra/content/digests.ts')).runnerDigest();
};

// Files share modules: the next one to ask must not be told of the Python and the Node of here.
afterEach(() => {
  vi.unstubAllEnvs();
  vi.restoreAllMocks();
  vi.resetModules();
});

test('another Node or another Python is another runner', async () => {
  const bin = await mkdtemp(join(tmpdir(), 'sigrel-python-'));
  const python = async (version: string) => {
    await writeFile(join(bin, 'python3'), `#!/bin/sh\necho Python ${version}\n`);
    await chmod(join(bin, 'python3'), 0o755);
  };
  vi.stubEnv('PATH', bin);
  await python('3.11.7');
  const before = await fresh();
  expect(await fresh()).toBe(before);
  await python('3.12.0');
  const otherPython = await fresh();
  expect(otherPython).not.toBe(before);
  vi.spyOn(process, 'version', 'get').mockReturnValue('v99.0.0');
  expect(await fresh()).not.toBe(otherPython);
  await rm(bin, { recursive: true });
});

test('what was found out under another PATH is forgotten', async () => {
  const found = await (await import('../../infra/content/digests.ts')).runnerDigest();
  expect(found).toBe(await fresh());
});
