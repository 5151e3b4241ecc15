/** A release by sites, from the policy file and the inventory to what a device decides and says. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createRolloutActivities } from '../../activities/rollout.ts';
import { beat, newDevice } from '../../apps/device/cycle.ts';
import { readFleetFile } from '../../apps/simulator/fleet-file.ts';
import type { EnrolledDevice } from '../../domain/ports.ts';
import { engineId, segmentKey } from '../../domain/release.ts';
import type { ControlRecord } from '../../domain/telemetry.ts';
import { parsePolicy } from '../../events/policy-schema.ts';
import { policySchema } from '../../events/schemas.ts';
import { bucketOf } from '../../infra/cohort.ts';
import { checkReport } from '../../infra/device-auth.ts';
import { createMemoryInventory } from '../../infra/memory/inventory.ts';
import { createFileBlobs } from '../../infra/store/blobs.ts';
import { createDirectorStore } from '../../infra/tuf/director-store.ts';
import { signedReportSchema } from '../../services/report-schema.ts';
import { engineA } from '../support/devices.ts';

const family = 'ips';
const engine = engineId(engineA);
const segment = segmentKey(engine, 'fail-open');
const parsed = parsePolicy({ unit: 'site' });
if (!parsed.ok) throw new Error('the policy was refused');
const { policy } = parsed;

/** 30 pairs and 10 devices of no site. */
const devices: readonly EnrolledDevice[] = Array.from({ length: 70 }, (_, n) => ({
  ...{ deviceId: `device-${n}`, engine: engineA, failMode: 'fail-open', contentVersion: 1 },
  ...(n < 60 && { site: `site-${n >> 1}` }),
}));
const key = new Uint8Array(32).fill(7);

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sigrel-sites-'));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

test('the unit stands in the policy of every event, and is a device where none is named', () => {
  expect(policySchema.parse(policy)).toEqual(policy);
  expect(policy.unit).toBe('site');
  expect(parsePolicy({})).toMatchObject({ ok: true, policy: expect.not.objectContaining({ unit: 'site' }) });
  expect(parsePolicy({ unit: 'customer' }).ok).toBe(false);
});

test('a stage is planned and granted by sites, and both devices of a site want it or neither', async () => {
  const blobs = createFileBlobs(join(dir, 'blobs'));
  const director = createDirectorStore({ dir, keysDir: join(dir, 'keys'), blobs, now: Date.now });
  await director.initialiseFamily(family, [{ engine: engineA, bytes: new TextEncoder().encode('baseline') }]);
  const controls: ControlRecord[] = [];
  const rollout = createRolloutActivities({
    ...{ director, bucketOf, now: Date.now, heartbeat: () => {}, cancelled: () => new AbortController().signal },
    inventory: createMemoryInventory(devices),
    evidence: { judgeStatus: async () => null },
    watches: { note: async () => {}, lastSeen: async () => null },
    telemetry: { append: async () => {}, control: async (record) => void controls.push(record) },
  });
  const { salt, stages } = await rollout.planRollout({ releaseId: 'r1', family, policy, engines: [engine] });
  const [canary] = stages;
  const units = (list: readonly EnrolledDevice[]) => new Set(list.map(({ site, deviceId }) => site ?? deviceId));
  const inside = devices.filter(
    ({ site, deviceId }) => bucketOf(salt, site ?? deviceId) < (canary?.thresholds[segment] ?? 0),
  );
  expect(units(inside).size).toBe(8);
  expect(canary?.devices).toEqual({ [segment]: inside.length });

  const artefacts = [{ engine, path: `content/${family}/2/${engine}.rules`, sha256: 'a'.repeat(64), length: 1 }];
  await rollout.openStage({
    ...{ releaseId: 'r1', family, stage: 0, salt, thresholds: canary?.thresholds ?? {}, rollbackVersion: 3, policy },
    ...{ release: { contentVersion: 2, releaseId: 'r1', artefacts }, startedAt: Date.now(), clearedCells: [] },
  });
  expect(controls).toMatchObject([{ kind: 'stage-opened', policy: { unit: 'site' } }]);
  const { document } = await director.read(family);
  const wanting = devices.filter(({ deviceId, site, failMode }) => {
    const device = newDevice({
      deviceId,
      ...(site !== undefined && { site }),
      engine: engineA,
      failMode,
      profile: '',
      key,
    });
    device.contentVersion = 1;
    return beat(device, document).wants !== null;
  });
  expect(wanting).toEqual(inside);
});

test('a device says its site under its signature, and the gateway takes it', () => {
  const device = newDevice({ deviceId: 'd', site: 's', engine: engineA, failMode: 'fail-open', profile: '', key });
  const [signed] = beat(device, null).reports;
  expect(signedReportSchema.parse(signed)).toEqual(signed);
  if (signed === undefined) throw new Error('nothing was said');
  const { deviceId, site, sequence, body, mac } = signed;
  expect(site).toBe('s');
  expect(checkReport(key, { deviceId, site: 's', sequence, body }, mac)).toBe(true);
  expect(checkReport(key, { deviceId, site: 'another', sequence, body }, mac)).toBe(false);
});

test('a fleet file may give sites', async () => {
  const file = join(dir, 'fleet.yaml');
  await writeFile(join(dir, 'office.pcap'), 'traffic');
  const written = (sites: string) =>
    [
      `devices: 10\n${sites}traffic: .\nprofiles: [{ name: office, share: 1 }]`,
      'segments: [{ engine: 7.0.10, failMode: fail-open, share: 1 }]',
    ].join('\n');
  await writeFile(file, written('devicesPerSite: 2\n'));
  expect((await readFleetFile(file)).devicesPerSite).toBe(2);
  await writeFile(file, written('devicesPerSite: 0\n'));
  await expect(readFleetFile(file)).rejects.toThrow('devicesPerSite');
});
