import { request as httpRequest } from 'node:http';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { SigrelError } from '../../domain/errors.ts';
import type { DeviceSites } from '../../domain/ports.ts';
import type { DeviceReport, ReportResult } from '../../domain/telemetry.ts';
import { deviceKey, type FleetKey, signReport } from '../../infra/device-auth.ts';
import { silent } from '../../infra/kafka/client.ts';
import { createMemoryAcknowledgements } from '../../infra/memory/acknowledgements.ts';
import { createMemorySites } from '../../infra/memory/sites.ts';
import { createMemoryTelemetryLog, type MemoryTelemetryLog } from '../../infra/memory/telemetry-log.ts';
import { type Gateway, startGateway } from '../../services/gateway.ts';
import { gatewayPorts, newFleet, pollBody } from '../support/devices.ts';

const fleetKey = Buffer.alloc(32, 7);
const ackMs = 6_000;
const offer = { releaseId: 'r1', contentVersion: 2 };

type Options = Parameters<typeof startGateway>[0];

/** How long the store grants what polls ask for. */
let grantedMs: () => number;
let telemetry: MemoryTelemetryLog;
let gateway: Gateway;
let fleet: ReturnType<typeof newFleet>;
const running: Gateway[] = [];
const start = async (changes: Partial<Options> = {}) => {
  telemetry = createMemoryTelemetryLog();
  grantedMs = () => 60_000;
  gateway = await startGateway({
    ...gatewayPorts(fleetKey),
    ...{ telemetry, port: 0, clockMs: 60_000, ackMs, refreshMs: 20, offers: async () => grantedMs, log: silent },
    ...changes,
  });
  running.push(gateway);
  fleet = newFleet(gateway.url, fleetKey);
};
beforeEach(() => start());
afterEach(async () => {
  await Promise.all(running.splice(0).map((one) => one.stop()));
});

const reports = () => telemetry.partitions.flat().flatMap((record) => ('report' in record ? [record.report] : []));

const forMsOf = async (signed: unknown): Promise<number> => {
  const { body } = await fleet.post([signed]);
  return (body as { results: { acknowledgedForMs?: number }[] }).results[0]?.acknowledgedForMs ?? Number.NaN;
};

test('reports are answered in order; only a poll with an offer is acknowledged, for a length of time', async () => {
  const results = await fleet.send([
    ['a', pollBody()],
    ['b', pollBody({ offer })],
    ['c', { kind: 'crash', contentVersion: 2, words: 'signal 11' }],
  ]);
  expect(results.map((result) => result.status)).toEqual(['accepted', 'accepted', 'accepted']);
  expect(results.map((result) => 'acknowledgedForMs' in result)).toEqual([false, true, false]);
  // Counted from when the log had it.
  expect(results[1]?.acknowledgedForMs).toBeGreaterThan(0);
  expect(results[1]?.acknowledgedForMs).toBeLessThanOrEqual(ackMs);
  expect(
    reports()
      .map((report) => report.deviceId)
      .sort(),
  ).toEqual(['a', 'b', 'c']);
});

test('a repeated report is a duplicate, is not written again, and its acknowledgement does not grow', async () => {
  const signed = fleet.sign({ deviceId: 'a', sequence: 3, body: pollBody({ offer }) });
  const first = await fleet.post([signed]);
  const second = await fleet.post([signed]);
  expect(first.body).toMatchObject({ results: [{ status: 'accepted' }] });
  await expect.poll(async () => (await forMsOf(signed)) < ackMs).toBe(true);
  expect(second.body).toMatchObject({ results: [{ status: 'duplicate' }] });
  expect(reports().length).toBe(1);
});

test('what the store does not grant is neither acknowledged nor written as an offer', async () => {
  grantedMs = () => 0;
  expect(await fleet.send([['a', pollBody({ offer })]])).toEqual([{ status: 'accepted' }]);
  expect(reports()).toMatchObject([{ deviceId: 'a', body: { kind: 'poll', offer: null } }]);
  grantedMs = () => 2_500.5;
  expect(await fleet.send([['a', pollBody({ offer })]])).toEqual([{ status: 'accepted', acknowledgedForMs: 2_500 }]);
  expect(reports()[1]).toMatchObject({ body: { offer } });
});

test('what is stopped while the log is written is not acknowledged, nor is its repetition', async () => {
  const append = vi.spyOn(telemetry, 'append');
  append.mockImplementationOnce(async () => {
    grantedMs = () => 0;
  });
  const signed = fleet.sign({ deviceId: 'a', sequence: 1, body: pollBody({ offer }) });
  expect((await fleet.post([signed])).body).toEqual({ results: [{ status: 'accepted' }] });
  expect((await fleet.post([signed])).body).toEqual({ results: [{ status: 'duplicate' }] });
});

