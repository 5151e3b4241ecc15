/**
 * The judge: a pure fold of windows into e-processes and decisions (halt specification, sections 4 to 8). The state
 * depends on the windows so far only, not on when or how often anybody looked. Summation is in policy order throughout.
 */
import { type Decision, decide, fires, type Latch, largest, noDecision } from './decision.ts';
import { isEvidence, logFactor, nextState } from './factor.ts';
import { type FrozenSums, foldFrozen, frozenValue } from './frozen.ts';
import { type Bets, type JudgePolicy, segmentsOf } from './policy.ts';

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

/** Mass that starts in this tick, and its counts. */
export type JudgeTick = { readonly tick: number; readonly startMass: number; readonly leaves: TickLeaves };

type KeyName = 'A' | 'B';

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
export const foldTick = (policy: JudgePolicy, state: JudgeState, tick: JudgeTick): JudgeState | WindowRefusal => {
  const refused = contractViolation(policy, state, tick);
  if (refused !== null) return { refused };
  const { places, ids } = layoutOf(policy);
  const frozen = policy.cells.map((cell, c) =>
    cell.kind === 'frozen'
      ? foldFrozen(
          cell,
          state.frozen?.[c] ?? [],
          tick.tick,
          (places[c] ?? []).map((place) => {
            const [x, , treated] = tick.leaves[place] ?? noCounts;
            return [x, treated];
          }),
        )
      : [],
  );
  const A = foldKey(policy, 'A', state, frozen, tick);
  const B = foldKey(policy, 'B', state, frozen, tick);
  const statistics = { A: A.statistics, B: B.statistics };
  return {
    nextTick: tick.tick + 1,
    used: state.used + tick.startMass,
    states: { A: A.states, B: B.states },
    statistics,
    ...(frozen.some((sums) => sums.length > 0) ? { frozen } : {}),
    totals: state.totals.map((total, i) => addLeaf(total, tick.leaves[i] ?? noCounts)),
    ...decide(
      state,
      ids,
      { A: policy.keys.A.alpha, B: policy.keys.B.alpha, hold: policy.hold.alpha },
      statistics,
      tick.tick,
    ),
  };
};

/** States and statistics of one key after the tick. */
const foldKey = (
  policy: JudgePolicy,
  key: KeyName,
  before: JudgeState,
  frozen: readonly (readonly FrozenSums[])[],
  tick: JudgeTick,
): { readonly states: readonly (readonly number[])[]; readonly statistics: readonly number[] } => {
  const { places, bets } = layoutOf(policy);
  const notStarted = Math.max(0, 1 - (before.used + tick.startMass));
  const logs = leafLogs(policy, key, tick.leaves);
  const statistics: number[] = [];
  const states = policy.cells.map((cell, c): readonly number[] => {
    if (cell.kind === 'frozen') {
      statistics.push(cell.weight * frozenValue(cell, frozen[c] ?? []));
      return [];
    }
    const next = nextStates(before.states[key][c] ?? [], tick.startMass, cellLogs(places[c] ?? [], logs));
    const weights = bets[c]?.weight ?? [];
    let mixed = 0;
    for (let j = 0; j < next.length; j++) mixed += (weights[j] ?? 0) * (next[j] ?? 0);
    statistics.push(cell.weight * (mixed + notStarted));
    return next;
  });
  return { states, statistics };
};

/** ln e per bet where there is no evidence: 0 for every bet. */
const none: readonly number[] = [];

/** Most leaves of key A have no evidence in a tick: without mass that starts, their states stay. */
const nextStates = (states: readonly number[], startMass: number, logs: readonly number[]): readonly number[] => {
  if (logs === none && startMass === 0) return states;
  const next = states.slice();
  for (let j = 0; j < next.length; j++) next[j] = nextState(next[j] ?? 0, startMass, logs[j] ?? 0);
  return next;
};

/** ln e per bet, summed over segments before anything is exponentiated: pooled counts would be Simpson's paradox (section 6). */
const cellLogs = (places: readonly number[], logs: readonly (readonly number[])[]): readonly number[] => {
  let only = none;
  let sums: number[] | null = null;
  for (const place of places) {
    const row = logs[place] ?? none;
    if (row === none) continue;
    if (only === none) only = row;
    else {
      sums ??= [...only];
      for (let j = 0; j < row.length; j++) sums[j] = (sums[j] ?? 0) + (row[j] ?? 0);
    }
  }
  return sums ?? only;
};

