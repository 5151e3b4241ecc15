import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import data from '../../infra/engines/packs.json' with { type: 'json' };
import { acquirePacks, packsOf } from '../../infra/engines/packs.ts';

let cache: string;
beforeEach(async () => {
  cache = await mkdtemp(join(tmpdir(), 'sigrel-packs-'));
  vi.stubEnv('XDG_CACHE_HOME', cache);
  vi.stubEnv('PATH', cache); // nothing can be started, so nothing can be fetched
});
afterEach(async () => {
  vi.unstubAllEnvs();
  vi.resetModules(); // files share modules, and some remember what there is on the PATH
  await rm(cache, { recursive: true });
});

/** The digest of a pack without any file, as the packs below are. */
const noFiles = createHash('sha256').digest('hex');

const store = async (source: string, engine: string, wanted: string, version: string) => {
  const dir = join(cache, 'sigrel', 'engines', `${source}-${engine}-for-${wanted}`);
  const build = { name: engine, version, packageVersion: `1:${version}-1`, digest: noFiles };
  await mkdir(dir, { recursive: true });
  await writeFile(join(dir, 'pack.json'), JSON.stringify(build));
  return { build, dir, wanted };
};

test('packs in the cache are used as they are; a version that the suite moved to is used under its own name, and said', async () => {
  const stored = [];
  for (const { engine, debian, version } of data.packs) {
    if (engine !== 'suricata' || !debian) continue;
    stored.push(await store(debian, engine, version, debian === 'sid' ? '8.9.1' : version));
  }
  const said: string[] = [];
  expect(await acquirePacks((line) => said.push(line), packsOf(['suricata']))).toEqual(stored);
  expect(said).toEqual(['suricata 8.0.7 of Debian sid is 8.9.1 (1:8.9.1-1) by now: used as an engine of its own']);
});

test('a pack whose files were changed is refused: its engine answers for another one', async () => {
  const { dir } = await store('bullseye', 'yara', '4.0.5', '4.0.5');
  await writeFile(join(dir, 'program'), 'something else');
  await expect(acquirePacks(() => {}, ['yara@4.0.5'])).rejects.toMatchObject({
    code: 'SRP_INTEGRITY_PACK',
    message: expect.stringContaining('have changed'),
  });
});

test('every entry has exactly one source and a name of its own', () => {
  const names = data.packs.map(({ engine, version }) => `${engine}@${version}`);
  expect(new Set(names).size).toBe(names.length);
  for (const pack of data.packs) {
    const sources = (['debian', 'npm', 'pypi'] as const).filter((source) => source in pack);
    expect([pack.version, sources.length]).toEqual([pack.version, 1]);
  }
});

test('an engine that nobody has is named with those that there are', async () => {
  await expect(acquirePacks(() => {}, ['suricata@5.0.2'])).rejects.toMatchObject({
    code: 'SRP_MISSING_ENGINE',
    message: expect.stringContaining('suricata@6.0.1'),
  });
});

test('without a cache and without apt, the missing program and its package are named', async () => {
  await expect(acquirePacks(() => {}, ['clamav@0.103.10'])).rejects.toMatchObject({
    code: 'SRP_DEP_APT',
    message: expect.stringContaining('install the package apt'),
  });
});
