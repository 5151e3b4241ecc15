/** The matrix as a detection engineer reads it: a row per rule, a column per cell. */
import type { CellResult, RuleId } from '../release.ts';

/** `ok`: loaded, and alerts exactly where it should. `unknown`: the cell gave no result. */
export type RuleVerdict = 'ok' | 'not-loaded' | 'no-alert' | 'extra-alert' | 'unknown';

export type RuleRow = {
  readonly ruleId: RuleId;
  /** By cell id. */
  readonly cells: Readonly<Record<string, { readonly verdict: RuleVerdict; readonly words: string }>>;
};

export type LoadedRules = {
  readonly result: CellResult;
  /** Rules that the engine did not load; null: it gave no result. */
  readonly notLoaded: readonly { readonly id: RuleId; readonly words: string }[] | null;
};

/** Rows in the order of `ids`. */
export const ruleRows = (ids: readonly RuleId[], cells: readonly LoadedRules[]): readonly RuleRow[] => {
  const judged = cells.map(({ result, notLoaded }) => ({
    cellId: result.cellId,
    missing: new Map((notLoaded ?? []).map(({ id, words }) => [id, words])),
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
        if (missing.has(ruleId)) return [cellId, of('not-loaded', missing.get(ruleId))];
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
