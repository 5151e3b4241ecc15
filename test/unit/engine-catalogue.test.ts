import { expect, test } from 'vitest';
import type { EngineBuild } from '../../domain/release.ts';
import { createEngines } from '../../infra/engines/catalogue.ts';
import type { Pack } from '../../infra/engines/packs.ts';
import { createEngineRunner } from '../../infra/engines/runner.ts';

const buildOf = (version: string, digest = 'a'): EngineBuild => ({
  ...{ name: 'suricata', version, packageVersion: `1:${version}-1`, digest: digest.repeat(64) },
});

/** Packs by the version that is asked for; nothing is fetched before it is acquired. */
const enginesOf = (packs: Readonly<Record<string, EngineBuild>>) => {
  const fetched: string[] = [];
  const engines = createEngines(() => {}, {
    list: async () =>
      Object.entries(packs).map(([version, build]) => ({
        ...{ name: 'suricata', version, source: 'Debian', dir: `/packs/${version}` },
        build: fetched.includes(`suricata@${version}`) ? build : null,
      })),
    acquire: async (name): Promise<Pack | undefined> => {
      fetched.push(name);
      const wanted = name.slice(name.indexOf('@') + 1);
      const build = packs[wanted];
      return build && { build, dir: `/packs/${wanted}`, wanted };
    },
  });
  return { engines, fetched };
};

test('where the archive has moved on, nobody has the version that it was asked for; the one it has is found', async () => {
  const { engines, fetched } = enginesOf({ '8.0.7': buildOf('8.0.8') });
  expect(await engines.find('suricata@8.0.7')).toBeNull();
  expect(await engines.find('suricata@8.0.8')).toEqual(buildOf('8.0.8'));
  expect(await engines.dirOf(buildOf('8.0.8'))).toBe('/packs/8.0.7');
  expect(await engines.dirOf(buildOf('8.0.7'))).toBeNull();
  expect(fetched).toEqual(['suricata@8.0.7']);
});

test('two packs that print the same version are two engines, each with its own pack', async () => {
  const { engines } = enginesOf({ '8.0.7': buildOf('8.0.8', 'a'), '8.0.8': buildOf('8.0.8', 'b') });
  await engines.find('suricata@8.0.7'); // fetched from now on
  expect(await engines.dirOf(buildOf('8.0.8', 'a'))).toBe('/packs/8.0.7');
  expect(await engines.dirOf(buildOf('8.0.8', 'b'))).toBe('/packs/8.0.8');
  expect(await engines.dirOf(buildOf('8.0.8', 'c'))).toBeNull();
});

test('a build whose digest only begins like that of a pack is not the pack', async () => {
  const { engines } = enginesOf({ '8.0.7': buildOf('8.0.7') });
  const forged = { ...buildOf('8.0.7'), digest: `${'a'.repeat(8)}${'b'.repeat(56)}` };
  expect(await engines.dirOf(buildOf('8.0.7'))).toBe('/packs/8.0.7');
  expect(await engines.dirOf(forged)).toBeNull();
  const pack = { build: buildOf('8.0.7'), dir: '/packs/8.0.7', wanted: '8.0.7' };
  const input = { rules: new Uint8Array(), inputs: [], mode: 'ids' } as const;
  expect(await createEngineRunner([pack]).run(forged, input, new AbortController().signal)).toBeNull();
});

test('what nobody knows is not fetched', async () => {
  const { engines, fetched } = enginesOf({ '8.0.7': buildOf('8.0.7') });
  expect(await engines.find('suricata@5.0.2')).toBeNull();
  expect(await engines.find('yara@8.0.7')).toBeNull();
  expect(fetched).toEqual([]);
});

test('a source that did not answer is asked again', async () => {
  let down = true;
  const engines = createEngines(() => {}, {
    list: async () => [{ name: 'yara', version: '4.5.2', source: 'Debian', dir: '/packs/y', build: null }],
    acquire: async () => {
      if (down) throw new Error('no answer');
      return { build: { ...buildOf('4.5.2'), name: 'yara' }, dir: '/packs/y', wanted: '4.5.2' };
    },
  });
  await expect(engines.find('yara@4.5.2')).rejects.toThrow('no answer');
  down = false;
  expect(await engines.find('yara@4.5.2')).toMatchObject({ name: 'yara' });
});