test('nothing is acknowledged by a clock that is behind that of the log, and polls go on to count', async () => {
  let behind = 3_600_000;
  const log = createMemoryTelemetryLog();
  const control = log.control;
  await start({
    ...{ telemetry: { ...log, control: async (record) => (await control(record)) + behind }, clockMs: 20 },
  });
  expect(await fleet.send([['a', pollBody({ offer })]])).toEqual([{ status: 'accepted' }]);
  expect(log.partitions.flat().filter((record) => 'report' in record)).toMatchObject([
    { report: { deviceId: 'a', body: { kind: 'poll', offer: null } } },
  ]);
  expect(gateway.status().clockBehindMs).toBeGreaterThan(3_590_000);
  behind = 0;
  await expect.poll(() => gateway.status().clockBehindMs).toBeLessThan(1_000);
  expect((await fleet.send([['a', pollBody({ offer })]]))[0]).toHaveProperty('acknowledgedForMs');
});

test('what is wrong is refused with its reason and kept apart; the others of the batch count', async () => {
  const good = { deviceId: 'a', sequence: 1, body: { kind: 'healthy', contentVersion: 1 } } as const;
  const { status, body } = await fleet.post([
    fleet.sign(good),
    { ...fleet.sign(good), sequence: 2 },
    { ...fleet.sign(good), deviceId: 'other' },
    { ...fleet.sign(good), surplus: 1 },
    { ...fleet.sign(good), body: { kind: 'rebooted', contentVersion: 1 } },
    'nonsense',
    fleet.sign({ ...good, deviceId: 'b' }),
  ]);
  expect(status).toBe(200);
  const { results } = body as { results: { status: string; reason?: string }[] };
  expect(results.map((result) => result.status)).toEqual([
    'accepted',
    'rejected',
    'rejected',
    'rejected',
    'rejected',
    'rejected',
    'accepted',
  ]);
  expect(results[1]?.reason).toContain('MAC');
  expect(results[3]?.reason).toContain('surplus');
  expect(results[4]?.reason).toContain('body.kind');
  expect(
    reports()
      .map((report) => report.deviceId)
      .sort(),
  ).toEqual(['a', 'b']);
  expect(telemetry.refused.length).toBe(5);
});

test('a content version that the inventory could not hold is refused', async () => {
  const [most, more] = await fleet.send([
    ['a', pollBody({ version: 2 ** 31 - 1 })],
    ['b', pollBody({ version: 2 ** 31 })],
  ]);
  expect(most).toEqual({ status: 'accepted' });
  expect(more).toMatchObject({ status: 'rejected', reason: expect.stringContaining('body.contentVersion') });
});

test.each([[{}], [{ reports: [] }], [{ reports: new Array(2_001).fill({}) }], [[]]])(
  'a request that is no list of reports is refused as a whole',
  async (request) => {
    const response = await fetch(`${gateway.url}/v1/reports`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(request),
    });
    expect(response.status).toBe(400);
    expect(response.headers.get('content-type')).toContain('application/problem+json');
    expect(await response.json()).toMatchObject({ code: 'SRP_INPUT_REPORTS' });
  },
);

test('without the log nothing is acknowledged, and the same reports count when it is back', async () => {
  const append = vi.spyOn(telemetry, 'append');
  append.mockRejectedValueOnce(new SigrelError('SRP_DEP_KAFKA', 'Kafka did not take records'));
  const signed = fleet.sign({ deviceId: 'a', sequence: 1, body: pollBody({ offer }) });
  const down = await fleet.post([signed]);
  expect(down).toMatchObject({ status: 503, body: { code: 'SRP_DEP_KAFKA', status: 503 } });
  expect(JSON.stringify(down.body)).not.toContain('acknowledgedForMs');
  const back = await fleet.post([signed]);
  expect(back).toMatchObject({ status: 200, body: { results: [{ status: 'accepted' }] } });
  expect(reports().length).toBe(1);
});

test('the clock goes into every partition, and goes on after the log was away', async () => {
  await start({ clockMs: 20 });
  const control = vi.spyOn(telemetry, 'control');
  control.mockRejectedValueOnce(new SigrelError('SRP_DEP_KAFKA', 'Kafka did not take records'));
  await expect.poll(() => Math.min(...telemetry.partitions.map((records) => records.length))).toBeGreaterThan(3);
  expect(telemetry.partitions[0]?.[0]).toEqual({ control: { kind: 'clock' } });
});

