/** A fleet in memory: the twin of infra/postgres/inventory.ts under the same contract suite. */
import type { EnrolledDevice, FleetGroup, Inventory } from '../../domain/ports.ts';

export const createMemoryInventory = (fleet: readonly EnrolledDevice[]): Inventory => ({
  groups: async () => {
    const groups = new Map<string, FleetGroup>();
    for (const { engine, failMode, contentVersion } of fleet) {
      const { name, version, packageVersion, digest } = engine;
      const key = JSON.stringify([name, version, packageVersion, digest, failMode, contentVersion]);
      const devices = (groups.get(key)?.devices ?? 0) + 1;
      groups.set(key, { engine, failMode, contentVersion, devices });
    }
    return [...groups.values()];
  },
  devices: async function* () {
    yield* fleet.toSorted((a, b) => (a.deviceId < b.deviceId ? -1 : 1));
  },
});
