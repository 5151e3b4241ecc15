/**
 * Which rules an engine did not load, by id. The engine names those it refuses; those that vanish (neither loaded, nor
 * failed, nor skipped, as on Suricata 6.0.1), those that it skips, and the one that refuses a whole file are found by
 * loading halves.
 */

import type { Configuration } from '../content/family.ts';
import type { Language } from '../content/language.ts';
import type { Rule } from '../content/rules.ts';
import type { EngineInput, EngineRun, EngineRunner } from '../ports.ts';
import { compareRuleIds, type EngineBuild, type RuleId } from '../release.ts';

export type NotLoaded = {
  readonly id: RuleId;
  readonly words: string;
  /** The rule fits by itself, and was refused with its file because of another one. */
  readonly withFile?: true;
};

type Completed = Extract<EngineRun, { kind: 'completed' }>;

/** What is asked, of whom: everything that stays the same while parts of the rules are loaded. */
export type Loading = {
  readonly engines: EngineRunner;
  readonly engine: EngineBuild;
  readonly language: Language;
  readonly configuration: Pick<Configuration, 'mode' | 'protocols'>;
  readonly signal: AbortSignal;
};

/** Loads rules without any input; null when there is no such engine. */
export const loadRules = (loading: Loading, rules: readonly Rule[]): Promise<EngineRun | null> => {
  const { mode, protocols } = loading.configuration;
  const input: EngineInput = {
    ...{ rules: loading.language.artefact(rules), inputs: [], mode },
    ...(protocols ? { protocols } : {}),
  };
  return loading.engines.run(loading.engine, input, loading.signal);
};

/** `run`: what the engine made of all `rules`. Sorted by id; empty when everything was loaded. */
export const findNotLoaded = async (
  loading: Loading,
  rules: readonly Rule[],
  run: EngineRun,
): Promise<readonly NotLoaded[]> => {
  const { allOrNothing } = loading.language;
  // A whole file that was refused names a culprit at best, and not those behind it.
  const found = allOrNothing || run.kind !== 'completed' ? new Map<RuleId, string>() : refusedIn(run);
  const known = run.kind === 'completed' ? run : null;
  const rest = rules.filter((rule) => !found.has(rule.ruleId));

  /** `seen`: what of these rules was loaded. What is missing is looked for in both halves. */
  const search = async (part: readonly Rule[], seen: EngineRun | null): Promise<void> => {
    if (part.length === 0) return;
    // A rule cannot be loaded without those that it needs; one of them that does not fit takes it along.
    const asked = loading.language.closure(rules, part);
    const loaded = seen ?? (await loadRules(loading, asked));
    if (loaded?.kind === 'completed' && loaded.loaded === asked.length) return;
    const [only] = part;
    if (only && part.length === 1) {
      const needed = asked.find((rule) => rule !== only && found.has(rule.ruleId));
      found.set(only.ruleId, needed ? `it needs ${needed.ruleId}, which is not loaded` : wordsFor(loaded));
      return;
    }
    const half = Math.ceil(part.length / 2);
    await search(part.slice(0, half), null);
    await search(part.slice(half), null);
  };

  if (known?.loaded !== rules.length) await search(rest, known?.loaded === rest.length ? known : null);
  const own = [...found].map(([id, words]): NotLoaded => ({ id, words }));
  const along =
    known?.loaded === 0 && allOrNothing
      ? rest
          .filter((rule) => !found.has(rule.ruleId))
          .map((rule): NotLoaded => ({ id: rule.ruleId, words: refusedWith(own, known), withFile: true }))
      : [];
  return [...own, ...along].sort((a, b) => compareRuleIds(a.id, b.id));
};

/** Without a culprit among the rules it is something that is no rule by our own reading. */
const refusedWith = (culprits: readonly NotLoaded[], run: Completed): string => {
  const named = culprits.slice(0, 3).map(({ id }) => id);
  const more = culprits.length > 3 ? ` and ${culprits.length - 3} more` : '';
  const why = named.length > 0 ? `${named.join(', ')}${more}` : (run.errors[0]?.words ?? 'something that is no rule');
  return `refused with the whole file, because of ${why}`;
};

/** The ids that the engine itself named. */
const refusedIn = (run: Completed): Map<RuleId, string> =>
  new Map(run.errors.flatMap(({ ruleId, words }) => (ruleId === undefined ? [] : [[ruleId, words]])));

const wordsFor = (run: EngineRun | null): string => {
  if (run === null) return 'there is no such engine';
  if (run.kind === 'no-result') return run.words;
  const said = run.errors[0]?.words;
  if (run.skipped > 0) return said ?? 'skipped: what the rule requires is not met, and the engine says nothing';
  return said ?? 'vanished: neither loaded, nor failed, nor skipped';
};
