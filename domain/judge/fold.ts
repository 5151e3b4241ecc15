/**
 * The judge: a pure fold of windows into e-processes and decisions (halt specification, sections 4 to 8). The state
 * depends on the windows so far only, not on when or how often anybody looked. Summation is in policy order throughout.
 */
import { logFactor, nextState } from './factor.ts';
import type { Bets, JudgeCell, JudgePolicy, Key } from './policy.ts';

/** [x, y, T, C] of every leaf, in the order of `policy.leaves`. */
export type TickLeaves = readonly (readonly [x: number, y: number, treated: number, control: number])[];

export type Latch = { readonly A: number | null; readonly B: number | null };

/** Plain data: survives JSON unchanged, so that it is committed with the watermark. */
export type JudgeState = {
  readonly nextTick: number;
  /** Start mass used so far. */
  readonly used: number;
  /** S[key][cell][bet]. */
  readonly states: { readonly A: readonly (readonly number[])[]; readonly B: readonly (readonly number[])[] };
  /** w * E of every cell after the last tick. */
  readonly statistics: { readonly A: readonly number[]; readonly B: readonly number[] };
  readonly latches: readonly Latch[];
  /** x, y, T, C of every leaf over all ticks. */
  readonly totals: TickLeaves;
  readonly hold: { readonly tick: number; readonly cell: string } | null;
  readonly halt: { readonly tick: number; readonly cell: string; readonly A: number; readonly B: number } | null;
};

/** A window that breaks the data contract (section 2.9): it is refused, the state stays, the stage holds. */
export type WindowRefusal = { readonly refused: string };

const keyNames = ['A', 'B'] as const;

export const initialJudgeState = (policy: JudgePolicy): JudgeState => {
  const bets = policy.cells.map((cell) => betsOf(policy, cell.metric).r.map(() => 0));
  const weights = policy.cells.map((cell) => cell.weight);
  return {
    nextTick: 0,
    used: 0,
    states: { A: bets, B: bets },
    statistics: { A: weights, B: weights },
    latches: policy.cells.map(() => ({ A: null, B: null })),
    totals: policy.leaves.map(() => [0, 0, 0, 0]),
    hold: null,
    halt: null,
  };
};

/** Folds one tick. Ticks come strictly in order, each once; a missing one is waited for, never replaced by zeros. */
export const foldTick = (
  policy: JudgePolicy,
  state: JudgeState,
  tick: { readonly tick: number; readonly startMass: number; readonly leaves: TickLeaves },
): JudgeState | WindowRefusal => {
  const refused = contractViolation(policy, state, tick);
  if (refused !== null) return { refused };
  const used = state.used + tick.startMass;
  const notStarted = Math.max(0, 1 - used);
  const columns = leafColumns(policy);

  const states: { A: number[][]; B: number[][] } = { A: [], B: [] };
  const statistics: { A: number[]; B: number[] } = { A: [], B: [] };
  for (const key of keyNames) {
    policy.cells.forEach((cell, c) => {
      const bets = betsOf(policy, cell.metric);
      const next = bets.r.map((r, j) => {
        const logE = cellLogFactor(policy, cell, policy.keys[key], r, tick.leaves, columns);
        return nextState(state.states[key][c]?.[j] ?? 0, tick.startMass, logE);
      });
      const mixture = next.reduce((sum, s, j) => sum + (bets.weight[j] ?? 0) * s, 0);
      states[key].push(next);
      statistics[key].push(cell.weight * (mixture + notStarted));
    });
  }

  const latches = state.latches.map((latch, c) => ({
    A: latch.A ?? (fires(statistics.A[c], policy.keys.A.alpha) ? tick.tick : null),
    B: latch.B ?? (fires(statistics.B[c], policy.keys.B.alpha) ? tick.tick : null),
  }));
  return {
    nextTick: tick.tick + 1,
    used,
    states,
    statistics,
    latches,
    totals: state.totals.map((total, i) => {
      const leaf = tick.leaves[i] ?? [0, 0, 0, 0];
      return [total[0] + leaf[0], total[1] + leaf[1], total[2] + leaf[2], total[3] + leaf[3]];
    }),
    hold: state.hold ?? decideHold(policy, statistics.A, tick.tick),
    halt: state.halt ?? decideHalt(policy, latches, statistics, tick.tick),
  };
};

/** Largest w * E of a key and the cell that has it (the earlier one of the policy when they tie). */
export const leading = (
  policy: JudgePolicy,
  statistics: readonly number[],
): { readonly cell: string; readonly value: number } => {
  let best = 0;
  statistics.forEach((value, c) => {
    if (value > (statistics[best] ?? -1)) best = c;
  });
  return { cell: policy.cells[best]?.id ?? '', value: statistics[best] ?? 0 };
};

