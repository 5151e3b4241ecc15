/** The matrix: cells come from the fleet's own inventory, and each is tested by its engine in processes of its own. */
import { rulesText } from '../domain/content/family.ts';
import type { Rule } from '../domain/content/rules.ts';
import { type CellExpectation, gradeCell } from '../domain/gates.ts';
import type { EngineInput, EngineRun, EngineRunner, Inventory } from '../domain/ports.ts';
import { type Cell, engineId } from '../domain/release.ts';
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
const controlCapture = 'control';

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
    const started = ports.now();
    const family = await openFamily(ports, sourceDigest);
    const { controls } = family;
    const expectation: CellExpectation = {
      rules: family.rules.map((rule) => rule.signatureId),
      vectors: family.vectors,
      controls: {
        good: controls.good.length,
        bad: controls.bad.length,
        capture: controlCapture,
        mustMatch: controls.mustMatch,
      },
    };
    const run = (rules: readonly Rule[], captures: EngineInput['captures']): Promise<EngineRun | null> => {
      const input = { rules: new TextEncoder().encode(rulesText(rules)), captures, mode: cell.mode };
      return ports.engines.run(cell.engine, input, ports.cancelled());
    };
    const beat = setInterval(() => ports.heartbeat(cell.cellId), heartbeatEveryMs);
    try {
      const control = await run(
        [...controls.good, ...controls.bad],
        [{ name: controlCapture, bytes: controls.capture }],
      );
      const content = await run(
        family.rules,
        family.vectors.map(({ name, capture }) => ({ name, bytes: capture })),
      );
      return gradeCell(cell, expectation, { controls: control, content }, ports.now() - started);
    } finally {
      clearInterval(beat);
    }
  },
});