/** Largest w * E of a key and the cell that has it (the earlier one of the policy when they tie). */
export const leading = (
  policy: JudgePolicy,
  statistics: readonly number[],
): { readonly cell: string; readonly value: number } => {
  const best = largest(statistics) ?? 0;
  return { cell: policy.cells[best]?.id ?? '', value: statistics[best] ?? 0 };
};

/** Counts of a cell, of a tick or in total: its leaf, or the sum over its segments. */
export const sumOfLeaves = (policy: JudgePolicy, leaves: TickLeaves, cellId: string): TickLeaves[number] =>
  leafPlaces(policy, cellId).reduce<Counts>((sum, place) => addLeaf(sum, leaves[place] ?? noCounts), noCounts);

/** Counts of a cell so far; of a frozen one those since its first start, beside its baseline. */
export const cellTotals = (policy: JudgePolicy, state: JudgeState, cellId: string): TickLeaves[number] => {
  const place = layoutOf(policy).ids.indexOf(cellId);
  const cell = policy.cells[place];
  if (cell?.kind !== 'frozen') return sumOfLeaves(policy, state.totals, cellId);
  const since = state.frozen?.[place]?.[0]?.segments ?? [];
  const baselines = 'events' in cell.baseline ? [cell.baseline] : cell.baseline;
  return [
    ...since.map(([x, treated]): Counts => [x, 0, treated, 0]),
    ...baselines.map(({ events, exposure }): Counts => [0, events, 0, exposure]),
  ].reduce(addLeaf, noCounts);
};

const betsOf = (policy: JudgePolicy, metric: string): Bets =>
  policy.metrics.find((candidate) => candidate.id === metric)?.bets ?? policy.bets;

/** ln e of every leaf and bet of its metric: once for all the cells that a leaf belongs to. */
const leafLogs = (policy: JudgePolicy, key: KeyName, leaves: TickLeaves): readonly (readonly number[])[] => {
  const { leafBets, deltas } = layoutOf(policy);
  const { r0, margin } = policy.keys[key];
  return leaves.map(([x, y, treated, control], place) => {
    const delta = margin ? (deltas[place] ?? 0) : 0;
    if (!isEvidence(x, y, treated, control, delta)) return none;
    const row: number[] = [];
    for (const r of leafBets[place]?.r ?? []) row.push(logFactor(x, y, treated, control, r, r0, delta));
    return row;
  });
};

type Counts = TickLeaves[number];

const noCounts: Counts = [0, 0, 0, 0];

const addLeaf = (a: Counts, b: Counts): Counts => [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]];

/** What a fold needs of its policy at every tick, by place of the cell or of the leaf. */
type Layout = {
  readonly ids: readonly string[];
  /** Places of a cell's leaves in a tick, in the order of its segments. */
  readonly places: readonly (readonly number[])[];
  readonly bets: readonly Bets[];
  readonly leafBets: readonly Bets[];
  readonly deltas: readonly number[];
};

const known = new WeakMap<JudgePolicy, Layout>();

/** Remembered per policy. */
const layoutOf = (policy: JudgePolicy): Layout => {
  const remembered = known.get(policy);
  if (remembered) return remembered;
  const columns = new Map(policy.leaves.map((leaf, place) => [`${leaf.metric}\n${leaf.segment}`, place]));
  const metrics = new Map(policy.metrics.map((metric) => [metric.id, metric]));
  const layout: Layout = {
    ids: policy.cells.map(({ id }) => id),
    places: policy.cells.map((cell) =>
      segmentsOf(cell).flatMap((segment) => columns.get(`${cell.metric}\n${segment}`) ?? []),
    ),
    bets: policy.cells.map(({ metric }) => betsOf(policy, metric)),
    leafBets: policy.leaves.map(({ metric }) => betsOf(policy, metric)),
    deltas: policy.leaves.map(({ metric }) => metrics.get(metric)?.delta ?? 0),
  };
  known.set(policy, layout);
  return layout;
};

/** Places of a cell's leaves in a tick, in the order of its segments. */
export const leafPlaces = (policy: JudgePolicy, cellId: string): readonly number[] => {
  const { ids, places } = layoutOf(policy);
  return places[ids.indexOf(cellId)] ?? [];
};

const contractViolation = (policy: JudgePolicy, state: JudgeState, tick: JudgeTick): string | null => {
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
