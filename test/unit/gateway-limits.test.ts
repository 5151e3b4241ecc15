/** What one device may say in a time, and all of them together. */
import { request as httpRequest } from 'node:http';
import { describe, expect, test, vi } from 'vitest';
import { SigrelError } from '../../domain/errors.ts';
import { engineA, pollBody } from '../support/devices.ts';
import { gatewayPerTest, healthy, statuses } from '../support/gateways.ts';

const world = gatewayPerTest();
const { start, sign, post, postText, reports, expectSum } = world;

describe('limits', () => {
  const wild = { deviceRate: { perSecond: 0.001, burst: 3 } };

  test('a device above its rate is told when to come again; its neighbours are not touched', async () => {
    await start({ limits: wild });
    const many = [1, 2, 3, 4, 5].map((sequence) => sign(healthy('a', sequence)));
    const mixed = await post([...many, sign(healthy('b', 1))]);
    expect(statuses(mixed)).toEqual(['accepted', 'accepted', 'accepted', 'limited', 'limited', 'accepted']);
    expect(mixed.body.results[3]?.retryAfterMs).toBeGreaterThan(900_000);
    expect(reports().filter(({ deviceId }) => deviceId === 'a').length).toBe(3);
    // What it said before is still known, and costs it nothing.
    expect(statuses(await post(many.slice(0, 4)))).toEqual(['duplicate', 'duplicate', 'duplicate', 'limited']);
    expect(world.gateway.status().reports).toMatchObject({ accepted: 4, duplicate: 3, limited: 3 });
    expectSum();
    expect(world.telemetry.refused).toEqual([]);
  });

  test('a request of which nothing could be taken is answered with 429 and Retry-After', async () => {
    await start({ limits: wild });
    await post([1, 2, 3].map((sequence) => sign(healthy('a', sequence))));
    const response = await postText(JSON.stringify({ reports: [sign(healthy('a', 4))] }));
    expect(response.status).toBe(429);
    expect(Number(response.headers.get('retry-after'))).toBeGreaterThan(900);
    expect(await response.json()).toMatchObject({ code: 'SRP_RULE_DEVICE_RATE' });
    expectSum();
  });

  test('reports that Kafka did not take are not held against the device', async () => {
    await start({ limits: wild });
    const signed = [1, 2, 3].map((sequence) => sign(healthy('a', sequence)));
    const append = vi.spyOn(world.telemetry, 'append');
    for (let round = 0; round < 5; round += 1) {
      append.mockRejectedValueOnce(new SigrelError('SRP_DEP_KAFKA', 'Kafka did not take records'));
      expect((await post(signed)).status).toBe(503);
    }
    expect(statuses(await post(signed))).toEqual(['accepted', 'accepted', 'accepted']);
    expect(world.gateway.status().reports).toMatchObject({ received: 18, accepted: 3, unavailable: 15 });
  });

  test('of a device that was forgotten to keep memory bounded, reports are taken as before', async () => {
    await start({ limits: { devices: 2 } });
    for (const id of ['a', 'b', 'c', 'd']) await post([sign(healthy(id, 1))]);
    expect(world.gateway.status().devices).toBe(2);
    expect(statuses(await post([sign(healthy('a', 2)), sign(healthy('d', 1))]))).toEqual([
      ...['accepted', 'duplicate'],
    ]);
    const invented = { ...sign(healthy('z', 1)), mac: '0'.repeat(64) };
    await post([invented]);
    expect(world.gateway.status().devices).toBe(2);
  });

  test('a device may become another engine, and not a new one with every poll', async () => {
    const engines = Array.from({ length: 12 }, (_, n) => ({ ...engineA, version: `1.${n}` }));
    const polls = engines.map((one, n) =>
      sign({ ...healthy('a', n + 1), body: { ...pollBody(), engine: one } as never }),
    );
    const { body } = await post([...polls, sign(healthy('a', 99))]);
    expect(body.results.map(({ status }) => status)).toEqual([
      ...[...Array(8).fill('accepted'), ...Array(4).fill('rejected'), 'accepted'],
    ]);
    expect(body.results[8]?.reason).toMatch(/^body.engine: a has been too many engines/);
    expect(world.gateway.status().rejected.description).toBe(4);
    const same = sign({ ...healthy('a', 100), body: { ...pollBody(), engine: engines[7] } as never });
    expect(statuses(await post([same]))).toEqual(['accepted']);
  });

  test('more in flight than Kafka can take soon is turned away with 503 before it is read, and taken later', async () => {
    await start({ limits: { bytesInFlight: 1_500 } });
    let free = () => {};
    const held = new Promise<void>((resolve) => {
      free = resolve;
    });
    const append = world.telemetry.append;
    vi.spyOn(world.telemetry, 'append').mockImplementation((list) => held.then(() => append(list)));
    const batch = (id: string) => [1, 2, 3, 4, 5, 6].map((sequence) => sign(healthy(id, sequence)));
    const first = post(batch('a'));
    await expect.poll(() => world.gateway.status().bytesInFlight).toBeGreaterThan(500);
    const response = await postText(JSON.stringify({ reports: batch('b') }));
    expect(response.status).toBe(503);
    expect(response.headers.get('retry-after')).toBe('1');
    expect(await response.json()).toMatchObject({ code: 'SRP_DEP_OVERLOADED' });
    free();
    expect(statuses(await first)).toEqual(Array(6).fill('accepted'));
    expect(statuses(await post(batch('b')))).toEqual(Array(6).fill('accepted'));
    await expect.poll(() => world.gateway.status().bytesInFlight).toBe(0);
    expect(world.gateway.status().requests).toEqual({ unreadable: 0, overloaded: 1 });
  });

  test('a client that goes away does not make room for what is still on its way to the log', async () => {
    let free = () => {};
    const held = new Promise<void>((resolve) => {
      free = resolve;
    });
    vi.spyOn(world.telemetry, 'append').mockImplementation(() => held);
    const body = JSON.stringify({ reports: [sign(healthy('a', 1))] });
    const headers = { 'content-type': 'application/json', 'content-length': body.length };
    const sent = httpRequest(`${world.gateway.url}/v1/reports`, { method: 'POST', headers });
    const closed = new Promise((resolve) => sent.once('close', resolve));
    sent.on('error', () => {});
    sent.end(body);
    await expect.poll(() => vi.mocked(world.telemetry.append).mock.calls.length).toBe(1);
    sent.destroy();
    await closed;
    await fetch(`${world.gateway.url}/v1/status`); // the gateway has seen its going
    expect(world.gateway.status().bytesInFlight).toBe(body.length);
    free();
    await expect.poll(() => world.gateway.status().bytesInFlight).toBe(0);
  });
});