const healthy = (deviceId: string, sequence: number): DeviceReport => ({
  ...{ deviceId, sequence, body: { kind: 'healthy', contentVersion: 1 } },
});
const offered = (deviceId: string, sequence: number): DeviceReport => ({
  ...{ deviceId, sequence, body: pollBody({ offer }) },
});
const engine = { name: 'ids', version: '1.0', packageVersion: '1.0-1', digest: 'ab'.repeat(32) };
type Answer = { readonly status: number; readonly body: { readonly results: readonly ReportResult[] } };
const post = async (signed: readonly unknown[]) => (await fleet.post(signed)) as Answer;
const statuses = ({ body }: Answer) => body.results.map(({ status }) => status);
/** Every report that came has exactly one end. */
const expectSum = () => {
  const { received, ...ends } = gateway.status().reports;
  expect(Object.values(ends).reduce((sum, one) => sum + one, 0)).toBe(received);
};

describe('keys of several epochs', () => {
  const now = Date.now();
  const ring: readonly FleetKey[] = [
    { epoch: 1, key: Buffer.alloc(32, 1), acceptedUntil: now - 1 },
    { epoch: 2, key: Buffer.alloc(32, 2), acceptedUntil: now + 3_600_000 },
    { epoch: 3, key: Buffer.alloc(32, 3), acceptedUntil: null },
  ];
  const signWith = (keyEpoch: number, report: DeviceReport, key = ring[keyEpoch - 1]?.key ?? fleetKey) => ({
    ...{ ...report, keyEpoch, mac: signReport(deviceKey(key, report.deviceId), report) },
  });

  test('each is taken under its own key until its end, and what is refused says why', async () => {
    await start({ keys: async () => ring });
    const { keyEpoch: _, ...unnumbered } = signWith(1, healthy('a', 9));
    const { body } = await post([
      signWith(2, healthy('a', 1)),
      signWith(3, healthy('a', 2)),
      signWith(2, healthy('a', 3)), // said before its new key came, and sent late
      signWith(3, healthy('b', 1), ring[1]?.key),
      signWith(1, healthy('c', 1)),
      unnumbered,
      signWith(4, healthy('d', 1)),
    ]);
    expect(body.results.map(({ status }) => status)).toEqual([
      ...['accepted', 'accepted', 'accepted', 'rejected', 'rejected', 'rejected', 'rejected'],
    ]);
    const reasons = body.results.map(({ reason }) => reason);
    expect(reasons[3]).toContain('MAC');
    expect(reasons[4]).toMatch(/^key epoch 1 has ended/);
    expect(reasons[5]).toBe(reasons[4]); // devices from before key rotation do not name theirs
    expect(reasons[6]).toMatch(/^there is no key epoch 4/);
    expect(gateway.status()).toMatchObject({ rejected: { 'key-epoch': 3, mac: 1 }, keyEpochs: [1, 2, 3] });
  });

  test('a rotation is seen by a running gateway, and one that cannot be read changes nothing', async () => {
    let keys: readonly FleetKey[] | Error = ring.slice(2);
    await start({
      keys: async () => {
        if (keys instanceof Error) throw keys;
        return keys;
      },
    });
    const next = Buffer.alloc(32, 4);
    expect(statuses(await post([signWith(4, healthy('a', 1), next)]))).toEqual(['rejected']);
    keys = [...ring.slice(2), { epoch: 4, key: next, acceptedUntil: null }];
    await expect.poll(() => gateway.status().keyEpochs).toEqual([3, 4]);
    keys = new Error('the disk is away');
    expect(statuses(await post([signWith(4, healthy('a', 1), next), signWith(3, healthy('a', 2))]))).toEqual([
      ...['accepted', 'accepted'],
    ]);
  });
});

