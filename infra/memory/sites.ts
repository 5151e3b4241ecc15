/** The sites of devices in memory: the twin of infra/postgres/sites.ts under the same contract suite. */
import type { DeviceSites } from '../../domain/ports.ts';

export const createMemorySites = (): DeviceSites => {
  const known = new Map<string, string | null>();
  return {
    pin: async (said) => {
      for (const { deviceId, site } of said) if (!known.has(deviceId)) known.set(deviceId, site);
      return [...new Set(said.map(({ deviceId }) => deviceId))].map((deviceId) => ({
        ...{ deviceId, site: known.get(deviceId) ?? null },
      }));
    },
  };
};