/** Cumulative counts of a cell: its leaf, or the sum over its segments. */
export const cellTotals = (
  policy: JudgePolicy,
  state: JudgeState,
  cellId: string,
): readonly [number, number, number, number] => {
  const cell = policy.cells.find((candidate) => candidate.id === cellId);
  if (!cell) return [0, 0, 0, 0];
  const columns = leafColumns(policy);
  return segmentsOf(cell).reduce<readonly [number, number, number, number]>(
    (sum, segment) => {
      const leaf = state.totals[columns.get(leafName(cell.metric, segment)) ?? -1] ?? [0, 0, 0, 0];
      return [sum[0] + leaf[0], sum[1] + leaf[1], sum[2] + leaf[2], sum[3] + leaf[3]];
    },
    [0, 0, 0, 0],
  );
};

/** Statistics given cell by cell (`A[c]`, `B[c]` are w * E) -> whether a key fires; at least 1/alpha counts. */
export const fires = (statistic: number | undefined, alpha: number): boolean => (statistic ?? 0) >= 1 / alpha;

const decideHold = (policy: JudgePolicy, statA: readonly number[], tick: number): JudgeState['hold'] => {
  const first = leading(policy, statA);
  return fires(first.value, policy.hold.alpha) ? { tick, cell: first.cell } : null;
};

/** Both latches of the same cell; of several cells the one with the largest statistic of key A (section 8). */
const decideHalt = (
  policy: JudgePolicy,
  latches: readonly Latch[],
  statistics: { readonly A: readonly number[]; readonly B: readonly number[] },
  tick: number,
): JudgeState['halt'] => {
  let best: number | null = null;
  latches.forEach((latch, c) => {
    if (latch.A === null || latch.B === null) return;
    if (best === null || (statistics.A[c] ?? 0) > (statistics.A[best] ?? 0)) best = c;
  });
  if (best === null) return null;
  return {
    tick,
    cell: policy.cells[best]?.id ?? '',
    A: statistics.A[best] ?? 0,
    B: statistics.B[best] ?? 0,
  };
};

const betsOf = (policy: JudgePolicy, metric: string): Bets =>
  policy.metrics.find((candidate) => candidate.id === metric)?.bets ?? policy.bets;

const segmentsOf = (cell: JudgeCell): readonly string[] => (cell.kind === 'leaf' ? [cell.segment] : cell.segments);

/** Summed over segments before anything is exponentiated: pooled counts would be Simpson's paradox (section 6). */
const cellLogFactor = (
  policy: JudgePolicy,
  cell: JudgeCell,
  key: Key,
  r: number,
  leaves: TickLeaves,
  columns: ReadonlyMap<string, number>,
): number => {
  const delta = key.margin ? (policy.metrics.find((metric) => metric.id === cell.metric)?.delta ?? 0) : 0;
  return segmentsOf(cell).reduce((sum, segment) => {
    const [x, y, treated, control] = leaves[columns.get(leafName(cell.metric, segment)) ?? -1] ?? [0, 0, 0, 0];
    return sum + logFactor(x, y, treated, control, r, key.r0, delta);
  }, 0);
};

const leafName = (metric: string, segment: string): string => `${metric}\n${segment}`;

const leafColumns = (policy: JudgePolicy): ReadonlyMap<string, number> =>
  new Map(policy.leaves.map((leaf, i) => [leafName(leaf.metric, leaf.segment), i]));

const contractViolation = (
  policy: JudgePolicy,
  state: JudgeState,
  tick: { readonly tick: number; readonly startMass: number; readonly leaves: TickLeaves },
): string | null => {
  if (tick.tick !== state.nextTick)
    return `tick ${tick.tick} came, expected tick ${state.nextTick}: ticks are folded in order, each once`;
  if (tick.leaves.length !== policy.leaves.length)
    return `tick ${tick.tick} has ${tick.leaves.length} leaves, expected ${policy.leaves.length}`;
  if (!(tick.startMass >= 0) || state.used + tick.startMass > 1 + 1e-9) {
    return `tick ${tick.tick} starts mass ${tick.startMass} after ${state.used}: the total may not exceed 1`;
  }
  for (const [i, [x, y, treated, control]] of tick.leaves.entries()) {
    const leaf = policy.leaves[i];
    const where = `tick ${tick.tick}, ${leaf?.metric} in ${leaf?.segment}`;
    if (![x, y].every((n) => Number.isSafeInteger(n) && n >= 0))
      return `${where}: counts ${x}, ${y}; expected whole numbers from 0`;
    if (![treated, control].every((n) => Number.isFinite(n) && n >= 0)) {
      return `${where}: exposures ${treated}, ${control}; expected finite numbers from 0`;
    }
    if (x > 0 && treated === 0) return `${where}: ${x} treated events without treated exposure`;
    if (y > 0 && control === 0) return `${where}: ${y} control events without control exposure`;
  }
  return null;
};
