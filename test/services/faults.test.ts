import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { beat, mayInstall, newDevice } from '../../apps/device/cycle.ts';
import { readTrustedRoot } from '../../apps/simulator/simulator.ts';
import { engineId, segmentKey } from '../../domain/release.ts';
import { foldEvents } from '../../domain/release-state.ts';
import { bucketOf } from '../../infra/cohort.ts';
import { discardServers, type LocalServers, startServers } from '../../infra/servers/local.ts';
import { endProcess, type Identity, spawnServer, waitReady } from '../../infra/servers/processes.ts';
import { readServices } from '../../infra/servers/services-record.ts';
import { createFileBlobs } from '../../infra/store/blobs.ts';
import { openRepository } from '../../infra/tuf/client.ts';
import { createDirectorStore } from '../../infra/tuf/director-store.ts';
import { keysDirOf, type ServiceName, serviceNames, storeDirOf } from '../../services/all.ts';
import { startRepository } from '../../services/repository.ts';
import { type Pipeline, startPipeline, until } from '../support/pipeline.ts';

const devices = 240;
const apart: readonly ServiceName[] = ['worker', 'judge'];
const program = join(import.meta.dirname, '..', '..', 'services', 'main.ts');

let stateDir: string;
let servers: LocalServers;
let pipeline: Pipeline;
const processes = new Map<ServiceName, Identity>();

/** A process with one service, as in an installation on several machines. */
const launch = async (env: Readonly<Record<string, string>>, service: ServiceName): Promise<void> => {
  const log = join(stateDir, `${service}.log`);
  const { identity } = spawnServer(process.execPath, [program, '--only', service], {
    log,
    env: { ...process.env, ...env },
  });
  processes.set(service, identity);
  const recorded = async () => readServices(env.SIGREL_STATE_DIR ?? '')[service]?.process.pid === identity.pid;
  await waitReady(service, identity, log, recorded, 60_000);
};
const kill = async (service: ServiceName): Promise<void> => {
  const identity = processes.get(service);
  if (identity) await endProcess(identity, 0); // no grace: SIGKILL at once
  processes.delete(service);
};

beforeAll(async () => {
  stateDir = await mkdtemp(join(tmpdir(), 'sigrel-faults-'));
  const given = { temporal: inject('temporalAddress') };
  servers = await startServers({ stateDir, given, progress: () => {} });
  pipeline = await startPipeline({
    namespace: 'faults',
    devices,
    kafkaBrokers: servers.kafka.brokers,
    postgresUrl: servers.postgres.url,
    only: serviceNames.filter((name) => !apart.includes(name)),
    beforeFleet: async (env) => {
      for (const service of apart) await launch(env, service);
    },
  });
});
afterAll(async () => {
  for (const service of apart) await kill(service);
  await pipeline?.stop();
  await discardServers(stateDir);
  await rm(stateDir, { recursive: true, force: true });
});

const director = () => {
  const dir = storeDirOf(pipeline.config.stateDir);
  const keysDir = keysDirOf(pipeline.config.stateDir);
  return createDirectorStore({ dir, keysDir, blobs: createFileBlobs(join(dir, 'blobs')), now: Date.now }).read('ips');
};
/** A device that comes along now, with nothing but what it was shipped with. */
const pollAsNewDevice = async () => {
  const client = await openRepository({
    baseUrl: pipeline.services.urls.repository ?? '',
    dir: await mkdtemp(join(stateDir, 'device-')),
    trustedRoot: await readTrustedRoot(storeDirOf(pipeline.config.stateDir)),
  });
  return client.poll('ips');
};
const running = (version: number) =>
  pipeline.simulator.devices.filter((device) => device.contentVersion === version).length;
const expectWhole = async (releaseId: string, phase: string) => {
  const stream = await pipeline.stream(releaseId);
  expect(stream.findings).toEqual([]);
  expect(stream.events.map((event) => event.seq)).toEqual(stream.events.map((_, index) => index + 1));
  expect(foldEvents(stream.events)?.phase).toBe(phase);
  return stream.events.map((event) => event.type);
};
const inStage = (stage: number) => (state: { rollout: { stage: number } | null }) =>
  (state.rollout?.stage ?? -1) >= stage;

