/** The gateway on real Kafka and PostgreSQL: what must hold across restarts and between several of them. */
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Kafka } from 'kafkajs';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest';
import { emptyState, foldRecord } from '../../domain/at-risk.ts';
import { defaultPolicy } from '../../domain/policy.ts';
import { engineId, segmentKey } from '../../domain/release.ts';
import type { ReportResult, TelemetryRecord, Window } from '../../domain/telemetry.ts';
import { bucketOf } from '../../infra/cohort.ts';
import { readConfig } from '../../infra/config.ts';
import { deviceKey, newestKey, readKeyRing, rotateKey, signReport } from '../../infra/device-auth.ts';
import { createKafka, silent } from '../../infra/kafka/client.ts';
import { readDeadLetters } from '../../infra/kafka/dead-letters.ts';
import { createTelemetryLog } from '../../infra/kafka/telemetry-log.ts';
import { createTopics, partitionsOf, topicName } from '../../infra/kafka/topics.ts';
import { createAcknowledgements } from '../../infra/postgres/acknowledgements.ts';
import { createInventory, saveDevices } from '../../infra/postgres/inventory.ts';
import { listRevocations, readRevoked, restoreDevice } from '../../infra/postgres/revocations.ts';
import { createDeviceSites } from '../../infra/postgres/sites.ts';
import { recordServices } from '../../infra/servers/services-record.ts';
import { startServices } from '../../services/all.ts';
import { changeRevocation } from '../../services/api/devices.ts';
import { type Gateway, startGateway } from '../../services/gateway.ts';
import { acknowledgementsContract } from '../support/acknowledgements-contract.ts';
import { runCli } from '../support/cli.ts';
import { createDatabase, type TestDatabase } from '../support/database.ts';
import { engineA, gatewayPorts, newFleet, pollBody } from '../support/devices.ts';
import { allOf, inventoryContract } from '../support/inventory-contract.ts';
import { readTopic } from '../support/kafka-log.ts';
import { patient } from '../support/patience.ts';
import { sitesContract } from '../support/sites-contract.ts';

const prefix = `gateway-${randomUUID()}.`;
const fleetKey = randomBytes(32);
const offer = { releaseId: 'r1', contentVersion: 2 };

let kafka: Kafka;
let database: TestDatabase;
let telemetry: ReturnType<typeof createTelemetryLog>;
const running = new Set<Gateway>();

beforeAll(async () => {
  kafka = createKafka({ brokers: inject('kafkaBrokers'), clientId: 'test', log: silent });
  telemetry = createTelemetryLog(kafka, prefix);
  [database] = await Promise.all([createDatabase(), createTopics(kafka, prefix, silent)]);
});
/** Who is known and who is revoked is a matter of each test. */
beforeEach(async () => {
  await database.pool.query('delete from devices');
  await database.pool.query('truncate device_revocations');
});
afterEach(async () => {
  await Promise.all([...running].map((gateway) => gateway.stop()));
  running.clear();
});
afterAll(async () => {
  await telemetry.close();
  await database.close();
});

/** A gateway as a new process would be: it knows what stands in PostgreSQL, and no device. */
const start = async (changes: Partial<Parameters<typeof startGateway>[0]> = {}): Promise<Gateway> => {
  const pool = database.openPool();
  const gateway = await startGateway({
    ...gatewayPorts(fleetKey),
    ...{ telemetry, port: 0, clockMs: 60_000, ackMs: 60_000, refreshMs: 50, log: silent },
    revoked: () => readRevoked(pool),
    sites: createDeviceSites(pool),
    acknowledgements: createAcknowledgements(pool),
    ...changes,
  });
  running.add(gateway);
  return gateway;
};
const resultsOf = ({ body }: { body: unknown }) => (body as { results: ReportResult[] }).results;

describe('acknowledgements in PostgreSQL', () => {
  acknowledgementsContract(async () => {
    await database.pool.query('truncate acknowledgements');
    return createAcknowledgements(database.pool);
  });
});

