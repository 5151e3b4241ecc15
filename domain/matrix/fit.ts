/** What of a family's rules fits an engine: the rest is cut from that engine's artefact, and is a gap in its coverage. */
import type { Family } from '../content/family.ts';
import type { Rule } from '../content/rules.ts';
import type { EngineRunner } from '../ports.ts';
import type { EngineBuild } from '../release.ts';
import { findNotLoaded, loadRules, type NotLoaded } from './not-loaded.ts';

export type Fit = { readonly rules: readonly Rule[]; readonly gaps: readonly NotLoaded[] };

/** All rules, or with `misfit: cut` those that the engine loads. An engine that cannot be asked gets all: its cell says so. */
export const fitting = async (
  engines: EngineRunner,
  engine: EngineBuild,
  family: Pick<Family, 'rules' | 'language' | 'configurations' | 'misfit'>,
  signal: AbortSignal,
): Promise<Fit> => {
  const whole = { rules: family.rules, gaps: [] };
  if (family.misfit === 'block') return whole;
  return (await fitRules(engines, engine, family, signal)) ?? whole;
};

/** Rules that load on the engine in every configuration of the family. null: there is no such engine, or it gave no result. */
export const fitRules = async (
  engines: EngineRunner,
  engine: EngineBuild,
  family: Pick<Family, 'rules' | 'language' | 'configurations'>,
  signal: AbortSignal,
): Promise<Fit | null> => {
  const { language } = family;
  const gaps = new Map<NotLoaded['id'], NotLoaded>();
  let rules = family.rules;
  const switches = new Map(family.configurations.map((one) => [JSON.stringify(one.protocols ?? {}), one]));
  for (const configuration of switches.values()) {
    const loading = { engines, engine, language, configuration, signal };
    // What one rule hides (a refusal behind a lost rule on 6.0.1, a second faulty rule in a refused file) shows in the next round.
    for (let fits = false; !fits; ) {
      const run = await loadRules(loading, rules);
      if (run === null || run.kind === 'no-result') return null;
      fits = run.loaded === rules.length;
      if (fits) break;
      const found = (await findNotLoaded(loading, rules, run))?.filter(({ withFile }) => !withFile);
      if (!found) return null;
      for (const gap of found) gaps.set(gap.id, gap);
      const left = rules.filter((rule) => !gaps.has(rule.ruleId));
      if (left.length === rules.length) return null;
      rules = left;
    }
  }
  const position = new Map(family.rules.map((rule, index) => [rule.ruleId, index]));
  const sorted = [...gaps.values()].sort((a, b) => (position.get(a.id) ?? 0) - (position.get(b.id) ?? 0));
  return { rules, gaps: sorted };
};
