/** What the gateway answers and writes: when a report counts, and when a poll is acknowledged. */
import { describe, expect, test, vi } from 'vitest';
import { SigrelError } from '../../domain/errors.ts';
import { createMemoryAcknowledgements } from '../../infra/memory/acknowledgements.ts';
import { createMemoryTelemetryLog } from '../../infra/memory/telemetry-log.ts';
import { pollBody } from '../support/devices.ts';
import { ackMs, gatewayPerTest, offer, offered } from '../support/gateways.ts';

const world = gatewayPerTest();
const { start, sign, send, post, postText, reports } = world;

test('reports are answered in order; only a poll with an offer is acknowledged, for a length of time', async () => {
  const results = await send([
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
  const signed = sign({ deviceId: 'a', sequence: 3, body: pollBody({ offer }) });
  const first = await post([signed]);
  const second = await post([signed]);
  expect(first.body).toMatchObject({ results: [{ status: 'accepted' }] });
  const forMs = async () => (await post([signed])).body.results[0]?.acknowledgedForMs;
  await expect.poll(forMs).toBeLessThan(ackMs);
  expect(second.body).toMatchObject({ results: [{ status: 'duplicate' }] });
  expect(reports().length).toBe(1);
});

test('what the store does not grant is neither acknowledged nor written as an offer', async () => {
  world.grant(0);
  expect(await send([['a', pollBody({ offer })]])).toEqual([{ status: 'accepted' }]);
  expect(reports()).toMatchObject([{ deviceId: 'a', body: { kind: 'poll', offer: null } }]);
  world.grant(2_500.5);
  expect(await send([['a', pollBody({ offer })]])).toEqual([{ status: 'accepted', acknowledgedForMs: 2_500 }]);
  expect(reports()[1]).toMatchObject({ body: { offer } });
});

test('what is stopped while the log is written is not acknowledged, nor is its repetition', async () => {
  const append = vi.spyOn(world.telemetry, 'append');
  append.mockImplementationOnce(async () => {
    world.grant(0);
  });
  const signed = sign({ deviceId: 'a', sequence: 1, body: pollBody({ offer }) });
  expect((await post([signed])).body).toEqual({ results: [{ status: 'accepted' }] });
  expect((await post([signed])).body).toEqual({ results: [{ status: 'duplicate' }] });
});

test('nothing is acknowledged by a clock that is behind that of the log, and polls go on to count', async () => {
  let behind = 3_600_000;
  const log = createMemoryTelemetryLog();
  const control = log.control;
  await start({
    ...{ telemetry: { ...log, control: async (record) => (await control(record)) + behind }, clockMs: 20 },
  });
  expect(await send([['a', pollBody({ offer })]])).toEqual([{ status: 'accepted' }]);
  expect(log.partitions.flat().filter((record) => 'report' in record)).toMatchObject([
    { report: { deviceId: 'a', body: { kind: 'poll', offer: null } } },
  ]);
  expect(world.gateway.status().clockBehindMs).toBeGreaterThan(3_590_000);
  behind = 0;
  await expect.poll(() => world.gateway.status().clockBehindMs).toBeLessThan(1_000);
  expect((await send([['a', pollBody({ offer })]]))[0]).toHaveProperty('acknowledgedForMs');
});

test('what is wrong is refused with its reason and kept apart; the others of the batch count', async () => {
  const good = { deviceId: 'a', sequence: 1, body: { kind: 'healthy', contentVersion: 1 } } as const;
  const { status, body } = await post([
    sign(good),
    { ...sign(good), sequence: 2 },
    { ...sign(good), deviceId: 'other' },
    { ...sign(good), surplus: 1 },
    { ...sign(good), body: { kind: 'rebooted', contentVersion: 1 } },
    'nonsense',
    sign({ ...good, deviceId: 'b' }),
  ]);
  expect(status).toBe(200);
  const { results } = body;
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
  expect(world.telemetry.refused.length).toBe(5);
});

test('a content version that the inventory could not hold is refused', async () => {
  const [most, more] = await send([
    ['a', pollBody({ version: 2 ** 31 - 1 })],
    ['b', pollBody({ version: 2 ** 31 })],
  ]);
  expect(most).toEqual({ status: 'accepted' });
  expect(more).toMatchObject({ status: 'rejected', reason: expect.stringContaining('body.contentVersion') });
});

test.each([[{}], [{ reports: [] }], [{ reports: new Array(2_001).fill({}) }], [[]]])(
  'a request that is no list of reports is refused as a whole',
  async (request) => {
    const response = await postText(JSON.stringify(request));
    expect(response.status).toBe(400);
    expect(response.headers.get('content-type')).toContain('application/problem+json');
    expect(await response.json()).toMatchObject({ code: 'SRP_INPUT_REPORTS' });
  },
);

test('without the log nothing is acknowledged, and the same reports count when it is back', async () => {
  const append = vi.spyOn(world.telemetry, 'append');
  append.mockRejectedValueOnce(new SigrelError('SRP_DEP_KAFKA', 'Kafka did not take records'));
  const signed = sign({ deviceId: 'a', sequence: 1, body: pollBody({ offer }) });
  const down = await post([signed]);
  expect(down).toMatchObject({ status: 503, body: { code: 'SRP_DEP_KAFKA', status: 503 } });
  expect(JSON.stringify(down.body)).not.toContain('acknowledgedForMs');
  const back = await post([signed]);
  expect(back).toMatchObject({ status: 200, body: { results: [{ status: 'accepted' }] } });
  expect(reports().length).toBe(1);
});

test('the clock goes into every partition, and goes on after the log was away', async () => {
  await start({ clockMs: 20 });
  const control = vi.spyOn(world.telemetry, 'control');
  control.mockRejectedValueOnce(new SigrelError('SRP_DEP_KAFKA', 'Kafka did not take records'));
  await expect.poll(() => Math.min(...world.telemetry.partitions.map((records) => records.length))).toBeGreaterThan(3);
  expect(world.telemetry.partitions[0]?.[0]).toEqual({ control: { kind: 'clock' } });
});

describe('a poll that is sent again', () => {
  test('to another gateway, or after a restart, is acknowledged as long as it was the first time', async () => {
    const acknowledgements = createMemoryAcknowledgements();
    await start({ acknowledgements });
    const captured = sign(offered('a', 5));
    const first = await post([captured]);
    const forMs = first.body.results[0]?.acknowledgedForMs ?? 0;
    expect(forMs).toBeGreaterThan(0);
    await start({ acknowledgements, ackMs: 600_000 });
    const [again] = (await post([captured])).body.results;
    expect(again).toEqual({ status: 'accepted', acknowledgedForMs: expect.any(Number) });
    expect(again?.acknowledgedForMs).toBeLessThanOrEqual(forMs);
    // A newer one makes the older worthless, also for a gateway that saw neither.
    await start({ acknowledgements, ackMs: 600_000 });
    expect((await post([sign(offered('a', 6))])).body.results[0]?.acknowledgedForMs).toBeGreaterThan(forMs);
    await start({ acknowledgements, ackMs: 600_000 });
    expect((await post([captured])).body.results).toEqual([{ status: 'accepted' }]);
  });

  test('after it was withdrawn is not acknowledged elsewhere: the log does not count it, and the next poll is', async () => {
    const acknowledgements = createMemoryAcknowledgements();
    await start({ acknowledgements });
    world.grant(0);
    const withdrawn = sign(offered('a', 5));
    expect((await post([withdrawn])).body.results).toEqual([{ status: 'accepted' }]); // an answer that is lost
    for (let round = 0; round < 2; round += 1) {
      await start({ acknowledgements });
      expect((await post([withdrawn])).body.results).toEqual([{ status: 'accepted' }]);
      expect((await post([withdrawn])).body.results).toEqual([{ status: 'duplicate' }]);
    }
    expect((await post([sign(offered('a', 6))])).body.results[0]).toHaveProperty('acknowledgedForMs');
  });

  test('is not acknowledged while that cannot be kept; the report counts, and the next poll is', async () => {
    const acknowledgements = createMemoryAcknowledgements();
    const grant = vi.spyOn(acknowledgements, 'grant');
    grant.mockRejectedValueOnce(new Error('PostgreSQL is away'));
    await start({ acknowledgements });
    expect((await post([sign(offered('a', 1))])).body.results).toEqual([{ status: 'accepted' }]);
    expect(world.gateway.status().unacknowledged).toBe(1);
    expect((await post([sign(offered('a', 2))])).body.results[0]).toHaveProperty('acknowledgedForMs');
    expect(reports().length).toBe(2);
  });
});
