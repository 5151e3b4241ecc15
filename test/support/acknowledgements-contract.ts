/** What every store of acknowledgements must do; run against the one on PostgreSQL and the one in memory. */
import { expect, test } from 'vitest';
import type { Acknowledgements, Granted } from '../../domain/ports.ts';

const offer = (deviceId: string, sequence: number, until: number): Granted => ({ deviceId, sequence, until });

export const acknowledgementsContract = (open: () => Promise<Acknowledgements>): void => {
  test('a newer poll is granted its time, the same one has its first, an older one gets none', async () => {
    const store = await open();
    expect(await store.grant([offer('a', 5, 1_000)])).toEqual([offer('a', 5, 1_000)]);
    expect(await store.grant([offer('a', 5, 9_000)])).toEqual([offer('a', 5, 1_000)]);
    expect(await store.grant([offer('a', 4, 9_000)])).toEqual([]);
    expect(await store.grant([offer('a', 6, 2_000)])).toEqual([offer('a', 6, 2_000)]);
    expect(await store.grant([offer('a', 5, 9_000)])).toEqual([]);
  });

  test('numbers and times as large as they get come back as they were', async () => {
    const store = await open();
    const large = offer('a', Number.MAX_SAFE_INTEGER, 8.64e15);
    expect(await store.grant([large])).toEqual([large]);
    expect(await store.grant([large])).toEqual([large]);
  });

  test('of several polls of one device in one request the newest is granted', async () => {
    const store = await open();
    expect(await store.grant([offer('a', 1, 10), offer('a', 3, 30), offer('b', 1, 10), offer('a', 2, 20)])).toEqual(
      expect.arrayContaining([offer('a', 3, 30), offer('b', 1, 10)]),
    );
    expect(await store.grant([offer('a', 2, 20)])).toEqual([]);
    expect(await store.grant([])).toEqual([]);
  });

  test('gateways that ask for the same devices at once wait for nobody for ever, and agree', async () => {
    const store = await open();
    const devices = Array.from({ length: 200 }, (_, n) => `device-${n}`);
    const asked = Array.from({ length: 12 }, (_, round) => {
      const offers = devices.map((id) => offer(id, 7, 1_000 + round));
      return store.grant(round % 2 === 0 ? offers : offers.toReversed());
    });
    const answers = (await Promise.all(asked)).flat();
    const again = await store.grant(devices.map((id) => offer(id, 7, 9_999)));
    expect(again.length).toBe(devices.length);
    const stands = new Map(again.map(({ deviceId, until }) => [deviceId, until]));
    for (const { deviceId, until } of answers) expect(until).toBe(stands.get(deviceId));
  });
};
