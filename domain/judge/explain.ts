/**
 * What the judge's numbers come from and what they can show, for people: the recorded windows of a release folded once more,
 * beside what the judge had recorded of each tick.
 */
import type { MetricId, RolloutPolicy } from '../policy.ts';
import type { SegmentKey } from '../release.ts';
import { largest } from './decision.ts';
import { cellTotals, initialJudgeState, type JudgeState, leading, leafPlaces, type TickLeaves } from './fold.ts';
import { foldLiveTick, liveJudge } from './live.ts';
import { type JudgeCell, type JudgePolicy, type PromotePolicy, segmentOf } from './policy.ts';
import { promoteLogFactor } from './promote.ts';
import type { TickEvidence } from './session.ts';

export type ExplainedTick = {
  readonly tick: number;
  readonly stage: number;
  /** Largest of each key over the cells that are shown. */
  readonly A: number;
  readonly B: number;
  /** The cell with the largest statistic of key A. */
  readonly leading: string;
  /** Both statistics of all cells are what the recorded counts give: to 1e-9, since other machines compute logarithms otherwise. */
  readonly asRecorded: boolean;
};

export type ExplainedCell = {
  readonly cell: string;
  readonly metric: string;
  /** null: the whole fleet. */
  readonly segment: SegmentKey | null;
  /** Events and exposure (device-hours, or trials) with the release and without, over all ticks. */
  readonly x: number;
  readonly y: number;
  readonly treated: number;
  readonly control: number;
  readonly A: number;
  readonly B: number;
  readonly latchedA: number | null;
  readonly latchedB: number | null;
  /**
   * The smallest rise above three times the control rate, per device-hour or trial, that the evidence of the stage in force
   * excludes at 5 % (halt specification, section 9): whatever is smaller, this stage cannot see. null: none.
   */
  readonly excludes: number | null;
};

export type Explanation = {
  readonly thresholds: { readonly hold: number; readonly A: number; readonly B: number };
  readonly ticks: readonly ExplainedTick[];
  /** Those that are shown, in policy order, as of the last tick. */
  readonly cells: readonly ExplainedCell[];
  readonly hold: JudgeState['hold'];
  readonly halt: JudgeState['halt'];
  /** Why the fold ended before the last recorded tick; null: it did not. */
  readonly refused: string | null;
};

/** Cells to show; what is absent chooses nothing. */
export type CellChoice = { readonly metric?: string; readonly segment?: string };

const isChosen = ({ metric, segment }: CellChoice, cell: JudgeCell): boolean =>
  (metric === undefined || cell.metric === metric) && (segment === undefined || segmentOf(cell) === segment);

/** `ticks`: as recorded, in order from tick 0. */
export const explainEvidence = (
  policy: RolloutPolicy,
  ticks: readonly TickEvidence[],
  choice: CellChoice = {},
): Explanation => {
  let live = liveJudge(policy, Object.keys(ticks[0]?.counts ?? {}));
  let chosen = live.policy.cells.map((cell) => isChosen(choice, cell));
  const highest = (statistics: readonly number[]) => largest(statistics, (c) => chosen[c] === true) ?? -1;
  const told: ExplainedTick[] = [];
  let state: JudgeState | null = null;
  let stage = 0;
  let refused: string | null = null;
  /** Leaves of the ticks of the stage in force. */
  let current: TickLeaves[] = [];
  for (const recorded of ticks) {
    const opens = recorded.stage > stage ? recorded.stage : 0;
    if (opens > 0) current = [];
    stage = recorded.stage;
    const leaves = leavesOf(live.policy, recorded);
    const { tick } = recorded;
    const next = foldLiveTick(live, state, { tick, opens, leaves });
    if ('refused' in next) {
      refused = next.refused;
      break;
    }
    if (next.live !== live) chosen = next.live.policy.cells.map((cell) => isChosen(choice, cell));
    ({ live, state } = next);
    const judge = live.policy;
    current.push(leaves);
    const { statistics } = state;
    const asRecorded =
      isClose(leading(judge, statistics.A).value, recorded.statA) &&
      isClose(leading(judge, statistics.B).value, recorded.statB);
    const first = highest(statistics.A);
    const [A, B] = [statistics.A[first] ?? 0, statistics.B[highest(statistics.B)] ?? 0];
    told.push({ tick, stage, A, B, leading: judge.cells[first]?.id ?? '', asRecorded });
  }
  const { policy: judge, promote } = live;
  state ??= initialJudgeState(judge);
  return {
    thresholds: { hold: 1 / judge.hold.alpha, A: 1 / judge.keys.A.alpha, B: 1 / judge.keys.B.alpha },
    ticks: told,
    cells: explainCells(judge, promote, state, current).filter((_, c) => chosen[c]),
    hold: state.hold,
    halt: state.halt,
    refused,
  };
};

const isClose = (a: number, b: number): boolean => Math.abs(a - b) <= 1e-9 * Math.max(1, Math.abs(b));

const none = [0, 0, 0, 0] as const;

const leavesOf = (policy: JudgePolicy, { leaves }: TickEvidence): TickLeaves =>
  policy.leaves.map(({ metric, segment }) => leaves[segment]?.[metric as MetricId] ?? none);

const explainCells = (
  policy: JudgePolicy,
  promote: PromotePolicy,
  state: JudgeState,
  current: readonly TickLeaves[],
): readonly ExplainedCell[] => {
  return policy.cells.map((cell, c) => {
    const places = leafPlaces(policy, cell.id);
    const [x, y, treated, control] = cellTotals(policy, state, cell.id);
    return {
      ...{ cell: cell.id, metric: cell.metric, segment: segmentOf(cell) },
      ...{ x, y, treated, control },
      ...{ A: state.statistics.A[c] ?? 0, B: state.statistics.B[c] ?? 0 },
      ...{ latchedA: state.latches[c]?.A ?? null, latchedB: state.latches[c]?.B ?? null },
      excludes: smallestExcluded(
        promote,
        current.map((leaves) => places.map((place) => leaves[place] ?? none)),
      ),
    };
  });
};

/** The claim is met for all larger rises when it is for one: halving finds the least. */
const smallestExcluded = (promote: PromotePolicy, ticks: readonly TickLeaves[]): number | null => {
  const { r1, g, weight, beta } = promote;
  const counts = ticks.flat();
  const treated = counts.reduce((sum, [, , exposure]) => sum + exposure, 0);
  if (treated === 0) return null;
  const bases = g.map((bet) => counts.reduce((sum, [x, y, t, c]) => sum + promoteLogFactor(x, y, t, c, r1, 0, bet), 0));
  const isExcluded = (rise: number): boolean =>
    bases.reduce(
      (sum, base, j) => sum + (weight[j] ?? 0) * Math.exp(Math.min(base + rise * treated * (1 - (g[j] ?? 0)), 400)),
      0,
    ) >=
    1 / beta;
  if (isExcluded(0)) return 0;
  let [below, above] = [0, 1 / treated];
  while (!isExcluded(above)) above *= 2;
  for (let step = 0; step < 50; step += 1) {
    const middle = (below + above) / 2;
    if (isExcluded(middle)) above = middle;
    else below = middle;
  }
  return above;
};