describe('a fleet in PostgreSQL', () => {
  inventoryContract(async (fleet) => {
    await database.pool.query('truncate devices');
    await saveDevices(
      database.pool,
      fleet.map((device) => ({ ...device, describedAt: 1 })),
    );
    return createInventory(database.pool);
  });
});

describe('sites of devices in PostgreSQL', () => {
  sitesContract(async () => {
    await database.pool.query('truncate device_sites');
    return createDeviceSites(database.pool);
  });
});

test('the site of a device stays across restarts, and is that of the imported inventory; revoke and restore free it', async () => {
  const row = { engine: engineA, failMode: 'fail-open', contentVersion: 1 } as const;
  await saveDevices(database.pool, [{ ...row, deviceId: 'imported', site: 'lyon', describedAt: -1 }]);
  await saveDevices(database.pool, [{ ...row, deviceId: 'bare', describedAt: -1 }]);
  let sequence = 0;
  const say = async (gateway: Gateway, deviceId: string, site: string) => {
    sequence += 1;
    const fleet = newFleet(gateway.url, fleetKey);
    return resultsOf(await fleet.post([fleet.sign({ deviceId, site, sequence, body: pollBody() })]))[0]?.status;
  };
  const first = await start();
  expect(await say(first, 'imported', 'rome')).toBe('rejected');
  expect(await say(first, 'imported', 'lyon')).toBe('accepted');
  expect(await say(first, 'bare', 'rome')).toBe('accepted');
  const second = await start();
  expect(await say(second, 'bare', 'lyon')).toBe('rejected');
  expect(await say(second, 'bare', 'rome')).toBe('accepted');
  // It is moved: what it says from its new place, later, is taken.
  await saveDevices(database.pool, [{ ...row, deviceId: 'bare', site: 'rome', describedAt: 900 }]);
  const said = { by: 'ann', reason: 'moved to Lyon' };
  await changeRevocation(database.pool, 'revoke', 'bare', said);
  await expect.poll(() => say(second, 'bare', 'rome'), patient).toBe('rejected');
  await expect.poll(() => say(first, 'bare', 'rome'), patient).toBe('rejected');
  await changeRevocation(database.pool, 'restore', 'bare', said);
  await expect.poll(() => say(second, 'bare', 'lyon'), patient).toBe('accepted');
  await expect.poll(() => say(first, 'bare', 'lyon'), patient).toBe('accepted');
  expect(await say(second, 'bare', 'rome')).toBe('rejected');
  await saveDevices(database.pool, [{ ...row, deviceId: 'bare', site: 'lyon', describedAt: 1_000 }]);
  const inventory = await allOf(createInventory(database.pool).devices());
  expect(inventory.find(({ deviceId }) => deviceId === 'bare')).toMatchObject({ site: 'lyon' });
});