describe('right after a rotation', () => {
  const [old, next] = [Buffer.alloc(32, 1), Buffer.alloc(32, 2)];
  const before: readonly FleetKey[] = [{ epoch: 1, key: old, acceptedUntil: null }];
  const after: readonly FleetKey[] = [...before, { epoch: 2, key: next, acceptedUntil: null }];
  const crash: DeviceReport = {
    ...{ deviceId: 'a', sequence: 1, body: { kind: 'crash', contentVersion: 1, words: 'signal 11' } },
  };
  const signed = { ...crash, keyEpoch: 2, mac: signReport(deviceKey(next, 'a'), crash) };
  const hour = 3_600_000;

  test('a report under the new key is taken by a gateway that has not read it yet', async () => {
    let ring = before;
    await start({ keys: async () => ring, refreshMs: hour });
    await expect.poll(() => gateway.status().keyEpochs).toEqual([1]);
    ring = after;
    expect(statuses(await post([signed]))).toEqual(['accepted']);
  });

  test('and while the keys cannot be read it is told to come again; there is no such key only when they were', async () => {
    let ring: readonly FleetKey[] | Error = before;
    const keys = async () => {
      if (ring instanceof Error) throw ring;
      return ring;
    };
    await start({ keys, refreshMs: hour });
    ring = new Error('the disk is away');
    const { status, body } = await post([signed]);
    expect(status).toBe(200);
    expect(body.results).toEqual([
      { status: 'limited', retryAfterMs: 1_000, reason: expect.stringMatching(/^there is no key epoch 2/) },
    ]);
    ring = before;
    expect(statuses(await post([signed]))).toEqual(['rejected']);
    ring = after;
    expect(statuses(await post([signed]))).toEqual(['accepted']);
    expectSum();
  });

  test('a new key is read also while the database is away', async () => {
    let ring = before;
    let away = false;
    const revoked = async () => {
      if (away) throw new Error('PostgreSQL is away');
      return new Map<string, string>();
    };
    await start({ keys: async () => ring, revoked });
    away = true;
    ring = after;
    await expect.poll(() => gateway.status().keyEpochs).toEqual([1, 2]);
  });
});

describe('revoked devices', () => {
  test('are refused with the reason, get no acknowledgement, and are heard again when they are restored', async () => {
    let revoked: ReadonlyMap<string, string> | Error = new Map();
    const read = vi.fn(async () => {
      if (revoked instanceof Error) throw revoked;
      return revoked;
    });
    await start({ revoked: read });
    expect(statuses(await post([fleet.sign(offered('a', 1)), fleet.sign(offered('b', 1))]))).toEqual([
      ...['accepted', 'accepted'],
    ]);
    revoked = new Map([['a', 'stolen']]);
    await expect.poll(() => gateway.status().revokedDevices).toBe(1);
    revoked = new Error('PostgreSQL is away');
    const before = read.mock.calls.length;
    await expect.poll(() => read.mock.calls.length).toBeGreaterThan(before + 1);
    const forged = { ...fleet.sign(healthy('a', 4)), mac: 'ab'.repeat(32) };
    const { body } = await post([
      fleet.sign(offered('a', 2)),
      fleet.sign(offered('a', 1)), // also what it was acknowledged before
      fleet.sign(offered('b', 2)),
      forged,
    ]);
    const refusal = { status: 'rejected', reason: 'device a is revoked: stolen' };
    expect(body.results.slice(0, 2)).toEqual([refusal, refusal]);
    expect(body.results[2]?.acknowledgedForMs).toBeGreaterThan(0);
    expect(body.results[3]?.reason).toContain('MAC'); // who has not the key is not told
    expect(telemetry.refused.map(({ reason }) => reason)).toContain(refusal.reason);
    expect(reports().map(({ deviceId, sequence }) => [deviceId, sequence])).not.toContainEqual(['a', 2]);
    revoked = new Map();
    await expect.poll(() => gateway.status().revokedDevices).toBe(0);
    expect((await post([fleet.sign(offered('a', 2))])).body.results[0]?.acknowledgedForMs).toBeGreaterThan(0);
  });

  test('a gateway that cannot read them at its start does not start', async () => {
    const nobody = async () => {
      throw new Error('PostgreSQL is away');
    };
    await expect(start({ revoked: nobody })).rejects.toThrow('PostgreSQL is away');
  });
});

