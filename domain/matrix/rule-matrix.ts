/** The matrix as a detection engineer reads it: a row per rule, a column per cell. */
import type { RuleId } from '../release.ts';
import type { Fault } from './gates.ts';
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
  readonly cellId: string;
  /** All of them: the gates of a result name only the first. */
  readonly faults: readonly Fault[];
  /** Rules that the engine did not load; null: it gave no result. */
  readonly notLoaded: readonly NotLoaded[] | null;
  /** There are more faults than are known here: nothing is ok that is not named. */
  readonly partial?: boolean;
};

/** Rows in the order of `ids`. */
export const ruleRows = (ids: readonly RuleId[], cells: readonly LoadedRules[]): readonly RuleRow[] => {
  const judged = cells.map(({ cellId, faults, notLoaded, partial = false }) => ({
    cellId,
    missing: new Map((notLoaded ?? []).map((one) => [one.id, one])),
    noAlert: faultsOf(faults, 'no-alert'),
    extra: faultsOf(faults, 'extra-alert'),
    known: notLoaded !== null,
    partial,
  }));
  return ids.map((ruleId) => ({
    ruleId,
    cells: Object.fromEntries(
      judged.map(({ cellId, missing, noAlert, extra, known, partial }) => {
        const of = (verdict: RuleVerdict, words: string | undefined) => ({ verdict, words: words ?? '' });
        if (!known) return [cellId, of('unknown', 'the cell gave no result')];
        const lost = missing.get(ruleId);
        if (lost) return [cellId, of(lost.withFile ? 'refused-along' : 'not-loaded', lost.words)];
        if (noAlert.has(ruleId)) return [cellId, of('no-alert', noAlert.get(ruleId))];
        if (extra.has(ruleId)) return [cellId, of('extra-alert', extra.get(ruleId))];
        if (partial) return [cellId, of('unknown', 'the cell names only the first of its rules')];
        return [cellId, of('ok', '')];
      }),
    ),
  }));
};

const faultsOf = (faults: readonly Fault[], kind: Fault['kind']): ReadonlyMap<RuleId, string> =>
  new Map(faults.filter((one) => one.kind === kind).map(({ rule, input, words }) => [rule, `${input}: ${words}`]));
