/** The workflow that freezes a family, on a real store: what it records when a thaw is refused, and when it cannot be done yet. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client, Connection } from '@temporalio/client';
import { NativeConnection } from '@temporalio/worker';
import { afterAll, afterEach, beforeAll, expect, inject, test } from 'vitest';
import { SigrelError } from '../../domain/errors.ts';
import type { DirectorStore } from '../../domain/ports.ts';
import { silent } from '../../infra/kafka/client.ts';
import { createMemoryFamilyLog, type MemoryFamilyLog } from '../../infra/memory/family-log.ts';
import { createFileBlobs } from '../../infra/store/blobs.ts';
import { createDirectorStore } from '../../infra/tuf/director-store.ts';
import { freezeFamily, thawFamily } from '../../services/api/freeze.ts';
import { bundleFreeze, startFreezer } from '../../services/freezer.ts';
import { engineA } from '../support/devices.ts';
import { patient } from '../support/patience.ts';

const namespace = 'freeze-workflow';

let bundle: Awaited<ReturnType<typeof bundleFreeze>>;
const ended: (() => Promise<unknown>)[] = [];
beforeAll(async () => {
  bundle = await bundleFreeze();
});
const end = async (): Promise<void> => {
  for (const one of ended.splice(0).reverse()) await one();
};
afterEach(end);
afterAll(end);

/** `thaw`: what becomes of a thaw that the worker wants to do. */
const openFamily = async (family: string, thaw: (director: DirectorStore) => DirectorStore['thaw']) => {
  const root = await mkdtemp(join(tmpdir(), 'sigrel-freezer-'));
  ended.push(() => rm(root, { recursive: true, force: true }));
  const dir = join(root, 'store');
  const blobs = createFileBlobs(join(dir, 'blobs'));
  const director = createDirectorStore({ dir, keysDir: join(root, 'keys'), blobs, now: Date.now });
  await director.initialiseFamily(family, [{ engine: engineA, bytes: new Uint8Array(1) }]);
  const connection = await Connection.connect({ address: inject('temporalAddress') });
  ended.push(() => connection.close());
  const native = await NativeConnection.connect({ address: inject('temporalAddress') });
  ended.push(() => native.close());
  const familyLog = createMemoryFamilyLog();
  const freezer = await startFreezer({
    ...{ connection: native, namespace, bundle, familyLog, log: silent },
    director: { freeze: director.freeze, thaw: thaw(director) },
  });
  ended.push(freezer.stop);
  const ports = { temporal: new Client({ connection, namespace }), director, now: Date.now };
  return { director, familyLog, ports };
};
const told = ({ events }: MemoryFamilyLog) => events.map(({ type, data }) => [type, 'by' in data ? data.by : '']);

test('a thaw that another freeze refuses is followed by what stands, each time', async () => {
  const { director, familyLog, ports } = await openFamily('refused', (real) => real.thaw);
  const byHand = {
    ...{ freezeId: 'break-glass/1', by: 'eve', reason: 'by hand', at: new Date().toISOString(), until: null },
  };
  const once = [
    ['FamilyFrozen', 'sam'],
    ['FamilyThawed', 'ann'],
    ['FamilyFrozen', 'eve'],
  ];
  for (const rounds of [1, 2]) {
    await freezeFamily(ports, 'refused', { by: 'sam', reason: 'r', until: null });
    await director.freeze('refused', byHand);
    const left = await thawFamily(ports, 'refused', { by: 'ann', reason: 'r' });
    expect(left).toEqual({ family: 'refused', thawed: false, freeze: byHand });
    await expect.poll(() => told(familyLog), patient).toEqual(rounds === 1 ? once : [...once, ...once]);
    // The workflow is over: the next freeze is one of its own.
    await expect
      .poll(() => thawFamily(ports, 'refused', { by: 'ann', reason: 'r' }).catch(({ code }) => code), patient)
      .toBe('SRP_RULE_BREAK_GLASS');
  }
  const { document } = await director.read('refused');
  const { at, ...said } = byHand;
  expect(familyLog.events.at(-1)?.data).toEqual({
    ...{ ...said, frozenAt: Date.parse(at), directorVersion: document.directorVersion },
  });
  // Whoever reads takes each id once: none of them may hide another.
  expect(new Set(familyLog.events.map(({ eventId }) => eventId)).size).toBe(6);
});

test('a freeze does not wait for a thaw that cannot be done', async () => {
  let tried = 0;
  let works = false;
  const { director, familyLog, ports } = await openFamily('retried', (real) => async (family, freezeId) => {
    tried += 1;
    if (!works) throw new SigrelError('SRP_MISSING_KEY', 'the key is missing: bring it back');
    return real.thaw(family, freezeId);
  });
  await freezeFamily(ports, 'retried', { by: 'sam', reason: 'r', until: null });
  const thawing = thawFamily(ports, 'retried', { by: 'ann', reason: 'r' });
  await expect.poll(() => tried, patient).toBeGreaterThan(1);
  const again = await freezeFamily(ports, 'retried', { by: 'eve', reason: 'worse', until: null });
  expect(again.freeze).toMatchObject({ by: 'eve', reason: 'worse' });
  expect((await director.read('retried')).freeze).toEqual(again.freeze);
  expect(await thawing).toMatchObject({ thawed: false });

  works = true;
  expect(await thawFamily(ports, 'retried', { by: 'ann', reason: 'r' })).toMatchObject({ thawed: true, freeze: null });
  expect(told(familyLog)).toEqual([
    ['FamilyFrozen', 'sam'],
    ['FamilyThawed', 'ann'],
    ['FamilyFrozen', 'eve'],
    ['FamilyThawed', 'ann'],
  ]);
});
