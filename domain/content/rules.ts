/**
 * Rules of any language as our own parsers read them: how many there are, what they are called, where they stand. It is
 * the "expected" that an engine's "loaded" is compared with, so it must not depend on any engine.
 */
import type { Finding, RuleId } from '../release.ts';

export type ContentFinding = Finding & { readonly file?: string; readonly line?: number };

export type Rule = {
  readonly ruleId: RuleId;
  /** 1 where the language has none. */
  readonly revision: number;
  /** What people call it; empty when the rule does not say. */
  readonly message: string;
  /** Features of the language that it uses, each once, sorted: keywords, modules, modifiers, database kinds. */
  readonly features: readonly string[];
  readonly file: string;
  /** Line of the rule's first character. */
  readonly line: number;
  /** As it goes to the engine. */
  readonly text: string;
  /** Rules that must be loaded before this one, since it refers to them (YARA). */
  readonly needs: readonly RuleId[];
};

export type ParsedRules = { readonly rules: readonly Rule[]; readonly findings: readonly ContentFinding[] };

/** One finding for each signature id that is used again: an engine keeps one of the two and says nothing. */
export const findDuplicateIds = (rules: readonly Rule[]): ContentFinding[] => {
  const first = new Map<RuleId, Rule>();
  const findings: ContentFinding[] = [];
  for (const rule of rules) {
    const known = first.get(rule.ruleId);
    if (known === undefined) first.set(rule.ruleId, rule);
    else {
      const what = typeof rule.ruleId === 'number' ? 'signature id' : 'the name';
      const message = `${what} ${rule.ruleId} is used again: first in ${known.file}:${known.line}`;
      findings.push({ code: 'duplicate-id', message, file: rule.file, line: rule.line });
    }
  }
  return findings;
};

/**
 * Ids that mean something else than in the release that the fleet runs: devices, exceptions of customers and statistics know a
 * rule by its id. A rule that changed says so by a higher revision.
 */
export const findReusedIds = (rules: readonly Rule[], previous: readonly Rule[]): ContentFinding[] => {
  const before = new Map(previous.map((rule) => [rule.ruleId, rule]));
  return rules.flatMap((rule): ContentFinding[] => {
    const known = before.get(rule.ruleId);
    if (!known || known.text === rule.text || typeof rule.ruleId !== 'number') return [];
    const place = { code: 'reused-id', file: rule.file, line: rule.line };
    if (known.message !== rule.message) {
      const message = `signature id ${rule.ruleId} was "${known.message}" in the previous release and is "${rule.message}" now: give the new rule an id of its own`;
      return [{ ...place, message }];
    }
    if (rule.revision > known.revision) return [];
    const message = `rule ${rule.ruleId} differs from the previous release and still has revision ${rule.revision}: raise rev`;
    return [{ ...place, message }];
  });
};