describe('the site of a device', () => {
  const at = (site: string | null, report: DeviceReport): DeviceReport => ({
    ...report,
    ...(site !== null && { site }),
  });
  const crash = (deviceId: string, sequence: number): DeviceReport => ({
    ...{ deviceId, sequence, body: { kind: 'crash', contentVersion: 1, words: 'signal 11' } },
  });

  test('is the first that it says, for every kind of report, and another one is refused by name', async () => {
    const { body } = await post([
      fleet.sign(at('x', healthy('a', 1))),
      fleet.sign(at('y', crash('a', 2))),
      fleet.sign(at('z', offered('a', 3))),
      fleet.sign(crash('a', 4)),
      fleet.sign(at('y', healthy('a', 1))), // nor as a repeat
      fleet.sign(at('x', offered('a', 5))),
      fleet.sign(offered('b', 1)),
      fleet.sign(at('x', healthy('b', 2))),
    ]);
    expect(body.results.map(({ status }) => status)).toEqual([
      ...['accepted', 'rejected', 'rejected', 'rejected', 'rejected', 'accepted', 'accepted', 'rejected'],
    ]);
    expect(body.results[1]?.reason).toMatch(/^site: a says y, expected x; revoke and restore/);
    expect(body.results[3]?.reason).toMatch(/^site: a says none, expected x/);
    expect(body.results[7]?.reason).toMatch(/^site: b says x, expected none/);
    expect(gateway.status().rejected.site).toBe(5);
    expect(
      reports()
        .map(({ deviceId, sequence }) => `${deviceId}${sequence}`)
        .sort(),
    ).toEqual(['a1', 'a5', 'b1']);
  });

  test('stays after a restart, and is free when a person has revoked and restored the device', async () => {
    const known = new Map<string, string | null>();
    const sites: DeviceSites = {
      pin: async (said) =>
        said.map(({ deviceId, site }) => {
          if (!known.has(deviceId)) known.set(deviceId, site);
          return { deviceId, site: known.get(deviceId) ?? null };
        }),
    };
    let revoked: ReadonlyMap<string, string> = new Map();
    const changes = { sites, revoked: async () => revoked };
    await start(changes);
    expect(statuses(await post([fleet.sign(at('x', healthy('a', 1)))]))).toEqual(['accepted']);
    await start(changes);
    expect(statuses(await post([fleet.sign(at('y', healthy('a', 2)))]))).toEqual(['rejected']);
    revoked = new Map([['a', 'moved']]);
    await expect.poll(() => gateway.status().revokedDevices).toBe(1);
    known.delete('a'); // as restoring it does
    revoked = new Map();
    await expect.poll(() => gateway.status().revokedDevices).toBe(0);
    expect(statuses(await post([fleet.sign(at('y', healthy('a', 3)))]))).toEqual(['accepted']);
    expect(statuses(await post([fleet.sign(at('x', healthy('a', 4)))]))).toEqual(['rejected']);
  });

  test('of a new device cannot be looked up: it is told to come again, and the devices that are known are heard', async () => {
    const sites = createMemorySites();
    await start({ sites });
    expect(statuses(await post([fleet.sign(healthy('a', 1))]))).toEqual(['accepted']);
    vi.spyOn(sites, 'pin').mockRejectedValueOnce(new Error('PostgreSQL is away'));
    const crashed = fleet.sign(at('x', crash('b', 1)));
    const { status, body } = await post([crashed, fleet.sign(healthy('a', 2))]);
    expect(status).toBe(200);
    expect(body.results).toEqual([
      { status: 'limited', retryAfterMs: 1_000, reason: expect.stringContaining('where b stands') },
      { status: 'accepted' },
    ]);
    vi.spyOn(sites, 'pin').mockRejectedValueOnce(new Error('PostgreSQL is away'));
    expect((await post([crashed])).status).toBe(200); // not 429: it is not above its rate
    expect(statuses(await post([crashed]))).toEqual(['accepted']);
    expectSum();
  });
});

describe('a poll that is sent again', () => {
  test('to another gateway, or after a restart, is acknowledged as long as it was the first time', async () => {
    const acknowledgements = createMemoryAcknowledgements();
    await start({ acknowledgements });
    const captured = fleet.sign(offered('a', 5));
    const first = await post([captured]);
    const forMs = first.body.results[0]?.acknowledgedForMs ?? 0;
    expect(forMs).toBeGreaterThan(0);
    await start({ acknowledgements, ackMs: 600_000 });
    const [again] = (await post([captured])).body.results;
    expect(again).toEqual({ status: 'accepted', acknowledgedForMs: expect.any(Number) });
    expect(again?.acknowledgedForMs).toBeLessThanOrEqual(forMs);
    // A newer one makes the older worthless, also for a gateway that saw neither.
    await start({ acknowledgements, ackMs: 600_000 });
    expect((await post([fleet.sign(offered('a', 6))])).body.results[0]?.acknowledgedForMs).toBeGreaterThan(forMs);
    await start({ acknowledgements, ackMs: 600_000 });
    expect((await post([captured])).body.results).toEqual([{ status: 'accepted' }]);
  });

  test('after it was withdrawn is not acknowledged elsewhere: the log does not count it, and the next poll is', async () => {
    const acknowledgements = createMemoryAcknowledgements();
    await start({ acknowledgements });
    grantedMs = () => 0;
    const withdrawn = fleet.sign(offered('a', 5));
    expect((await post([withdrawn])).body.results).toEqual([{ status: 'accepted' }]); // an answer that is lost
    for (let round = 0; round < 2; round += 1) {
      await start({ acknowledgements });
      expect((await post([withdrawn])).body.results).toEqual([{ status: 'accepted' }]);
      expect((await post([withdrawn])).body.results).toEqual([{ status: 'duplicate' }]);
    }
    expect((await post([fleet.sign(offered('a', 6))])).body.results[0]).toHaveProperty('acknowledgedForMs');
  });

  test('is not acknowledged while that cannot be kept; the report counts, and the next poll is', async () => {
    const acknowledgements = createMemoryAcknowledgements();
    const grant = vi.spyOn(acknowledgements, 'grant');
    grant.mockRejectedValueOnce(new Error('PostgreSQL is away'));
    await start({ acknowledgements });
    expect((await post([fleet.sign(offered('a', 1))])).body.results).toEqual([{ status: 'accepted' }]);
    expect(gateway.status().unacknowledged).toBe(1);
    expect((await post([fleet.sign(offered('a', 2))])).body.results[0]).toHaveProperty('acknowledgedForMs');
    expect(reports().length).toBe(2);
  });
});

