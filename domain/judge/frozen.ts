/**
 * Frozen-baseline cells (halt specification, section 10): for stages without concurrent control, gross faults only. The
 * baseline is Y0 events in exposure C0 before the update, of the same devices in the same hours of the week.
 */
import { mixture } from './factor.ts';
import type { Baseline, FrozenCell } from './policy.ts';

/**
 * ln M, halt side, of bet r > r0: x events in exposure `treated` since a start. The +1 rounds against ourselves: with it the
 * baseline rate needs no estimate, and no event in the baseline is no special case.
 */
export const frozenHaltLog = (baseline: Baseline, x: number, treated: number, r: number, r0: number): number =>
  x * Math.log(r / r0) +
  (baseline.events + 1 + x) * Math.log1p((-treated * (r - r0)) / (baseline.exposure + r * treated));

/**
 * ln M, promote side, of bet ra < r1. No +1 here: that would round in our favour. A baseline without events is no evidence
 * of anything: exactly 0.
 */
export const frozenPromoteLog = (baseline: Baseline, x: number, treated: number, ra: number, r1: number): number =>
  baseline.events < 1
    ? 0
    : x * Math.log(ra / r1) +
      (baseline.events + x) * Math.log1p((treated * (r1 - ra)) / (baseline.exposure + ra * treated));

/** Events and exposure since one start, per segment of the cell. */
export type FrozenSums = {
  readonly tick: number;
  readonly segments: readonly (readonly [x: number, treated: number])[];
};

/** One more tick: a start that falls in it counts the tick itself. `counts`: [x, T] of every segment of the cell. */
export const foldFrozen = (
  cell: FrozenCell,
  sums: readonly FrozenSums[],
  tick: number,
  counts: FrozenSums['segments'],
): FrozenSums[] => {
  const started = cell.start.filter((start) => start.tick === tick).map(() => ({ tick, segments: counts }));
  const grown = sums.map((sum) => ({
    tick: sum.tick,
    segments: sum.segments.map(([x, t], s): [number, number] => [x + (counts[s]?.[0] ?? 0), t + (counts[s]?.[1] ?? 0)]),
  }));
  return [...grown, ...started];
};

/**
 * max over starts of mass * (mixture over bets); 0 before the first start. Starts live in different filtrations, so their
 * weighted sum would not be covered by the guarantee. There is no mass that has not started.
 */
export const frozenValue = (cell: FrozenCell, sums: readonly FrozenSums[]): number => {
  let best = 0;
  for (const sum of sums) {
    const mass = cell.start.find((start) => start.tick === sum.tick)?.mass ?? 0;
    const logs = cell.bets.r.map((r) => cellLog(cell, sum.segments, r));
    best = Math.max(best, mass * mixture(cell.bets, logs));
  }
  return best;
};

/** One baseline: the segments are pooled. One per segment: their logs are summed (the segments are independent). */
const cellLog = (cell: FrozenCell, segments: FrozenSums['segments'], r: number): number => {
  if ('events' in cell.baseline) {
    const [x, treated] = segments.reduce(([a, b], [c, d]) => [a + c, b + d], [0, 0]);
    return frozenHaltLog(cell.baseline, x, treated, r, cell.r0);
  }
  return cell.baseline.reduce((sum, baseline, s) => {
    const [x, treated] = segments[s] ?? [0, 0];
    return sum + frozenHaltLog(baseline, x, treated, r, cell.r0);
  }, 0);
};