test('a captured request is worth nothing after a restart or elsewhere: no new acknowledgement, no second event', async () => {
  const first = await start();
  const fleet = newFleet(first.url, fleetKey);
  const device = 'captured';
  const segment = segmentKey(engineId(engineA), 'fail-open');
  await telemetry.control({
    ...{
      kind: 'stage-opened',
      releaseId: 'r1',
      family: 'ips',
      stage: 0,
      salt: 's',
      contentVersion: 2,
      rollbackVersion: 3,
    },
    ...{ thresholds: { [segment]: 2 ** 32 }, policy: { ...defaultPolicy, tickMs: 200 }, startedAt: Date.now() },
  });
  const captured = [
    fleet.sign({ deviceId: device, sequence: 10, body: pollBody({ offer }) }),
    fleet.sign({ deviceId: device, sequence: 11, body: { kind: 'crash', contentVersion: 2, words: 'signal 11' } }),
  ];
  const [poll] = resultsOf(await fleet.post(captured));
  expect(poll?.acknowledgedForMs).toBeGreaterThan(0);

  await first.stop();
  running.delete(first);
  const gateways = await Promise.all([start({ ackMs: 600_000 }), start({ ackMs: 600_000 })]);
  for (const gateway of gateways) {
    const elsewhere = newFleet(gateway.url, fleetKey);
    for (let round = 0; round < 2; round += 1) {
      const [again, crash] = resultsOf(await elsewhere.post(captured));
      // Until the same moment, which has come nearer since.
      expect(again?.acknowledgedForMs).toBeGreaterThan(0);
      expect(again?.acknowledgedForMs).toBeLessThanOrEqual(poll?.acknowledgedForMs ?? 0);
      expect(crash).not.toHaveProperty('acknowledgedForMs');
    }
  }
  // Once the device has asked again, its older poll is not acknowledged at all any more.
  const [one, other] = gateways.map((gateway) => newFleet(gateway.url, fleetKey));
  const newer = [fleet.sign({ deviceId: device, sequence: 12, body: pollBody({ offer }) })];
  const [next] = resultsOf((await one?.post(newer)) ?? { body: null });
  expect(next?.acknowledgedForMs).toBeGreaterThan(poll?.acknowledgedForMs ?? 0);
  const third = await start();
  expect(resultsOf(await newFleet(third.url, fleetKey).post(captured))[0]).toEqual({ status: 'accepted' });
  const [same] = resultsOf((await other?.post(newer)) ?? { body: null });
  expect(same?.acknowledgedForMs).toBeGreaterThan(poll?.acknowledgedForMs ?? 0);
  expect(same?.acknowledgedForMs).toBeLessThanOrEqual(next?.acknowledgedForMs ?? 0);

  // The log has the repeats, and the fold counts the device and its crash once.
  const partitions = partitionsOf('telemetry.reports.v1');
  const states = Array.from({ length: partitions }, (_, partition) => emptyState(partition, partitions));
  const records = await readTopic(kafka, topicName(prefix, 'telemetry.reports.v1'));
  const windows: Window[] = [];
  let crashes = 0;
  for (const record of records) {
    const state = states[record.partition];
    if (state === undefined) throw new Error(`there is no partition ${record.partition}`);
    const written = JSON.parse(record.value) as TelemetryRecord;
    if ('report' in written && written.report.body.kind === 'crash') crashes += 1;
    windows.push(...foldRecord(state, written, record.appendedAt, record.offset, bucketOf).windows);
  }
  expect(crashes).toBeGreaterThan(3);
  // As a clock record closes the ticks a moment later.
  const end = Math.max(...records.map(({ appendedAt }) => appendedAt)) + 1_000;
  for (const state of states) {
    windows.push(...foldRecord(state, { control: { kind: 'clock' } }, end, state.nextOffset, bucketOf).windows);
  }
  const counted = windows.map((window) => window.leaves[segment]?.crash?.[0] ?? 0);
  expect(counted.reduce((sum, x) => sum + x, 0)).toBe(1);
  const totals = windows.map((window) => window.counts[segment]).filter((counts) => (counts?.offered ?? 0) > 0);
  expect(totals.at(-1)).toMatchObject({ enrolled: 1, offered: 1, harmed: 1 });
});

