/** The matrix as a detection engineer reads it: a row per rule, a column per cell. */
import type { CellResult, RuleId } from '../release.ts';
import type { NotLoaded } from './not-loaded.ts';

/**
 * `ok`: loaded, and alerts exactly where it should. `refused-along`: it fits by itself, its file was refused because of another
 * rule. `unknown`: the cell gave no result.
 */
export type RuleVerdict = 'ok' | 'not-loaded' | 'refused-along' | 'no-alert' | 'extra-alert' | 'unknown';

export type RuleRow = {
  readonly ruleId: RuleId;
  /** By cell id. */
  readonly cells: Readonly<Record<string, { readonly verdict: RuleVerdict; readonly words: string }>>;
};

export type LoadedRules = {
  readonly result: CellResult;
  /** Rules that the engine did not load; null: it gave no result. */
  readonly notLoaded: readonly NotLoaded[] | null;
};

/** Rows in the order of `ids`. */
export const ruleRows = (ids: readonly RuleId[], cells: readonly LoadedRules[]): readonly RuleRow[] => {
  const judged = cells.map(({ result, notLoaded }) => ({
    cellId: result.cellId,
    missing: new Map((notLoaded ?? []).map((one) => [one.id, one])),
    noAlert: detailsOf(result, 'must-match'),
    extra: detailsOf(result, 'must-not-match'),
    known: notLoaded !== null,
  }));
  return ids.map((ruleId) => ({
    ruleId,
    cells: Object.fromEntries(
      judged.map(({ cellId, missing, noAlert, extra, known }) => {
        const of = (verdict: RuleVerdict, words: string | undefined) => ({ verdict, words: words ?? '' });
        if (!known) return [cellId, of('unknown', 'the cell gave no result')];
        const lost = missing.get(ruleId);
        if (lost) return [cellId, of(lost.withFile ? 'refused-along' : 'not-loaded', lost.words)];
        if (noAlert.has(ruleId)) return [cellId, of('no-alert', noAlert.get(ruleId))];
        if (extra.has(ruleId)) return [cellId, of('extra-alert', extra.get(ruleId))];
        return [cellId, of('ok', '')];
      }),
    ),
  }));
};

const detailsOf = (result: CellResult, gate: string): ReadonlyMap<RuleId, string> =>
  new Map(
    result.gates
      .filter((one) => one.gate === gate)
      .flatMap((one) => one.details)
      .flatMap(({ rule, vector, words }) =>
        rule === undefined ? [] : [[rule, vector === undefined ? words : `${vector}: ${words}`] as const],
      ),
  );