describe('limits', () => {
  const wild = { deviceRate: { perSecond: 0.001, burst: 3 } };

  test('a device above its rate is told when to come again; its neighbours are not touched', async () => {
    await start({ limits: wild });
    const many = [1, 2, 3, 4, 5].map((sequence) => fleet.sign(healthy('a', sequence)));
    const mixed = await post([...many, fleet.sign(healthy('b', 1))]);
    expect(statuses(mixed)).toEqual(['accepted', 'accepted', 'accepted', 'limited', 'limited', 'accepted']);
    expect(mixed.body.results[3]?.retryAfterMs).toBeGreaterThan(900_000);
    expect(reports().filter(({ deviceId }) => deviceId === 'a').length).toBe(3);
    // What it said before is still known, and costs it nothing.
    expect(statuses(await post(many.slice(0, 4)))).toEqual(['duplicate', 'duplicate', 'duplicate', 'limited']);
    expect(gateway.status().reports).toMatchObject({ accepted: 4, duplicate: 3, limited: 3 });
    expectSum();
    expect(telemetry.refused).toEqual([]);
  });

  test('a request of which nothing could be taken is answered with 429 and Retry-After', async () => {
    await start({ limits: wild });
    await post([1, 2, 3].map((sequence) => fleet.sign(healthy('a', sequence))));
    const response = await fetch(`${gateway.url}/v1/reports`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ reports: [fleet.sign(healthy('a', 4))] }),
    });
    expect(response.status).toBe(429);
    expect(Number(response.headers.get('retry-after'))).toBeGreaterThan(900);
    expect(await response.json()).toMatchObject({ code: 'SRP_RULE_DEVICE_RATE' });
    expectSum();
  });

  test('reports that Kafka did not take are not held against the device', async () => {
    await start({ limits: wild });
    const signed = [1, 2, 3].map((sequence) => fleet.sign(healthy('a', sequence)));
    const append = vi.spyOn(telemetry, 'append');
    for (let round = 0; round < 5; round += 1) {
      append.mockRejectedValueOnce(new SigrelError('SRP_DEP_KAFKA', 'Kafka did not take records'));
      expect((await fleet.post(signed)).status).toBe(503);
    }
    expect(statuses(await post(signed))).toEqual(['accepted', 'accepted', 'accepted']);
    expect(gateway.status().reports).toMatchObject({ received: 18, accepted: 3, unavailable: 15 });
  });

  test('of a device that was forgotten to keep memory bounded, reports are taken as before', async () => {
    await start({ limits: { devices: 2 } });
    for (const id of ['a', 'b', 'c', 'd']) await post([fleet.sign(healthy(id, 1))]);
    expect(gateway.status().devices).toBe(2);
    expect(statuses(await post([fleet.sign(healthy('a', 2)), fleet.sign(healthy('d', 1))]))).toEqual([
      ...['accepted', 'duplicate'],
    ]);
    const invented = { ...fleet.sign(healthy('z', 1)), mac: '0'.repeat(64) };
    await post([invented]);
    expect(gateway.status().devices).toBe(2);
  });

  test('a device may become another engine, and not a new one with every poll', async () => {
    const engines = Array.from({ length: 12 }, (_, n) => ({ ...engine, version: `1.${n}` }));
    const polls = engines.map((one, n) =>
      fleet.sign({ ...healthy('a', n + 1), body: { ...pollBody(), engine: one } as never }),
    );
    const { body } = await post([...polls, fleet.sign(healthy('a', 99))]);
    expect(body.results.map(({ status }) => status)).toEqual([
      ...[...Array(8).fill('accepted'), ...Array(4).fill('rejected'), 'accepted'],
    ]);
    expect(body.results[8]?.reason).toMatch(/^body.engine: a has been too many engines/);
    expect(gateway.status().rejected.description).toBe(4);
    const same = fleet.sign({ ...healthy('a', 100), body: { ...pollBody(), engine: engines[7] } as never });
    expect(statuses(await post([same]))).toEqual(['accepted']);
  });

  test('more in flight than Kafka can take soon is turned away with 503 before it is read, and taken later', async () => {
    await start({ limits: { bytesInFlight: 1_500 } });
    let free = () => {};
    const held = new Promise<void>((resolve) => {
      free = resolve;
    });
    const append = telemetry.append;
    vi.spyOn(telemetry, 'append').mockImplementation((list) => held.then(() => append(list)));
    const batch = (id: string) => [1, 2, 3, 4, 5, 6].map((sequence) => fleet.sign(healthy(id, sequence)));
    const first = post(batch('a'));
    await expect.poll(() => gateway.status().bytesInFlight).toBeGreaterThan(500);
    const response = await fetch(`${gateway.url}/v1/reports`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ reports: batch('b') }),
    });
    expect(response.status).toBe(503);
    expect(response.headers.get('retry-after')).toBe('1');
    expect(await response.json()).toMatchObject({ code: 'SRP_DEP_OVERLOADED' });
    free();
    expect(statuses(await first)).toEqual(Array(6).fill('accepted'));
    expect(statuses(await post(batch('b')))).toEqual(Array(6).fill('accepted'));
    await expect.poll(() => gateway.status().bytesInFlight).toBe(0);
    expect(gateway.status().requests).toEqual({ unreadable: 0, overloaded: 1 });
  });

  test('a client that goes away does not make room for what is still on its way to the log', async () => {
    let free = () => {};
    const held = new Promise<void>((resolve) => {
      free = resolve;
    });
    vi.spyOn(telemetry, 'append').mockImplementation(() => held);
    const body = JSON.stringify({ reports: [fleet.sign(healthy('a', 1))] });
    const headers = { 'content-type': 'application/json', 'content-length': body.length };
    const sent = httpRequest(`${gateway.url}/v1/reports`, { method: 'POST', headers });
    const closed = new Promise((resolve) => sent.once('close', resolve));
    sent.on('error', () => {});
    sent.end(body);
    await expect.poll(() => vi.mocked(telemetry.append).mock.calls.length).toBe(1);
    sent.destroy();
    await closed;
    await fetch(`${gateway.url}/v1/status`); // the gateway has seen its going
    expect(gateway.status().bytesInFlight).toBe(body.length);
    free();
    await expect.poll(() => gateway.status().bytesInFlight).toBe(0);
  });
});

