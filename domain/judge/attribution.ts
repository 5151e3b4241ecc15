/** What a HALT (or a HOLD, on request) points at (halt specification, section 12). */
import type { Attribution } from '../release.ts';
import { largest } from './decision.ts';
import type { JudgeState } from './fold.ts';
import type { JudgePolicy } from './policy.ts';

/** The usual level of the suspects (section 14). */
export const suspectLevel = 0.1;

/**
 * e-BH: places of the reported e-values, largest first (ties in their order). The largest k with k * E_(k) / m >= 1/level
 * counts, even where a smaller k fails.
 */
export const eBenjaminiHochberg = (e: readonly number[], level: number): readonly number[] => {
  const order = e.map((_, index) => index).sort((a, b) => (e[b] ?? 0) - (e[a] ?? 0) || a - b);
  let reported = 0;
  order.forEach((index, place) => {
    if (((place + 1) * (e[index] ?? 0)) / e.length >= 1 / level) reported = place + 1;
  });
  return order.slice(0, reported);
};

/** Of the state after the tick in question. Frozen cells are never suspects: their e-values are of another filtration. */
export const attribute = (policy: JudgePolicy, state: JudgeState, level = suspectLevel): Attribution => {
  const named = (counts: (c: number) => boolean) => policy.cells.filter((_, c) => counts(c)).map(({ id }) => id);
  const latched = (key: 'A' | 'B') => (c: number) => state.latches[c]?.[key] != null;
  const concurrent = policy.cells.flatMap((cell, c) =>
    cell.kind === 'frozen' ? [] : [{ id: cell.id, e: (state.statistics.A[c] ?? 0) / cell.weight }],
  );
  const suspects = eBenjaminiHochberg(
    concurrent.map(({ e }) => e),
    level,
  );
  const first = largest(state.statistics.A);
  return {
    latchedBoth: named((c) => latched('A')(c) && latched('B')(c)),
    latchedA: named(latched('A')),
    latchedB: named(latched('B')),
    suspects: suspects.flatMap((index) => concurrent[index]?.id ?? []),
    leading: first === null ? null : (policy.cells[first]?.id ?? null),
  };
};
