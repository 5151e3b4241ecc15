/**
 * HOLD, cell by cell (halt specification, section 8): a cell holds the release once, until a person clears it (which the
 * judge need not know) or evidence gathered since then excludes that it, and every critical cell, got worse.
 */
import type { Verdict } from '../release.ts';
import type { Hold } from '../stage-rule.ts';
import { fires } from './decision.ts';
import type { JudgeState, TickLeaves } from './fold.ts';
import type { JudgePolicy, PromotePolicy } from './policy.ts';
import { addPromoteLogs, initialPromoteState, type PromoteState, promoteLogs } from './promote.ts';

/** Plain data. `evidence`: of the critical cells and the cell itself, since the tick after its HOLD; null once cleared. */
export type HeldCell = Hold & { readonly evidence: PromoteState | null };

/** Ids of the cells that raise their HOLD in this tick, in policy order. A cell raises one in a release, cleared or not. */
export const newHolds = (policy: JudgePolicy, judge: JudgeState, held: readonly HeldCell[]): readonly string[] =>
  policy.cells.flatMap(({ id }, c) =>
    fires(judge.statistics.A[c], policy.hold.alpha) && !held.some(({ verdict }) => verdict.cell === id) ? [id] : [],
  );

/** A HOLD with its evidence, which starts afresh in the tick after it. */
export const raiseHold = (promote: PromotePolicy, verdict: Verdict): HeldCell => ({
  verdict,
  clearedAt: null,
  evidence: initialPromoteState(clearingPolicy(promote, verdict)),
});

/** Folds one tick into the evidence of every HOLD that stands; those that have enough of it are cleared in this tick. */
export const foldHolds = (
  policy: JudgePolicy,
  promote: PromotePolicy,
  held: readonly HeldCell[],
  { tick, leaves }: { readonly tick: number; readonly leaves: TickLeaves },
): readonly HeldCell[] => {
  if (held.every(({ evidence }) => evidence === null)) return held;
  // The critical cells are the same for every HOLD.
  const known = new Map<string, readonly number[]>();
  const logsOf = (id: string): readonly number[] => {
    const logs = known.get(id) ?? promoteLogs(policy, promote, id, leaves);
    known.set(id, logs);
    return logs;
  };
  return held.map((one) => {
    if (one.evidence === null) return one;
    const evidence = addPromoteLogs(clearingPolicy(promote, one.verdict), one.evidence, tick, logsOf);
    return evidence.ready === null ? { ...one, evidence } : { ...one, clearedAt: tick, evidence: null };
  });
};

/** Clearing needs all cells that a promotion needs, and the one that holds. */
const clearingPolicy = (promote: PromotePolicy, { cell, tick }: Verdict): PromotePolicy => ({
  ...promote,
  from: tick + 1,
  cells: [...new Set([...promote.cells, cell])],
});
