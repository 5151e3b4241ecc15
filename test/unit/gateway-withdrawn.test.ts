/** A poll whose offer was withdrawn, and whose repeat comes to another gateway: no device takes what nobody counts. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { ReportResult } from '../../domain/telemetry.ts';
import { silent } from '../../infra/kafka/client.ts';
import { createMemoryAcknowledgements } from '../../infra/memory/acknowledgements.ts';
import { createMemoryTelemetryLog } from '../../infra/memory/telemetry-log.ts';
import { type Gateway, startGateway } from '../../services/gateway.ts';
import { gatewayPorts, newFleet, pollBody } from '../support/devices.ts';

const fleetKey = Buffer.alloc(32, 7);
const offer = { releaseId: 'r1', contentVersion: 2 };
const running: Gateway[] = [];
let telemetry: ReturnType<typeof createMemoryTelemetryLog>;
let acknowledgements: ReturnType<typeof createMemoryAcknowledgements>;

beforeEach(() => {
  telemetry = createMemoryTelemetryLog();
  acknowledgements = createMemoryAcknowledgements();
});
afterEach(async () => {
  vi.restoreAllMocks();
  await Promise.all(running.splice(0).map((one) => one.stop()));
});

/** One of several gateways before the same log and database, to which the store grants so much. */
const start = async (grantedMs: number, deviceRate = { perSecond: 10, burst: 120 }) => {
  const gateway = await startGateway({
    ...{ ...gatewayPorts(fleetKey), acknowledgements, telemetry, port: 0, clockMs: 60_000, ackMs: 60_000, log: silent },
    ...{ offers: async () => () => grantedMs, limits: { deviceRate } },
  });
  running.push(gateway);
  const fleet = newFleet(gateway.url, fleetKey);
  const post = async (...signed: readonly unknown[]) => {
    const { status, body } = await fleet.post(signed);
    expect(status).toBe(200);
    return (body as { results: readonly ReportResult[] }).results;
  };
  return { gateway, post, sign: fleet.sign };
};
const reports = () => telemetry.partitions.flat().flatMap((record) => ('report' in record ? [record.report] : []));

test('what cannot be kept to be withdrawn is not written, and comes again, as if it had never come', async () => {
  vi.spyOn(acknowledgements, 'grant').mockRejectedValueOnce(new Error('PostgreSQL is away'));
  const stopped = await start(0, { perSecond: 0.001, burst: 2 });
  const poll = stopped.sign({ deviceId: 'a', sequence: 5, body: pollBody({ offer }) });
  const neighbour = stopped.sign({ deviceId: 'b', sequence: 1, body: pollBody() });
  expect(await stopped.post(poll, neighbour)).toEqual([
    { status: 'limited', retryAfterMs: 1_000, reason: expect.stringContaining('the database is not available') },
    { status: 'accepted' },
  ]);
  expect(reports().map(({ deviceId }) => deviceId)).toEqual(['b']);
  expect(stopped.gateway.status().reports).toMatchObject({ received: 2, accepted: 1, limited: 1 });
  // Its answer is lost, and meanwhile the store grants it: the first record of the poll is the one that is counted.
  const other = await start(30_000);
  expect(await other.post(poll)).toEqual([{ status: 'accepted', acknowledgedForMs: expect.any(Number) }]);
  expect(reports().find(({ deviceId }) => deviceId === 'a')?.body).toMatchObject({ offer });
  // What was not taken was not held against the device.
  const later = [6, 7].map((sequence) => stopped.sign({ deviceId: 'a', sequence, body: pollBody() }));
  expect((await stopped.post(...later)).map(({ status }) => status)).toEqual(['accepted', 'accepted']);
});

test('is kept before the log has it: whoever takes its repeat at that moment acknowledges nothing', async () => {
  const stopped = await start(0);
  const other = await start(30_000);
  const poll = stopped.sign({ deviceId: 'a', sequence: 5, body: pollBody({ offer }) });
  const append = telemetry.append;
  let atOther: readonly ReportResult[] = [];
  vi.spyOn(telemetry, 'append').mockImplementationOnce(async (list) => {
    await append(list);
    atOther = await other.post(poll);
  });
  expect(await stopped.post(poll)).toEqual([{ status: 'accepted' }]);
  expect(atOther).toEqual([{ status: 'accepted' }]);
  expect(reports()[0]?.body).toMatchObject({ offer: null });
});

test('of which the log did not take the record is not acknowledged when it comes again, and the next poll is', async () => {
  const stopped = await start(0);
  const poll = stopped.sign({ deviceId: 'a', sequence: 5, body: pollBody({ offer }) });
  vi.spyOn(telemetry, 'append').mockRejectedValueOnce(new Error('Kafka is away'));
  const { status } = await newFleet(stopped.gateway.url, fleetKey).post([poll]);
  expect(status).toBe(503);
  const other = await start(30_000);
  expect(await other.post(poll)).toEqual([{ status: 'accepted' }]);
  const next = other.sign({ deviceId: 'a', sequence: 6, body: pollBody({ offer }) });
  expect(await other.post(next)).toEqual([{ status: 'accepted', acknowledgedForMs: expect.any(Number) }]);
});
