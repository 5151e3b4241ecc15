/**
 * A cell whose artefact, engine, vectors and gates are what they were gives what it gave: its result is used again and
 * says so. Only what an engine said about content is kept; a void, an error or a run without a result is tried anew.
 */
import type { CellStore } from '../ports.ts';
import { type Cell, engineId } from '../release.ts';
import { gateVersion } from './gates.ts';
import type { TestedCell } from './test-cell.ts';

/** Everything that a result depends on; digests are SHA-256 (hex). */
export type CellIdentity = {
  readonly artefact: string;
  readonly previous: string | null;
  /** Vectors, controls, differences, budgets. */
  readonly tests: string;
  readonly goodware: string;
  /** The code that runs engines and grades them. */
  readonly runner: string;
};

export type KeptCell = TestedCell & { readonly from: string; readonly at: string };

export const keyOf = (cell: Cell, identity: CellIdentity, digestOf: (value: unknown) => string): string => {
  const { engine, mode, protocols = {} } = cell;
  const { packageVersion, digest } = engine;
  return digestOf({ engine: engineId(engine), packageVersion, digest, mode, protocols, gateVersion, ...identity });
};

/** `from`: the release that tests, which a later one names. `now`: ms since 1970. */
export const testOrReuse = async (
  ports: { readonly cells: CellStore<KeptCell>; readonly now: () => number },
  key: string,
  cell: Cell,
  from: string,
  test: () => Promise<TestedCell>,
): Promise<TestedCell> => {
  const started = ports.now();
  const kept = await ports.cells.get(key);
  if (kept !== null) {
    const { from: before, at, ...tested } = kept;
    const { cellId } = cell;
    return {
      ...tested,
      result: { ...tested.result, cellId, wallMs: ports.now() - started, reused: { from: before, at } },
      observation: tested.observation && { ...tested.observation, cellId },
    };
  }
  const tested = await test();
  if (isKept(tested)) await ports.cells.put(key, { ...tested, from, at: new Date(ports.now()).toISOString() });
  return tested;
};

/** Passed, or failed by what the engine said rather than by how long it took or by dying. */
const isKept = ({ result }: TestedCell): boolean => {
  const repeatable = (name: string) => name !== 'result' && !name.startsWith('budget-');
  const failed = result.gates.filter((gate) => gate.verdict !== 'pass');
  return result.verdict === 'pass' || (result.verdict === 'fail' && failed.every((gate) => repeatable(gate.gate)));
};
