/**
 * The judge: a pure fold of windows into e-processes and decisions (halt specification, sections 4 to 8). The state
 * depends on the windows so far only, not on when or how often anybody looked. Summation is in policy order throughout.
 */
import { type Decision, decide, fires, type Latch, largest, noDecision } from './decision.ts';
import { logFactor, nextState } from './factor.ts';
import { type FrozenSums, foldFrozen, frozenValue } from './frozen.ts';
import { type Bets, type JudgeCell, type JudgePolicy, type Key, segmentsOf } from './policy.ts';

export { fires, type Latch };

/** [x, y, T, C] of every leaf, in the order of `policy.leaves`. */
export type TickLeaves = readonly (readonly [x: number, y: number, treated: number, control: number])[];

/** Plain data: survives JSON unchanged, so that it is committed with the watermark. */
export type JudgeState = Decision & {
  readonly nextTick: number;
  /** Start mass used so far. */
  readonly used: number;
  /** S[key][cell][bet]. */
  readonly states: { readonly A: readonly (readonly number[])[]; readonly B: readonly (readonly number[])[] };
  /** w * E of every cell after the last tick. */
  readonly statistics: { readonly A: readonly number[]; readonly B: readonly number[] };
  /** Sums since each start of every cell; empty but for frozen cells. Absent where the policy has none. */
  readonly frozen?: readonly (readonly FrozenSums[])[];
  /** x, y, T, C of every leaf over all ticks. */
  readonly totals: TickLeaves;
};

/** A window that breaks the data contract (section 2.9): it is refused, the state stays, the stage holds. */
export type WindowRefusal = { readonly refused: string };

const keyNames = ['A', 'B'] as const;

export const initialJudgeState = (policy: JudgePolicy): JudgeState => {
  const bets = policy.cells.map((cell) => (cell.kind === 'frozen' ? [] : betsOf(policy, cell.metric).r.map(() => 0)));
  const weights = policy.cells.map((cell) => (cell.kind === 'frozen' ? 0 : cell.weight));
  return {
    nextTick: 0,
    used: 0,
    states: { A: bets, B: bets },
    statistics: { A: weights, B: weights },
    totals: policy.leaves.map(() => [0, 0, 0, 0]),
    ...noDecision(policy.cells.length),
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
  const placesOf = (cell: JudgeCell): readonly number[] => columns.get(cell.id) ?? [];
  const frozen = policy.cells.map((cell, c) =>
    cell.kind === 'frozen'
      ? foldFrozen(
          cell,
          state.frozen?.[c] ?? [],
          tick.tick,
          placesOf(cell).map((place) => {
            const [x, , treated] = tick.leaves[place] ?? noCounts;
            return [x, treated];
          }),
        )
      : [],
  );

  const states: { A: number[][]; B: number[][] } = { A: [], B: [] };
  const statistics: { A: number[]; B: number[] } = { A: [], B: [] };
  for (const key of keyNames) {
    const logs = leafLogs(policy, policy.keys[key], tick.leaves);
    policy.cells.forEach((cell, c) => {
      if (cell.kind === 'frozen') {
        states[key].push([]);
        statistics[key].push(cell.weight * frozenValue(cell, frozen[c] ?? []));
        return;
      }
      const bets = betsOf(policy, cell.metric);
      const places = placesOf(cell);
      // Summed over segments before anything is exponentiated: pooled counts would be Simpson's paradox (section 6).
      const next = bets.r.map((_, j) => {
        const logE = places.reduce((sum, place) => sum + (logs[place]?.[j] ?? 0), 0);
        return nextState(state.states[key][c]?.[j] ?? 0, tick.startMass, logE);
      });
      const mixed = next.reduce((sum, s, j) => sum + (bets.weight[j] ?? 0) * s, 0);
      states[key].push(next);
      statistics[key].push(cell.weight * (mixed + notStarted));
    });
  }

  return {
    nextTick: tick.tick + 1,
    used,
    states,
    statistics,
    ...(frozen.some((sums) => sums.length > 0) ? { frozen } : {}),
    totals: state.totals.map((total, i) => addLeaf(total, tick.leaves[i] ?? noCounts)),
    ...decide(
      state,
      policy.cells.map(({ id }) => id),
      { A: policy.keys.A.alpha, B: policy.keys.B.alpha, hold: policy.hold.alpha },
      statistics,
      tick.tick,
    ),
  };
};

/** Largest w * E of a key and the cell that has it (the earlier one of the policy when they tie). */
export const leading = (
  policy: JudgePolicy,
  statistics: readonly number[],
): { readonly cell: string; readonly value: number } => {
  const best = largest(statistics) ?? 0;
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
  return (leafColumns(policy).get(cellId) ?? []).reduce<Counts>(
    (sum, place) => addLeaf(sum, state.totals[place] ?? noCounts),
    noCounts,
  );
};

const betsOf = (policy: JudgePolicy, metric: string): Bets =>
  policy.metrics.find((candidate) => candidate.id === metric)?.bets ?? policy.bets;

const deltaOf = (policy: JudgePolicy, key: Key, metric: string): number =>
  key.margin ? (policy.metrics.find((one) => one.id === metric)?.delta ?? 0) : 0;

/** ln e of every leaf and bet of its metric: once for all the cells that a leaf belongs to. */
const leafLogs = (policy: JudgePolicy, key: Key, leaves: TickLeaves): readonly (readonly number[])[] => {
  const ofMetric = new Map(
    policy.metrics.map(({ id }) => [id, [betsOf(policy, id), deltaOf(policy, key, id)] as const]),
  );
  return policy.leaves.map(({ metric }, place) => {
    const [x, y, treated, control] = leaves[place] ?? noCounts;
    const [bets, delta] = ofMetric.get(metric) ?? [policy.bets, 0];
    return bets.r.map((r) => logFactor(x, y, treated, control, r, key.r0, delta));
  });
};

type Counts = TickLeaves[number];

const noCounts: Counts = [0, 0, 0, 0];

const addLeaf = (a: Counts, b: Counts): Counts => [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]];

