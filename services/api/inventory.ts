/** Devices from a file: the field as somebody knows it, before its devices have polled. */
import { unknownBuild } from '../../domain/matrix/plan.ts';
import type { EngineBuild } from '../../domain/release.ts';
import { saveDevices } from '../../infra/postgres/inventory.ts';
import type { ImportAnswer, importRequest } from './contract.ts';
import type { ApiPorts } from './releases.ts';

type Listed = (typeof importRequest)['_zod']['output']['devices'];

/** Before every record of the log: what a device says itself counts more. */
const beforeTheLog = -1;

export const importDevices = async (
  ports: Pick<ApiPorts, 'pool' | 'catalogue'>,
  devices: Listed,
): Promise<ImportAnswer> => {
  const builds = new Map<string, EngineBuild>();
  const missing = new Map<string, number>();
  for (const engine of new Set(devices.map((device) => device.engine))) {
    const build = await ports.catalogue.find(engine);
    builds.set(engine, build ?? unknownBuild(engine));
    if (build === null) missing.set(engine, devices.filter((device) => device.engine === engine).length);
  }
  await saveDevices(
    ports.pool,
    devices.map(({ device, engine, failMode }) => ({
      ...{ deviceId: device, failMode, contentVersion: 0, describedAt: beforeTheLog },
      engine: builds.get(engine) ?? unknownBuild(engine),
    })),
  );
  return { imported: devices.length, unknown: [...missing].map(([engine, count]) => ({ engine, devices: count })) };
};
