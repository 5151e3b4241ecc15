/** What every inventory must do; run against the one on PostgreSQL and the one in memory. */
import { expect, test } from 'vitest';
import type { EnrolledDevice, Inventory } from '../../domain/ports.ts';
import { engineId } from '../../domain/release.ts';
import { engineA } from './devices.ts';

export const allOf = async (devices: AsyncIterable<EnrolledDevice>): Promise<readonly EnrolledDevice[]> => {
  const all: EnrolledDevice[] = [];
  for await (const device of devices) all.push(device);
  return all;
};

export const inventoryContract = (open: (fleet: readonly EnrolledDevice[]) => Promise<Inventory>): void => {
  const engineB = { ...engineA, digest: 'cd'.repeat(32) };
  const deviceOf = (n: number): EnrolledDevice => ({
    deviceId: `device-${n}`,
    ...(n % 5 === 0 && { site: `site-${n % 7}` }),
    engine: n % 2 === 0 ? engineA : engineB,
    failMode: n % 3 === 0 ? 'fail-open' : 'fail-closed',
    contentVersion: n % 4 === 0 ? 2 : 1,
  });

  // More devices than two pages hold, and as many as pages are filled by.
  test.each([0, 1, 1_000, 2_003])('%i devices come once each, in order, and are counted by group', async (count) => {
    const fleet = Array.from({ length: count }, (_, n) => deviceOf(n));
    const inventory = await open(fleet.toReversed());
    expect(await allOf(inventory.devices())).toEqual(fleet.toSorted((a, b) => (a.deviceId < b.deviceId ? -1 : 1)));
    const counted = Map.groupBy(
      fleet,
      ({ engine, failMode, contentVersion }) => `${engineId(engine)} ${failMode} ${contentVersion}`,
    );
    const groups = (await inventory.groups()).map(({ engine, failMode, contentVersion, devices }) => [
      `${engineId(engine)} ${failMode} ${contentVersion}`,
      devices,
    ]);
    expect(groups).toHaveLength(counted.size);
    expect(new Map(groups.map(([group, devices]) => [group, devices]))).toEqual(
      new Map([...counted].map(([group, devices]) => [group, devices.length])),
    );
  });
};
