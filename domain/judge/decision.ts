/**
 * From the statistics of one tick to latches, HOLD and HALT (halt specification, sections 7 and 8). Both decisions are final
 * here: the first tick counts.
 */
export type Latch = { readonly A: number | null; readonly B: number | null };

export type Decision = {
  /** Per cell, in policy order, the first tick at which each key had its threshold. */
  readonly latches: readonly Latch[];
  /** `cell`: id of the cell. */
  readonly hold: { readonly tick: number; readonly cell: string } | null;
  readonly halt: { readonly tick: number; readonly cell: string; readonly A: number; readonly B: number } | null;
};

export type Alphas = { readonly A: number; readonly B: number; readonly hold: number };

/** w * E of every cell, in policy order. */
export type Statistics = { readonly A: readonly number[]; readonly B: readonly number[] };

export const noDecision = (cells: number): Decision => ({
  latches: Array.from({ length: cells }, () => ({ A: null, B: null })),
  hold: null,
  halt: null,
});

/** At least 1/alpha counts: a statistic that is equal to its threshold fires. */
export const fires = (statistic: number | undefined, alpha: number): boolean => (statistic ?? 0) >= 1 / alpha;

/**
 * One more tick. A latch stays; the two of a cell need not fall in the same tick, but they must be of the same cell. If
 * several cells complete the pair, HALT names the one with the largest statistic of key A, the earlier one when they tie.
 * `cells`: their ids, in policy order. `hold` is the first HOLD of all; those of every cell are holds.ts.
 */
export const decide = (
  before: Decision,
  cells: readonly string[],
  alphas: Alphas,
  statistics: Statistics,
  tick: number,
): Decision => {
  const latches = before.latches.map((latch, c) => {
    const A = latch.A ?? (fires(statistics.A[c], alphas.A) ? tick : null);
    const B = latch.B ?? (fires(statistics.B[c], alphas.B) ? tick : null);
    return A === latch.A && B === latch.B ? latch : { A, B };
  });
  const idOf = (place: number): string => cells[place] ?? '';
  const holding = largest(statistics.A);
  const halting = largest(statistics.A, (c) => latches[c]?.A != null && latches[c]?.B != null);
  return {
    latches,
    hold:
      before.hold ??
      (holding !== null && fires(statistics.A[holding], alphas.hold) ? { tick, cell: idOf(holding) } : null),
    halt:
      before.halt ??
      (halting === null
        ? null
        : { tick, cell: idOf(halting), A: statistics.A[halting] ?? 0, B: statistics.B[halting] ?? 0 }),
  };
};

/** Place of the largest value among those that count, the first one when they tie; null when none counts. */
export const largest = (values: readonly number[], counts: (index: number) => boolean = () => true): number | null => {
  let best: number | null = null;
  values.forEach((value, index) => {
    if (counts(index) && (best === null || value > (values[best] ?? 0))) best = index;
  });
  return best;
};
