import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { SigrelError } from '../../domain/errors.ts';
import { silent } from '../../infra/kafka/client.ts';
import { createMemoryTelemetryLog, type MemoryTelemetryLog } from '../../infra/memory/telemetry-log.ts';
import { type Gateway, startGateway } from '../../services/gateway.ts';
import { newFleet, pollBody } from '../support/devices.ts';

const fleetKey = Buffer.alloc(32, 7);
const ackMs = 6_000;
const offer = { releaseId: 'r1', contentVersion: 2 };

/** How long the store grants what polls ask for. */
let grantedMs: () => number;
let telemetry: MemoryTelemetryLog;
let gateway: Gateway;
let fleet: ReturnType<typeof newFleet>;
const start = async (clockMs = 60_000) => {
  telemetry = createMemoryTelemetryLog();
  grantedMs = () => 60_000;
  const offers = async () => grantedMs;
  gateway = await startGateway({ telemetry, fleetKey, port: 0, clockMs, ackMs, offers, log: silent });
  fleet = newFleet(gateway.url, fleetKey);
};
beforeEach(() => start());
afterEach(() => gateway.stop());

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
  expect(results[1]?.acknowledgedForMs).toBe(ackMs);
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
  await gateway.stop();
  await start(20);
  const control = vi.spyOn(telemetry, 'control');
  control.mockRejectedValueOnce(new SigrelError('SRP_DEP_KAFKA', 'Kafka did not take records'));
  await expect.poll(() => Math.min(...telemetry.partitions.map((records) => records.length))).toBeGreaterThan(3);
  expect(telemetry.partitions[0]?.[0]).toEqual({ control: { kind: 'clock' } });
});
