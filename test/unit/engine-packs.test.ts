import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import data from '../../infra/engines/packs.json' with { type: 'json' };
import { acquirePacks } from '../../infra/engines/packs.ts';

let cache: string;
beforeEach(async () => {
  cache = await mkdtemp(join(tmpdir(), 'sigrel-packs-'));
  vi.stubEnv('XDG_CACHE_HOME', cache);
  vi.stubEnv('PATH', cache); // nothing can be started, so nothing can be fetched
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(cache, { recursive: true });
});

const store = async (suite: string, expected: string, version: string) => {
  const dir = join(cache, 'sigrel', 'engines', `${suite}-suricata-for-${expected}`);
  const build = { name: 'suricata', version, packageVersion: `1:${version}-1`, digest: 'ab'.repeat(32) };
  await mkdir(dir, { recursive: true });
  await writeFile(join(dir, 'pack.json'), JSON.stringify(build));
  return { build, dir, wanted: expected };
};

test('packs in the cache are used as they are; a version that the suite moved to is used under its own name, and said', async () => {
  const stored = [];
  for (const { suite, expected } of data.packs) {
    stored.push(await store(suite, expected, suite === 'sid' ? '8.9.1' : expected));
  }
  const said: string[] = [];
  expect(await acquirePacks((line) => said.push(line))).toEqual(stored);
  expect(said).toEqual(['suricata of Debian sid is 8.9.1 (1:8.9.1-1), not 8.0.7: used as an engine of its own']);
});

test('without a cache and without apt, the missing program and its package are named', async () => {
  await expect(acquirePacks(() => {})).rejects.toMatchObject({
    code: 'SRP_DEP_APT',
    message: expect.stringContaining('install the package apt'),
  });
});
