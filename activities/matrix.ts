/** The matrix: cells come from the fleet's own inventory, and each is tested by its engine in processes of its own. */
import type { Family } from '../domain/content/family.ts';
import type { Rule } from '../domain/content/rules.ts';
import { findDivergences, type Observation } from '../domain/matrix/divergence.ts';
import { cellsFor } from '../domain/matrix/plan.ts';
import { type MatrixTools, runCell } from '../domain/matrix/run-cell.ts';
import type { DirectorStore } from '../domain/ports.ts';
import { type EngineBuild, engineId } from '../domain/release.ts';
import { isInForce } from '../domain/waiver.ts';
import { fitting } from './build.ts';
import type { MatrixActivities } from './contract.ts';
import { type FleetPorts, fieldedEngines, openFamily, type SourcePorts } from './fleet.ts';

export type MatrixPorts = SourcePorts &
  FleetPorts & {
    readonly tools: MatrixTools;
    readonly director: DirectorStore;
    readonly heartbeat: (details: unknown) => void;
    readonly cancelled: () => AbortSignal;
  };

const heartbeatEveryMs = 2_000;
/** More says nothing new, and an event is small. */
const divergencesLimit = 50;

export const createMatrixActivities = (ports: MatrixPorts): MatrixActivities => ({
  planMatrix: async ({ sourceDigest }) => {
    const family = await openFamily(ports, sourceDigest);
    const { engines, devices, fleetDevices } = await fieldedEngines(ports, family);
    return { cells: cellsFor(engines, family.configurations, devices), fleetDevices };
  },

  runMatrixCell: async ({ releaseId, sourceDigest, cell, artefact }) => {
    const family = await openFamily(ports, sourceDigest);
    const beat = setInterval(() => ports.heartbeat(cell.cellId), heartbeatEveryMs);
    try {
      const content = {
        ...{ family, cell, from: releaseId },
        rules: await rulesOf(ports, family, cell.engine, artefact),
        previous: await steadyOn(ports, family, cell.engine),
      };
      const tested = await runCell(ports.tools, content, ports.cancelled());
      const { result, firstUse, observation, notLoaded } = tested;
      const details = new TextEncoder().encode(JSON.stringify({ observation, notLoaded }));
      return { result: { ...result, observed: await ports.blobs.put(details) }, firstUse };
    } finally {
      clearInterval(beat);
    }
  },

  compareCells: async ({ sourceDigest, observed }) => {
    const family = await openFamily(ports, sourceDigest);
    const observations: Observation[] = [];
    for (const digest of observed) {
      const { observation }: { observation: Observation | null } = JSON.parse(
        new TextDecoder().decode(await ports.blobs.get(digest)),
      );
      if (observation) observations.push(observation);
    }
    return { divergences: findDivergences(observations, family.differences).slice(0, divergencesLimit) };
  },

  readOverrides: async ({ family, sourceDigest }) => {
    const all = await ports.waivers.list(family);
    const about = all.filter((waiver) => waiver.kind === 'override' && waiver.sourceDigest === sourceDigest);
    return { overrides: about.filter((waiver) => isInForce(waiver, ports.now())) };
  },
});

/** The rules in an artefact, with their places in the source. null: nothing was built for the engine yet. */
const rulesOf = async (
  ports: MatrixPorts,
  family: Family,
  engine: EngineBuild,
  artefact: string | null,
): Promise<readonly Rule[]> => {
  if (artefact === null) return (await fitting({ ...ports, engines: ports.tools.engines }, engine, family)).rules;
  const { rules } = family.language.parseArtefact(await ports.blobs.get(artefact));
  const source = new Map(family.rules.map((rule) => [rule.ruleId, rule]));
  return rules.map((rule) => source.get(rule.ruleId) ?? rule);
};

/** What the fleet runs on the engine now; null: nothing. */
const steadyOn = async (ports: MatrixPorts, family: Family, engine: EngineBuild): Promise<readonly Rule[] | null> => {
  const { document } = await ports.director.read(family.name);
  const artefact = document.steady.artefacts.find((one) => one.engine === engineId(engine));
  return artefact ? family.language.parseArtefact(await ports.blobs.get(artefact.sha256)).rules : null;
};
