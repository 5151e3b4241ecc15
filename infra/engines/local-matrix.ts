/** A whole matrix on this machine, without servers: for people who write content, and for measuring. */
import { setMaxListeners } from 'node:events';
import { availableParallelism } from 'node:os';
import type { Family } from '../../domain/content/family.ts';
import type { Rule } from '../../domain/content/rules.ts';
import { type Divergence, findDivergences } from '../../domain/matrix/divergence.ts';
import { type Fit, fitting } from '../../domain/matrix/fit.ts';
import type { NotLoaded } from '../../domain/matrix/not-loaded.ts';
import { cellsFor } from '../../domain/matrix/plan.ts';
import { type MatrixTools, runCell } from '../../domain/matrix/run-cell.ts';
import type { TestedCell } from '../../domain/matrix/test-cell.ts';
import { type EngineBuild, type EngineId, engineId } from '../../domain/release.ts';
import { inParallel } from '../in-parallel.ts';

/** What an engine's artefact would go without. */
export type Gap = { readonly engine: EngineId; readonly rules: readonly NotLoaded[] };

export type LocalMatrix = {
  /** In the order of engines and configurations. */
  readonly cells: readonly TestedCell[];
  readonly gaps: readonly Gap[];
  readonly divergences: readonly Divergence[];
};

/** The same tools without a memory: every cell is tested, and its result kept. */
export const asNew = (tools: MatrixTools): MatrixTools => ({
  ...tools,
  cells: { ...tools.cells, get: async () => null },
});

/** Every engine in every configuration of the family, as many cells at once as there are cores. */
export const testFamily = async (
  tools: MatrixTools,
  family: Family,
  engines: readonly EngineBuild[],
  options: { readonly previous: readonly Rule[] | null; readonly from: string },
): Promise<LocalMatrix> => {
  const { signal } = new AbortController();
  setMaxListeners(0, signal);
  const fits = new Map<EngineId, Promise<Fit>>();
  const fitOf = (engine: EngineBuild): Promise<Fit> => {
    const id = engineId(engine);
    const found = fits.get(id) ?? fitting(tools.engines, engine, family, signal);
    fits.set(id, found);
    return found;
  };
  const planned = cellsFor(engines, family.configurations, {});
  const cells = await inParallel(planned, availableParallelism(), async (cell) => {
    const { rules } = await fitOf(cell.engine);
    return runCell(tools, { family, cell, rules, shipped: featuresOf(options.previous), ...options }, signal);
  });
  const gaps = await Promise.all(
    [...fits].map(async ([engine, fit]): Promise<Gap> => ({ engine, rules: (await fit).gaps })),
  );
  const observations = cells.flatMap(({ observation }) => observation ?? []);
  return {
    cells,
    gaps: gaps.filter(({ rules }) => rules.length > 0),
    divergences: findDivergences(observations, family.differences),
  };
};

const featuresOf = (rules: readonly Rule[] | null): readonly string[] | null =>
  rules?.flatMap(({ features }) => features) ?? null;
