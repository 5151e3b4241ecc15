/**
 * A cell whose artefact, engine, vectors and gates are what they were gives what it gave: its result is used again and
 * says so. Only what an engine said about content is kept; a void, an error or a run without a result is tried anew.
 */
import type { CellStore } from '../ports.ts';
import { type Cell, configurationOf, engineId } from '../release.ts';
import type { TestedCell } from './test-cell.ts';

/** Everything that a result depends on; digests are SHA-256 (hex). */
export type CellIdentity = {
  readonly artefact: string;
  readonly previous: string | null;
  /** What first use is told against. */
  readonly shipped: string | null;
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
  return digestOf({ engine: engineId(engine), packageVersion, digest, mode, protocols, ...identity });
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
      result: {
        ...tested.result,
        ...{ cellId, wallMs: ports.now() - started },
        // An attempt that comes again, after a worker died, finds what this release itself had found.
        ...(before === from ? {} : { reused: { from: before, at } }),
      },
      // A configuration of another name that switches the same is the same to the engine, not to who compares cells.
      observation: tested.observation && { ...tested.observation, cellId, configuration: configurationOf(cell) },
    };
  }
  const tested = await test();
  if (isKept(tested)) await ports.cells.put(key, { ...tested, from, at: new Date(ports.now()).toISOString() });
  return tested;
};

/** Passed, or failed by what the engine said rather than by how long it took, by dying or by being ended. */
const isKept = ({ result, repeatable }: TestedCell): boolean => {
  if (result.verdict === 'pass') return true;
  const failed = result.gates.filter((gate) => gate.verdict !== 'pass');
  return result.verdict === 'fail' && repeatable && failed.every(({ gate }) => !gate.startsWith('budget-'));
};
