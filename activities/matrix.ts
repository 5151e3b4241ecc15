/** The matrix: cells come from the fleet's own inventory, and each is tested by its engine in processes of its own. */
import type { EngineRunner, Inventory } from '../domain/ports.ts';
import { type Cell, engineId } from '../domain/release.ts';
import { testCell } from '../domain/test-cell.ts';
import { type BuildPorts, enginesOf, openFamily } from './build.ts';
import type { MatrixActivities } from './contract.ts';

export type MatrixPorts = Pick<BuildPorts, 'blobs' | 'openBundle'> & {
  readonly inventory: Inventory;
  readonly engines: EngineRunner;
  readonly now: () => number;
  readonly heartbeat: (details: unknown) => void;
  readonly cancelled: () => AbortSignal;
};

const heartbeatEveryMs = 2_000;

export const createMatrixActivities = (ports: MatrixPorts): MatrixActivities => ({
  planMatrix: async ({ sourceDigest }) => {
    const family = await openFamily(ports, sourceDigest);
    const devices = await ports.inventory.devices();
    const cells = enginesOf(devices).flatMap((engine) => {
      const id = engineId(engine);
      const enrolled = devices.filter((device) => engineId(device.engine) === id).length;
      return family.modes.map((mode): Cell => ({ cellId: `${id}/${mode}`, engine, mode, devices: enrolled }));
    });
    return { cells, fleetDevices: devices.length };
  },

  runMatrixCell: async ({ sourceDigest, cell }) => {
    const family = await openFamily(ports, sourceDigest);
    const beat = setInterval(() => ports.heartbeat(cell.cellId), heartbeatEveryMs);
    try {
      return (await testCell(ports, family, cell, ports.cancelled())).result;
    } finally {
      clearInterval(beat);
    }
  },
});
