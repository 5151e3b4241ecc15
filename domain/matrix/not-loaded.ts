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

/**
 * `run`: what the engine made of all `rules`. Sorted by id; empty when everything was loaded; null: not known, since an
 * engine that gives no result tells nothing about rules.
 */
export const findNotLoaded = async (
  loading: Loading,
  rules: readonly Rule[],
  run: EngineRun,
): Promise<readonly NotLoaded[] | null> => {
  const { language } = loading;
  const { allOrNothing } = language;
  // A whole file that was refused names a culprit at best, and not those behind it.
  const found = allOrNothing || run.kind !== 'completed' ? new Map<RuleId, string>() : refusedIn(run, rules);
  const known = run.kind === 'completed' ? run : null;
  const rest = rules.filter((rule) => !found.has(rule.ruleId));
  let isKnown = true;
  let loads: readonly Rule[] | null = null;
  let crashed = false;

  const loadsWhole = async (part: readonly Rule[]): Promise<EngineRun | null | 'whole'> => {
    const loaded = await loadRules(loading, part);
    if (loaded?.kind !== 'completed' || loaded.loaded !== part.length) return loaded;
    loads = part;
    return 'whole';
  };

  /** A rule that does not load, without anything else to blame. It has to do so twice: once may be the machine. */
  const blame = async (rule: Rule, asked: readonly Rule[], loaded: EngineRun | null): Promise<void> => {
    const again = loaded && (await loadRules(loading, asked));
    if (!loaded || !again || !endsAlike(loaded, again)) {
      isKnown = false;
      return;
    }
    if (loaded.kind === 'no-result') crashed = true;
    found.set(rule.ruleId, loaded.kind === 'no-result' ? loaded.words : wordsFor(loaded));
  };

  /** The one of `asked` that is at fault: with the rules before it, which need none after them, it does not load. */
  const findCulprit = async (asked: readonly Rule[], all: EngineRun | null): Promise<void> => {
    const order = new Map(language.parseArtefact(language.artefact(asked)).rules.map(({ ruleId }, at) => [ruleId, at]));
    const sorted = [...asked].sort((a, b) => (order.get(a.ruleId) ?? 0) - (order.get(b.ruleId) ?? 0));
    let [good, bad, said] = [0, sorted.length, all];
    while (bad - good > 1) {
      const middle = Math.floor((good + bad) / 2);
      const loaded = await loadsWhole(sorted.slice(0, middle));
      if (loaded === 'whole') good = middle;
      else [bad, said] = [middle, loaded];
    }
    const culprit = sorted[bad - 1];
    if (culprit) await blame(culprit, sorted.slice(0, bad), said);
  };

  /** What is missing of these is looked for in both halves. */
  const search = async (part: readonly Rule[]): Promise<void> => {
    const [only] = part;
    if (!only || !isKnown || (part.length === 1 && found.has(only.ruleId))) return;
    // A rule cannot be loaded without those that it needs; one of them that does not fit takes it along.
    const asked = language.closure(rules, part);
    const loaded = await loadsWhole(asked);
    if (loaded === 'whole') return;
    if (loaded === null) {
      isKnown = false;
      return;
    }
    if (part.length > 1) {
      const half = Math.ceil(part.length / 2);
      await search(part.slice(0, half));
      await search(part.slice(half));
      return;
    }
    const culpritAmong = () => asked.find((rule) => rule !== only && found.has(rule.ruleId));
    if (!culpritAmong()) await findCulprit(asked, loaded);
    const needed = culpritAmong();
    if (needed && !found.has(only.ruleId)) found.set(only.ruleId, `it needs ${needed.ruleId}, which is not loaded`);
  };

  // What is left beside those that were named may be whole already.
  if (known?.loaded !== rules.length && !(known && rest.length > 0 && known.loaded === rest.length)) {
    await search(rest);
  }
  // An engine that ends whatever it is given says nothing about the rule that it was given.
  if (crashed && (loads === null || (await loadsWhole(loads)) !== 'whole')) return null;
  if (!isKnown) return null;
  const own = [...found].map(([id, words]): NotLoaded => ({ id, words }));
  const along =
    known?.loaded === 0 && allOrNothing
      ? rest
          .filter((rule) => !found.has(rule.ruleId))
          .map((rule): NotLoaded => ({ id: rule.ruleId, words: refusedWith(own, known), withFile: true }))
      : [];
  return [...own, ...along].sort((a, b) => compareRuleIds(a.id, b.id));
};

const endsAlike = (one: EngineRun, other: EngineRun): boolean =>
  one.kind === 'completed'
    ? other.kind === 'completed' && one.loaded === other.loaded
    : other.kind === 'no-result' && one.reason === other.reason;

/** Without a culprit among the rules it is something that is no rule by our own reading. */
const refusedWith = (culprits: readonly NotLoaded[], run: Completed): string => {
  const named = culprits.slice(0, 3).map(({ id }) => id);
  const more = culprits.length > 3 ? ` and ${culprits.length - 3} more` : '';
  const why = named.length > 0 ? `${named.join(', ')}${more}` : (run.errors[0]?.words ?? 'something that is no rule');
  return `refused with the whole file, because of ${why}`;
};

/** The ids that the engine itself named, of rules that it was given. */
const refusedIn = (run: Completed, rules: readonly Rule[]): Map<RuleId, string> => {
  const given = new Set(rules.map(({ ruleId }) => ruleId));
  return new Map(
    run.errors.flatMap(({ ruleId, words }) => (ruleId === undefined || !given.has(ruleId) ? [] : [[ruleId, words]])),
  );
};

const wordsFor = (run: Completed): string => {
  const said = run.errors[0]?.words;
  if (run.skipped > 0) return said ?? 'skipped: what the rule requires is not met, and the engine says nothing';
  return said ?? 'vanished: neither loaded, nor failed, nor skipped';
};