const known = new WeakMap<JudgePolicy, ReadonlyMap<string, readonly number[]>>();

/** Id of a cell -> places of its leaves in a tick, in the order of its segments. Remembered per policy: it is asked each tick. */
export const leafColumns = (policy: JudgePolicy): ReadonlyMap<string, readonly number[]> => {
  const remembered = known.get(policy);
  if (remembered) return remembered;
  const places = new Map(policy.leaves.map((leaf, place) => [`${leaf.metric}\n${leaf.segment}`, place]));
  const columns = new Map(
    policy.cells.map((cell) => [
      cell.id,
      segmentsOf(cell).flatMap((segment) => places.get(`${cell.metric}\n${segment}`) ?? []),
    ]),
  );
  known.set(policy, columns);
  return columns;
};

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
  for (const [i, leaf] of tick.leaves.entries()) {
    const broken = brokenLeaf(leaf);
    if (broken !== null)
      return `tick ${tick.tick}, ${policy.leaves[i]?.metric} in ${policy.leaves[i]?.segment}: ${broken}`;
  }
  return null;
};

const isExposure = (n: number): boolean => Number.isFinite(n) && n >= 0;
const isCount = (n: number): boolean => Number.isSafeInteger(n) && n >= 0;

const brokenLeaf = ([x, y, treated, control]: Counts): string | null => {
  if (!isCount(x) || !isCount(y)) return `counts ${x}, ${y}; expected whole numbers from 0`;
  if (!isExposure(treated) || !isExposure(control))
    return `exposures ${treated}, ${control}; expected finite numbers from 0`;
  if (x > 0 && treated === 0) return `${x} treated events without treated exposure`;
  if (y > 0 && control === 0) return `${y} control events without control exposure`;
  return null;
};
