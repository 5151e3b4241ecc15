/** Whom the gateway hears: keys and their rotation, devices that are revoked, the site of a device. */
import { describe, expect, test, vi } from 'vitest';
import type { DeviceSites } from '../../domain/ports.ts';
import type { DeviceReport } from '../../domain/telemetry.ts';
import { deviceKey, type FleetKey, signReport } from '../../infra/device-auth.ts';
import { createMemorySites } from '../../infra/memory/sites.ts';
import { crash, fleetKey, gatewayPerTest, healthy, offered, statuses } from '../support/gateways.ts';

const world = gatewayPerTest();
const { start, sign, post, reports, expectSum } = world;

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
    expect(world.gateway.status()).toMatchObject({ rejected: { 'key-epoch': 3, mac: 1 }, keyEpochs: [1, 2, 3] });
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
    await expect.poll(() => world.gateway.status().keyEpochs).toEqual([3, 4]);
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
    await expect.poll(() => world.gateway.status().keyEpochs).toEqual([1]);
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
    await expect.poll(() => world.gateway.status().keyEpochs).toEqual([1, 2]);
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
    expect(statuses(await post([sign(offered('a', 1)), sign(offered('b', 1))]))).toEqual([...['accepted', 'accepted']]);
    revoked = new Map([['a', 'stolen']]);
    await expect.poll(() => world.gateway.status().revokedDevices).toBe(1);
    revoked = new Error('PostgreSQL is away');
    const before = read.mock.calls.length;
    await expect.poll(() => read.mock.calls.length).toBeGreaterThan(before + 1);
    const forged = { ...sign(healthy('a', 4)), mac: 'ab'.repeat(32) };
    const { body } = await post([
      sign(offered('a', 2)),
      sign(offered('a', 1)), // also what it was acknowledged before
      sign(offered('b', 2)),
      forged,
    ]);
    const refusal = { status: 'rejected', reason: 'device a is revoked: stolen' };
    expect(body.results.slice(0, 2)).toEqual([refusal, refusal]);
    expect(body.results[2]?.acknowledgedForMs).toBeGreaterThan(0);
    expect(body.results[3]?.reason).toContain('MAC'); // who has not the key is not told
    expect(world.telemetry.refused.map(({ reason }) => reason)).toContain(refusal.reason);
    expect(reports().map(({ deviceId, sequence }) => [deviceId, sequence])).not.toContainEqual(['a', 2]);
    revoked = new Map();
    await expect.poll(() => world.gateway.status().revokedDevices).toBe(0);
    expect((await post([sign(offered('a', 2))])).body.results[0]?.acknowledgedForMs).toBeGreaterThan(0);
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

  test('is the first that it says, for every kind of report, and another one is refused by name', async () => {
    const { body } = await post([
      sign(at('x', healthy('a', 1))),
      sign(at('y', crash('a', 2))),
      sign(at('z', offered('a', 3))),
      sign(crash('a', 4)),
      sign(at('y', healthy('a', 1))), // nor as a repeat
      sign(at('x', offered('a', 5))),
      sign(offered('b', 1)),
      sign(at('x', healthy('b', 2))),
    ]);
    expect(body.results.map(({ status }) => status)).toEqual([
      ...['accepted', 'rejected', 'rejected', 'rejected', 'rejected', 'accepted', 'accepted', 'rejected'],
    ]);
    expect(body.results[1]?.reason).toMatch(/^site: a says y, expected x; revoke and restore/);
    expect(body.results[3]?.reason).toMatch(/^site: a says none, expected x/);
    expect(body.results[7]?.reason).toMatch(/^site: b says x, expected none/);
    expect(world.gateway.status().rejected.site).toBe(5);
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
    expect(statuses(await post([sign(at('x', healthy('a', 1)))]))).toEqual(['accepted']);
    await start(changes);
    expect(statuses(await post([sign(at('y', healthy('a', 2)))]))).toEqual(['rejected']);
    revoked = new Map([['a', 'moved']]);
    await expect.poll(() => world.gateway.status().revokedDevices).toBe(1);
    known.delete('a'); // as restoring it does
    revoked = new Map();
    await expect.poll(() => world.gateway.status().revokedDevices).toBe(0);
    expect(statuses(await post([sign(at('y', healthy('a', 3)))]))).toEqual(['accepted']);
    expect(statuses(await post([sign(at('x', healthy('a', 4)))]))).toEqual(['rejected']);
  });

  test('of a new device cannot be looked up: it is told to come again, and the devices that are known are heard', async () => {
    const sites = createMemorySites();
    await start({ sites });
    expect(statuses(await post([sign(healthy('a', 1))]))).toEqual(['accepted']);
    vi.spyOn(sites, 'pin').mockRejectedValueOnce(new Error('PostgreSQL is away'));
    const crashed = sign(at('x', crash('b', 1)));
    const { status, body } = await post([crashed, sign(healthy('a', 2))]);
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