test('a revoked device is refused by a running gateway, and heard again when restored', async () => {
  const gateway = await start({ refreshMs: 1_000 });
  const fleet = newFleet(gateway.url, fleetKey);
  const send = async () => (await fleet.send([['fw-1', pollBody({ offer })]]))[0];
  expect(await send()).toHaveProperty('acknowledgedForMs');
  const said = { by: 'ann', reason: 'stolen' };
  expect(await changeRevocation(database.pool, 'revoke', 'fw-1', said)).toEqual({
    revocation: { deviceId: 'fw-1', ...said, at: expect.any(String), restored: null },
    known: false,
  });
  await expect(changeRevocation(database.pool, 'revoke', 'fw-1', said)).rejects.toMatchObject({
    code: 'SRP_RULE_REVOKED',
  });
  await expect.poll(send, patient).toEqual({ status: 'rejected', reason: 'device fw-1 is revoked: stolen' });
  expect(await restoreDevice(database.pool, 'fw-1', { by: 'bob', reason: 'found' })).not.toBeNull();
  await expect(changeRevocation(database.pool, 'restore', 'fw-1', said)).rejects.toMatchObject({
    code: 'SRP_RULE_NOT_REVOKED',
  });
  await expect.poll(send, patient).toHaveProperty('acknowledgedForMs');
  // What it says it is, is no part of the field either: an engine that it made up would hold up every release.
  const row = { deviceId: 'fw-1', engine: engineA, failMode: 'fail-open', contentVersion: 1, describedAt: 1 } as const;
  await saveDevices(database.pool, [row, { ...row, deviceId: 'fw-9' }]);
  const inventory = async () => (await allOf(createInventory(database.pool).devices())).map(({ deviceId }) => deviceId);
  expect(await inventory()).toEqual(['fw-1', 'fw-9']);
  const again = { by: 'cy', reason: 'again' };
  expect(await changeRevocation(database.pool, 'revoke', 'fw-1', again)).toMatchObject({ known: true });
  expect(await inventory()).toEqual(['fw-9']);
  expect(await listRevocations(database.pool)).toMatchObject([
    { by: 'cy', reason: 'again', restored: null },
    { by: 'ann', reason: 'stolen', restored: { by: 'bob', reason: 'found', at: expect.any(String) } },
  ]);
});

test('a rotated key is taken by a running gateway, and the key before it until its end', async () => {
  const keysDir = await mkdtemp(join(tmpdir(), 'sigrel-gateway-keys-'));
  try {
    const gateway = await start({ keys: () => readKeyRing(keysDir) });
    const old = newestKey(await readKeyRing(keysDir));
    let sequence = 0;
    const sayWith = async ({ epoch, key }: { epoch: number; key: Uint8Array }) => {
      sequence += 1;
      const report = { deviceId: 'fw-2', sequence, body: pollBody() };
      const signed = { ...report, keyEpoch: epoch, mac: signReport(deviceKey(key, 'fw-2'), report) };
      return resultsOf(await newFleet(gateway.url, key).post([signed]))[0];
    };
    expect(await sayWith(old)).toEqual({ status: 'accepted' });
    const next = newestKey(await rotateKey(keysDir, 3_600_000, Date.now()));
    await expect.poll(() => sayWith(next), patient).toEqual({ status: 'accepted' });
    expect(await sayWith(old)).toEqual({ status: 'accepted' });
    await rotateKey(keysDir, 0, Date.now());
    const ended = { status: 'rejected', reason: expect.stringMatching(/^key epoch 1 has ended/) };
    await expect.poll(() => sayWith(old), patient).toEqual(ended);
  } finally {
    await rm(keysDir, { recursive: true });
  }
});

test('dead letters are read back from Kafka with reason and time, the last ones first asked for', async () => {
  const gateway = await start();
  const before = Date.now();
  const { total } = await readDeadLetters(kafka, prefix, 1);
  const fleet = newFleet(gateway.url, fleetKey);
  await fleet.post(Array.from({ length: 30 }, (_, n) => ({ nonsense: n })));
  await expect.poll(() => gateway.status().deadLetters.kept, patient).toBe(30);
  const read = await readDeadLetters(kafka, prefix, 4);
  expect(read.total).toBe(total + 30);
  expect(read.letters.map(({ received }) => received)).toEqual([26, 27, 28, 29].map((n) => `{"nonsense":${n}}`));
  for (const { at, reason } of read.letters) {
    expect(Date.parse(at)).toBeGreaterThan(before - 60_000);
    expect(reason).toContain('deviceId: ');
  }
  expect((await readDeadLetters(kafka, prefix, 100_000)).letters.length).toBe(total + 30);
});

