/** The matrix: cells come from the fleet's own inventory, and each is tested by its engine in processes of its own. */
import type { Family } from '../domain/content/family.ts';
import type { Rule } from '../domain/content/rules.ts';
import { goodContent } from '../domain/director.ts';
import { SigrelError } from '../domain/errors.ts';
import { differentCells, findDivergences, type Observation } from '../domain/matrix/divergence.ts';
import { fitting } from '../domain/matrix/fit.ts';
import { cellsFor } from '../domain/matrix/plan.ts';
import { type MatrixTools, runCell } from '../domain/matrix/run-cell.ts';
import type { DirectorStore } from '../domain/ports.ts';
import { type EngineBuild, engineId } from '../domain/release.ts';
import { isInForce } from '../domain/waiver.ts';
import type { MatrixActivities } from './contract.ts';
import { type FleetPorts, fieldedEngines, openFamily } from './fleet.ts';

export type MatrixPorts = FleetPorts & {
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

  runMatrixCell: async ({ releaseId, sourceDigest, cell, artefact, wayBack }) => {
    const family = await openFamily(ports, sourceDigest);
    const beat = setInterval(() => ports.heartbeat(cell.cellId), heartbeatEveryMs);
    try {
      const content = {
        ...{ family, cell, from: releaseId },
        rules: await rulesOf(ports, family, cell.engine, artefact),
        previous: wayBack === null ? null : await rulesAt(ports, family, wayBack),
        shipped: await shippedTo(ports, family, cell.engine),
      };
      const tested = await runCell(ports.tools, content, ports.cancelled());
      const { result, firstUse, requalified, observation, notLoaded, faults } = tested;
      const details = new TextEncoder().encode(JSON.stringify({ observation, notLoaded, faults }));
      return { result: { ...result, observed: await ports.blobs.put(details) }, firstUse, requalified };
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
    const divergences = findDivergences(observations, family.differences);
    return { divergences: divergences.slice(0, divergencesLimit), different: differentCells(divergences) };
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
  if (artefact === null) return (await fitting(ports.tools.engines, engine, family, ports.cancelled())).rules;
  const source = new Map(family.rules.map((rule) => [rule.ruleId, rule]));
  const rules = (await rulesAt(ports, family, artefact)).map((rule) => source.get(rule.ruleId) ?? rule);
  return asWritten(ports, family, rules, artefact);
};

const rulesAt = async (ports: MatrixPorts, family: Family, digest: string): Promise<readonly Rule[]> =>
  asWritten(ports, family, family.language.parseArtefact(await ports.blobs.get(digest)).rules, digest);

/** Cells are tested with rules, devices get bytes. A worker of another version might write the same rules otherwise. */
const asWritten = (
  ports: MatrixPorts,
  { language, name }: Family,
  rules: readonly Rule[],
  digest: string,
): readonly Rule[] => {
  if (ports.tools.digestOfBytes(language.artefact(rules)) === digest) return rules;
  throw new SigrelError(
    'SRP_INTEGRITY_ARTEFACT',
    `artefact ${digest} of ${name} is not what this worker makes of its rules: what would be tested is not what is shipped`,
  );
};

/**
 * Features of what the fleet runs on the engine now and of every release that it took before: none when the engine is new to
 * the fleet, whatever it would go back to.
 */
const shippedTo = async (ports: MatrixPorts, family: Family, engine: EngineBuild): Promise<readonly string[]> => {
  const id = engineId(engine);
  const { artefacts } = goodContent((await ports.director.read(family.name)).document);
  const own = artefacts.find((one) => one.engine === id);
  if (!own) return [];
  const current = (await rulesAt(ports, family, own.sha256)).flatMap(({ features }) => features);
  const before = await ports.history.firstUses(family.name);
  return [...current, ...before.filter((one) => one.engine === id).flatMap(({ features }) => features)];
};