describe('faults in the middle of a rollout', () => {
  test('the worker is killed and started again: the release goes on, and its log is whole', async () => {
    const id = await pipeline.release('good', 'worker-killed');
    const { build } = await pipeline.wait(id, inStage(0));
    // The stage is recorded first and granted then: only what was granted can run out.
    await until(() => running(build?.contentVersion ?? -1) > 0);
    await kill('worker');
    const before = (await pipeline.stream(id)).events.length;
    // Nobody could act on a verdict: the judge's fresh windows alone renew nothing.
    await until(async () => (await director()).expiresAt < Date.now());
    expect((await pollAsNewDevice()).kind).toBe('no-offer');
    await launch(pipeline.env, 'worker');
    const state = await pipeline.wait(id);
    expect(state.phase).toBe('completed');
    expect(state.seq).toBeGreaterThan(before);
    await expectWhole(id, 'completed');
    expect(running(state.build?.contentVersion ?? -1)).toBe(devices);
  });

  test('the judge is killed: the lease runs out, nobody takes the release, and it goes on with the judge', async () => {
    const id = await pipeline.release('good', 'judge-killed');
    const { build } = await pipeline.wait(id, inStage(0));
    const version = build?.contentVersion ?? -1;
    await until(() => running(version) > 0);
    await kill('judge');
    await until(async () => (await director()).expiresAt < Date.now());
    expect((await pollAsNewDevice()).kind).toBe('no-offer');
    const held = await pipeline.wait(id, ({ phase }) => phase === 'held');
    expect(held.hold?.reasonCode).toBe('no-data');
    expect(held.rollout?.stage).toBe(0);
    const taken = running(version);
    expect(taken).toBeLessThan(devices / 2);
    const { document } = await director();
    await launch(pipeline.env, 'judge');
    const state = await pipeline.wait(id);
    expect(state.phase).toBe('completed');
    const types = await expectWhole(id, 'completed');
    expect(types).toEqual(expect.arrayContaining(['LeaseLapsed', 'StageHeld', 'RolloutResumed']));
    expect(document.rollout?.stage).toBe(0);
  });

  test('Kafka is killed and started again: no exposure rises meanwhile, and the release goes on', async () => {
    const id = await pipeline.release('good', 'kafka-killed');
    const { build } = await pipeline.wait(id, inStage(0));
    const version = build?.contentVersion ?? -1;
    await until(() => running(version) > 0);
    await servers.kill('kafka');
    const before = await director();
    await until(async () => (await director()).expiresAt < Date.now());
    const after = await director();
    expect(after.document.rollout?.thresholds).toEqual(before.document.rollout?.thresholds);
    expect((await pollAsNewDevice()).kind).toBe('no-offer');
    expect(running(version)).toBeLessThan(devices / 2);
    await servers.start('kafka');
    const state = await pipeline.wait(id);
    expect(state.phase).toBe('completed');
    await expectWhole(id, 'completed');
  });

  test('PostgreSQL is killed and started again: the lease runs out, and the release goes on', async () => {
    const id = await pipeline.release('good', 'postgres-killed');
    const { build } = await pipeline.wait(id, inStage(0));
    const version = build?.contentVersion ?? -1;
    await until(() => running(version) > 0);
    await servers.kill('postgres');
    await until(async () => (await director()).expiresAt < Date.now());
    expect((await pollAsNewDevice()).kind).toBe('no-offer');
    expect(running(version)).toBeLessThan(devices / 2);
    await servers.start('postgres');
    const state = await pipeline.wait(id);
    expect(state.phase).toBe('completed');
    await expectWhole(id, 'completed');
  });

  test('Kafka is down and a person halts: the freeze takes effect at once, its record follows', async () => {
    const id = await pipeline.release('good', 'halted-without-kafka');
    const { build } = await pipeline.wait(id, inStage(0));
    await until(() => running(build?.contentVersion ?? -1) > 0);
    await servers.kill('kafka');
    const answer = await pipeline.api.post<{ phase: string }>(`/releases/${id}/halt`, {
      by: 'sam',
      reason: 'complaints',
    });
    expect(answer.phase).toBe('halting');
    const { document } = await director();
    expect(['frozen', 'rollback']).toContain(document.mode);
    await servers.start('kafka');
    const state = await pipeline.wait(id);
    expect(state.phase).toBe('halted');
    expect(state.halt).toMatchObject({ by: 'sam', reason: 'complaints' });
    const types = await expectWhole(id, 'halted');
    expect(types).toEqual(expect.arrayContaining(['HaltRequested', 'ExposureFrozen', 'RollbackPublished']));
  });

  test('with everything but the file store dead, the lease runs out and no device takes the release', async () => {
    // A lease long enough to look at what it grants before it ends.
    const id = await pipeline.release('good', 'all-dead', { leaseMs: '20s', freshTicks: 40 });
    const { build } = await pipeline.wait(id, inStage(0));
    const version = build?.contentVersion ?? -1;
    await until(() => running(version) > 0);
    const { document } = await director();
    await Promise.all([kill('worker'), kill('judge'), servers.kill('kafka')]);
    await pipeline.simulator.stop();
    await pipeline.services.stop();
    // Any web server can serve the files: the store is all that is left.
    const repository = await startRepository({ storeDir: storeDirOf(pipeline.config.stateDir), port: 0 });
    const client = await openRepository({
      baseUrl: repository.url,
      dir: await mkdtemp(join(stateDir, 'device-')),
      trustedRoot: await readTrustedRoot(storeDirOf(pipeline.config.stateDir)),
    });
    // A device of the canary that has not taken it yet, with an acknowledgement in its hand that never ends.
    const { rollout } = document;
    if (!rollout) throw new Error('nothing rolls out');
    const inside = pipeline.simulator.devices.find((device) => {
      const segment = segmentKey(engineId(device.engine), device.failMode);
      return bucketOf(rollout.salt, device.deviceId) < (rollout.thresholds[segment] ?? 0);
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
    await until(async () => (await director()).expiresAt < Date.now());
    expect(await takes()).toContain('expired');
    await repository.stop();
  });
});