test('the command line: revoke, list, restore, rotate, and what was refused', async () => {
  const stateDir = await mkdtemp(join(tmpdir(), 'sigrel-device-cli-'));
  const topicPrefix = `${prefix}cli.`;
  const env = {
    ...{ SIGREL_STATE_DIR: stateDir, SIGREL_TEMPORAL_ADDRESS: inject('temporalAddress') },
    ...{ SIGREL_KAFKA_BROKERS: inject('kafkaBrokers').join(','), SIGREL_TOPIC_PREFIX: topicPrefix },
    SIGREL_POSTGRES_URL: database.url,
  };
  const services = await startServices({
    ...{ config: readConfig(env, stateDir), only: ['gateway', 'api'], codeVersion: 'test', logOf: () => silent },
    servers: {
      temporal: env.SIGREL_TEMPORAL_ADDRESS,
      temporalUi: null,
      kafka: inject('kafkaBrokers'),
      postgres: database.url,
    },
    progress: () => {},
  });
  try {
    await recordServices(stateDir, { api: { url: services.urls.api ?? '' } });
    const sigrel = (...args: string[]) => runCli(args, env);
    const parsed = async (...args: string[]) => JSON.parse((await sigrel(...args, '--json')).out);
    const fleet = newFleet(services.urls.gateway ?? '', newestKey(await readKeyRing(join(stateDir, 'keys'))).key);
    const send = async () => (await fleet.send([['fw-7', pollBody()]]))[0]?.status;
    expect(await send()).toBe('accepted');

    const revoked = await sigrel('device', 'revoke', 'fw-7', '--reason', 'stolen', '--by', 'ann');
    expect(revoked).toMatchObject({ code: 0, out: expect.stringContaining('fw-7 is revoked') });
    await expect.poll(send, patient).toBe('rejected');
    const twice = await sigrel('device', 'revoke', 'fw-7', '--reason', 'stolen');
    expect(twice).toMatchObject({ code: 1, err: expect.stringContaining('SRP_RULE_REVOKED') });
    const strange = await sigrel('device', 'revoke', '../x', '--reason', 'stolen');
    expect(strange).toMatchObject({ code: 1, err: expect.stringContaining('expected a device id') });
    const list = await parsed('device', 'list');
    expect(list.revocations).toMatchObject([{ deviceId: 'fw-7', by: 'ann', reason: 'stolen', restored: null }]);
    expect((await sigrel('device', 'list')).out).toContain('stolen');
    expect(await sigrel('device', 'restore', 'fw-7', '--reason', 'found')).toMatchObject({ code: 0 });
    await expect.poll(send, patient).toBe('accepted');
    expect((await sigrel('device', 'list')).out).toBe('no device is revoked\n');
    expect((await sigrel('device', 'list', '--all')).out).toContain('stolen; restored: found');

    expect(await sigrel('device', 'rotate-key', '--accept-old', 'soon')).toMatchObject({ code: 1 });
    const rotated = await parsed('device', 'rotate-key', '--accept-old', '0');
    expect(rotated).toEqual({ keys: [{ epoch: 2, acceptedUntil: null }] });
    expect(await parsed('device', 'keys')).toEqual(rotated);
    await expect.poll(send, patient).toBe('rejected');

    const letters = () => parsed('dead-letters', '--limit', '1');
    await expect
      .poll(async () => (await letters()).letters[0]?.reason, patient)
      .toMatch(/^key epoch 1 has ended: the device needs its key of epoch 2$/);
    const people = await sigrel('dead-letters');
    expect(people.out).toContain('device fw-7 is revoked: stolen');
    expect(await sigrel('dead-letters', '--limit', 'all')).toMatchObject({ code: 2 });
  } finally {
    await services.stop();
    await rm(stateDir, { recursive: true, force: true });
  }
});
