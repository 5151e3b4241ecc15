/** SIGKILL of each service and each server, during a stage and during a halt. */
import { mkdir, mkdtemp, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { beat, mayInstall, newDevice } from '../../apps/device/cycle.ts';
import { readTrustedRoot } from '../../apps/simulator/simulator.ts';
import type { DirectorDocument } from '../../domain/director.ts';
import { isExposed } from '../../domain/exposure.ts';
import { engineId, segmentKey } from '../../domain/release.ts';
import type { ReleaseState } from '../../domain/release-state.ts';
import { canonicalJson } from '../../events/canonical-json.ts';
import { bucketOf } from '../../infra/cohort.ts';
import { createFileBlobs, sha256 } from '../../infra/store/blobs.ts';
import { openRepository } from '../../infra/tuf/client.ts';
import { createDirectorStore } from '../../infra/tuf/director-store.ts';
import { keysDirOf, storeDirOf } from '../../services/all.ts';
import { startRepository } from '../../services/repository.ts';
import { type FaultyPipeline, type Part, startFaultyPipeline } from '../support/faults.ts';
import { patient } from '../support/patience.ts';
import { until } from '../support/pipeline.ts';
import { expectSound, type Sound } from '../support/soundness.ts';

const devices = 240;
const apart = ['aggregator', 'judge', 'lease', 'gateway', 'worker'] as const;
const own = ['temporal', 'kafka', 'postgres'] as const;
const parts: readonly Part[] = [...apart, ...own];

let faulty: FaultyPipeline;
beforeAll(async () => {
  faulty = await startFaultyPipeline({ namespace: 'faults', devices, own, apart });
});
afterAll(async () => {
  await faulty?.stop();
});

const sound = (id: string, phase: ReleaseState['phase']): Promise<Sound> =>
  expectSound(faulty.pipeline.config, faulty.directors, id, phase);
const lastTick = async (id: string): Promise<number> =>
  (await faulty.pipeline.api.get<{ judge: { lastTick: number } | null }>(`/releases/${id}`)).judge?.lastTick ?? -1;

describe('each is killed in a stage of one release: nothing is granted while it is away, and the release goes on by itself', () => {
  const id = 'killed-in-stages';
  // Without these the evidence goes on, and the stage could pass or its watch end: the lease has to run out first.
  const patientStage = (part: Part | undefined) => (part === 'lease' || part === 'temporal' ? '15s' : '1s');
  const stages = [
    { name: 'canary', kind: 'canary', size: 8, minMs: patientStage(parts[0]), minDevices: 8 },
    ...parts.slice(1).map((part, index) => ({
      ...{
        name: `while ${part} dies`,
        kind: 'share',
        size: (index + 3) / 10,
        minMs: patientStage(part),
        minDevices: 20,
      },
    })),
    { name: 'holdback', kind: 'all', size: 1, minMs: '1s', minDevices: 20 },
  ];

  beforeAll(async () => {
    await faulty.release('good', id, { stages });
  });

  test.each(parts.map((part, stage) => [part, stage] as const))('%s, in stage %i', async (part, stage) => {
    const rollout = await faulty.granted(id, stage);
    await faulty.kill(part);
    await faulty.lapsed();
    expect((await faulty.pollAsNewDevice()).kind).toBe('no-offer');
    expect((await faulty.director()).document.rollout?.stage).toBe(stage);
    expect(faulty.running(rollout.content.contentVersion)).toBeLessThanOrEqual(faulty.insideOf(rollout));
    await faulty.start(part);
  });

  test('it is completed, and all of it is as the logs say', async () => {
    const state = await faulty.pipeline.wait(id);
    expect(state.phase).toBe('completed');
    const { types } = await sound(id, 'completed');
    expect(types.filter((type) => type === 'StageOpened')).toHaveLength(stages.length);
    expect(types.filter((type) => type === 'StagePassed')).toHaveLength(stages.length);
    expect(types).toEqual(expect.arrayContaining(['LeaseLapsed', 'StageHeld', 'RolloutResumed']));
    expect(types).not.toContain('RegressionDetected');
    await expect.poll(() => faulty.running(state.build?.contentVersion ?? -1), patient).toBe(devices);
  });
});

/** The stage does not pass by itself: what ends it is a halt. */
const long = {
  stages: [
    { name: 'canary', kind: 'canary', size: 8, minMs: '1h', minDevices: 8 },
    { name: 'holdback', kind: 'all', size: 1, minMs: '1s', minDevices: 20 },
  ],
};

/**
 * Makes the store refuse the rollback of a release, and nothing else: where its document has to be written stands a folder.
 * The halt is known and frozen then, and cannot go on. Returns what takes the obstacle away.
 */
const refuseRollback = async (id: string): Promise<() => Promise<void>> => {
  const rollback = await rollbackOf(id);
  const { document } = await faulty.director();
  // The freeze comes between.
  const expected = { ...document, mode: 'rollback', rollback, directorVersion: document.directorVersion + 2 };
  const name = `${sha256(Buffer.from(canonicalJson(expected)))}.ips.json`;
  const place = join(storeDirOf(faulty.pipeline.config.stateDir), 'repository', 'targets', 'director', name);
  await mkdir(place);
  return () => rmdir(place);
};
const rollbackOf = async (id: string) => {
  const { manifest } = await faulty.pipeline.wait(id, (state) => state.manifest !== null);
  if (!manifest) throw new Error(`${id} has no manifest`);
  return manifest.rollback;
};
const modeIs = (mode: DirectorDocument['mode']) => until(async () => (await faulty.director()).document.mode === mode);
const expectFrozen = async (): Promise<void> => {
  const { document, stopped } = await faulty.director();
  expect([document.mode, stopped]).toEqual(['frozen', true]);
  expect(await faulty.wantedByCohort()).toBeNull();
};
const expectRolledBack = async (id: string): Promise<void> => {
  const { state, types } = await sound(id, 'halted');
  const halting = types.slice(types.findIndex((type) => type === 'RegressionDetected' || type === 'HaltRequested') + 1);
  expect(halting).toEqual(['ExposureFrozen', 'RollbackPublished', 'HaltVerified', 'ReleaseHalted']);
  const { document } = await faulty.director();
  expect([document.mode, document.rollback?.contentVersion]).toEqual([
    'rollback',
    (await rollbackOf(id)).contentVersion,
  ]);
  // Devices that are well went to it, too.
  await until(() => faulty.running(state.build?.contentVersion ?? -1) === 0);
};

describe('the judge halts, and each service is killed between the freeze and the rollback', () => {
  const id = 'halted-by-judge';
  let allow: () => Promise<void>;

  beforeAll(async () => {
    await faulty.release('blocks-field', id, long);
    await faulty.granted(id, 0);
    allow = await refuseRollback(id);
    await modeIs('frozen');
    await until(async () => (await faulty.pipeline.stream(id)).events.at(-1)?.type === 'ExposureFrozen');
  });

  test.each(apart)('%s: the freeze stands while it is away', async (part) => {
    const before = await lastTick(id);
    await faulty.kill(part);
    await expectFrozen();
    // Away long enough for whoever would have asked it.
    if (part !== 'judge' && part !== 'aggregator' && part !== 'gateway') {
      await until(async () => (await lastTick(id)) > before + 2);
    } else expect((await faulty.pollAsNewDevice()).kind).toBe('document');
    await expectFrozen();
    await faulty.start(part);
    await until(async () => (await lastTick(id)) > before + 2);
    await expectFrozen();
  });

  test('the rollback needs none of those who measure, and the halt is completed when they are back', async () => {
    const measuring = ['aggregator', 'judge', 'lease', 'gateway'] as const;
    await Promise.all(measuring.map(faulty.kill));
    await expectFrozen();
    await allow();
    await modeIs('rollback');
    await Promise.all(measuring.map(faulty.start));
    const state = await faulty.pipeline.wait(id);
    expect(state.halt?.verdict?.kind).toBe('halt');
    await expectRolledBack(id);
  });
});

describe('a person halts, and each server is killed between the freeze and the rollback', () => {
  const id = 'halted-by-person';
  let allow: () => Promise<void>;

  beforeAll(async () => {
    await faulty.release('good', id, long);
    const { content } = await faulty.granted(id, 0);
    await until(() => faulty.running(content.contentVersion) > 0);
    allow = await refuseRollback(id);
    const request = { by: 'sam', reason: 'complaints' };
    await faulty.pipeline.api.post(`/releases/${id}/halt`, request);
    await expectFrozen();
    await until(async () => (await faulty.pipeline.stream(id)).events.at(-1)?.type === 'ExposureFrozen');
  });

  test.each(own)('%s: the freeze stands while it is away', async (part) => {
    await faulty.kill(part);
    await expectFrozen();
    expect((await faulty.pollAsNewDevice()).kind).toBe('document');
    await faulty.start(part);
    await expectFrozen();
  });

  test('the rollback needs neither Kafka nor PostgreSQL, and the halt is completed when they are back', async () => {
    await Promise.all([faulty.kill('kafka'), faulty.kill('postgres')]);
    await expectFrozen();
    await allow();
    await modeIs('rollback');
    await Promise.all([faulty.start('kafka'), faulty.start('postgres')]);
    const state = await faulty.pipeline.wait(id);
    expect(state.halt).toMatchObject({ by: 'sam', reason: 'complaints', verdict: null });
    await expectRolledBack(id);
  });
});

describe('worse', () => {
  test('Kafka is down and a person halts: the freeze takes effect at once, its record follows', async () => {
    const id = 'halted-without-kafka';
    await faulty.release('good', id, long);
    const { content } = await faulty.granted(id, 0);
    await until(() => faulty.running(content.contentVersion) > 0);
    await faulty.kill('kafka');
    const request = { by: 'sam', reason: 'complaints' };
    const answer = await faulty.pipeline.api.post<{ phase: string }>(`/releases/${id}/halt`, request);
    expect(answer.phase).toBe('halting');
    expect(['frozen', 'rollback']).toContain((await faulty.director()).document.mode);
    await faulty.start('kafka');
    expect((await faulty.pipeline.wait(id)).halt).toMatchObject(request);
    await expectRolledBack(id);
  });

  test('with everything but the file store dead, the lease runs out and no device takes the release', async () => {
    const id = 'all-dead';
    // A lease long enough to look at what it grants before it ends, however long the dying takes.
    await faulty.release('good', id, { leaseMs: '10m' });
    const { content } = await faulty.granted(id, 0);
    const version = content.contentVersion;
    await until(() => faulty.running(version) > 0);
    const { document } = await faulty.director();
    await Promise.all(parts.map(faulty.kill));
    await faulty.pipeline.simulator.stop();
    await faulty.pipeline.services.stop();
    // Any web server can serve the files: the store is all that is left.
    const storeDir = storeDirOf(faulty.pipeline.config.stateDir);
    const repository = await startRepository({ storeDir, port: 0 });
    const client = await openRepository({
      baseUrl: repository.url,
      dir: await mkdtemp(join(faulty.dir, 'device-')),
      trustedRoot: await readTrustedRoot(storeDir),
    });
    // A device of the canary that has not taken it yet, with an acknowledgement in its hand that never ends.
    const { rollout } = document;
    if (!rollout) throw new Error('nothing rolls out');
    const inside = faulty.pipeline.simulator.devices.find((device) => {
      const segment = segmentKey(engineId(device.engine), device.failMode);
      return isExposed(bucketOf(rollout.salt, device.deviceId), rollout.thresholds[segment] ?? 0);
    });
    if (!inside) throw new Error('the canary is empty');
    const device = newDevice(inside);
    const acknowledged = { status: 'accepted', acknowledgedForMs: Number.POSITIVE_INFINITY } as const;
    const takes = async () => {
      const poll = await client.poll('ips');
      if (poll.kind !== 'document') return poll.why;
      const { wants } = beat(device, poll.document);
      const time = { expiresAt: poll.expiresAt, now: Date.now(), sinceAskedMs: 0 };
      return wants?.content.contentVersion === version && mayInstall(wants, acknowledged, time);
    };
    expect(await takes()).toBe(true);
    // Its last renewal is a short one: what is left of the lease is waited for.
    const store = createDirectorStore({
      ...{ dir: storeDir, keysDir: keysDirOf(faulty.pipeline.config.stateDir), now: Date.now },
      blobs: createFileBlobs(join(storeDir, 'blobs')),
    });
    expect(await store.renew('ips', (await faulty.director()).document.directorVersion, 1_000)).toBe(true);
    await faulty.lapsed();
    expect(await takes()).toContain('expired');
    await repository.stop();
    await faulty.start('postgres'); // its database is dropped after the test
  });
});