describe('what is refused', () => {
  const raw = (body: string, type = 'application/json') =>
    fetch(`${gateway.url}/v1/reports`, { method: 'POST', headers: { 'content-type': type }, body });

  test.each([
    ['no JSON', '{"reports":', 'application/json', 400, 'SRP_INPUT_REPORTS'],
    ['nothing at all', '', 'application/json', 400, 'SRP_INPUT_REPORTS'],
    ['another type', '{"reports":[{}]}', 'text/plain', 415, 'SRP_INPUT_REPORTS'],
    [
      'more than a request may hold',
      `{"reports":["${'x'.repeat(4 * 2 ** 20)}"]}`,
      'application/json',
      413,
      'SRP_INPUT_SIZE',
    ],
  ])('%s is refused as a whole, with what was expected', async (_, body, type, status, code) => {
    const response = await raw(body, type);
    expect(response.status).toBe(status);
    expect(response.headers.get('content-type')).toContain('application/problem+json');
    const problem = (await response.json()) as { code: string; detail: string };
    expect(problem.code).toBe(code);
    expect(problem.detail).toMatch(/expected application\/json|larger than 4194304 bytes|reports/);
    expect(gateway.status().requests).toEqual({ unreadable: 1, overloaded: 0 });
  });

  const good = healthy('a', 1);
  const crash = (words: string) => ({ ...good, body: { kind: 'crash', contentVersion: 1, words } });
  const poll = (changes: object) => ({ ...good, body: { ...pollBody(), ...changes } });
  test.each<[string, RegExp, unknown]>([
    ['a device id that is no name', /^deviceId: expected 1 to 128 of/, { ...good, deviceId: '../../etc' }],
    ['a device id that is too long', /^deviceId: expected 1 to 128 of/, { ...good, deviceId: 'x'.repeat(129) }],
    ['a negative sequence', /^sequence: .*>=0/, { ...good, sequence: -1 }],
    ['a sequence beyond what a number holds', /^sequence: .*<=9007199254740991/, { ...good, sequence: 2 ** 53 }],
    ['words that are too long', /^body.words: .*<=500/, crash('x'.repeat(501))],
    ['words that no MAC can be of', /^body.words: expected well-formed/, crash('\ud800')],
    ['a digest of another length', /^body.engine.digest: expected 64/, poll({ engine: { ...engine, digest: 'ab' } })],
    ['an engine that is a path', /^body.engine.name: expected 1 to 64/, poll({ engine: { ...engine, name: '../x' } })],
    ['another fail mode', /^body.failMode: .*fail-open/, poll({ failMode: 'open' })],
    [
      'a version that the inventory cannot hold',
      /^body.directorVersion: .*<=2147483647/,
      poll({ directorVersion: 2 ** 31 }),
    ],
    ['an offer without a release', /^body.offer.releaseId: /, poll({ offer: { contentVersion: 1 } })],
    ['a field that nobody knows', /^report: .*"surplus"/, { ...good, surplus: 1 }],
    ['a field with an endless name', /^report: .{0,300}$/, { ...good, ['x'.repeat(100_000)]: 1 }],
    ['another prototype', /^report: .*"__proto__"/, JSON.parse(JSON.stringify(good).replace('{', '{"__proto__":{},'))],
    ['a key epoch of none', /^keyEpoch: .*>=1/, { ...good, keyEpoch: 0 }],
    ['a depth that cannot be written', /^body: /, { ...good, body: '@deep' }],
  ])('%s is refused by name, and its neighbours are taken', async (_, reason, report) => {
    const deep = '['.repeat(100_000) + ']'.repeat(100_000);
    const mac = { mac: 'ab'.repeat(32) };
    const text = JSON.stringify([fleet.sign(good), Object.assign(report as object, mac), fleet.sign(healthy('b', 1))]);
    const response = await raw(`{"reports":${text.replace('"@deep"', deep)}}`);
    expect(response.status).toBe(200);
    const { results } = (await response.json()) as { results: ReportResult[] };
    expect(results.map(({ status }) => status)).toEqual(['accepted', 'rejected', 'accepted']);
    expect(results[1]?.reason).toMatch(reason);
    expect(telemetry.refused).toEqual([{ reason: results[1]?.reason, received: expect.any(String) }]);
    expect(JSON.stringify(telemetry.refused).length).toBeLessThan(10_000);
    expect(gateway.status()).toMatchObject({
      reports: { received: 3, accepted: 2, rejected: 1 },
      rejected: { schema: 1 },
    });
  });

  test('beyond what is kept it is counted, the log of refusals says how much, and /v1/status has it all', async () => {
    await start({ limits: { deadLetterRate: { perSecond: 0.001, burst: 3 } } });
    await post(Array.from({ length: 10 }, () => 'nonsense'));
    await post(['more']);
    expect(telemetry.refused.map(({ received }) => received)).toEqual(['', ...Array(3).fill('"nonsense"')]);
    expect(telemetry.refused[0]?.reason).toBe('7 more refused reports were not kept');
    const status = await (await fetch(`${gateway.url}/v1/status`)).json();
    expect(status).toEqual(gateway.status());
    expect(status).toMatchObject({
      reports: { received: 11, accepted: 0, duplicate: 0, rejected: 11, limited: 0, unavailable: 0 },
      deadLetters: { kept: 3, dropped: 8, waiting: 0 },
    });
  });

  test('and not taken by the log of refusals is counted, and said with the next one that is', async () => {
    const refuse = vi.spyOn(telemetry, 'refuse');
    refuse.mockRejectedValueOnce(new SigrelError('SRP_DEP_KAFKA', 'Kafka did not take records'));
    expect(statuses(await post(['one', 'two', fleet.sign(good)]))).toEqual(['rejected', 'rejected', 'accepted']);
    await expect.poll(() => gateway.status().deadLetters).toEqual({ kept: 0, dropped: 2, waiting: 0 });
    await post(['three']);
    expect(telemetry.refused).toEqual([
      { reason: '2 more refused reports were not kept', received: '' },
      { reason: expect.stringContaining('expected object'), received: '"three"' },
    ]);
    expect(gateway.status().deadLetters).toEqual({ kept: 1, dropped: 2, waiting: 0 });
  });
});
