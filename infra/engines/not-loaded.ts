/**
 * Which rules an engine did not load, by signature id. The engine names those it refuses; those that vanish (neither loaded,
 * nor failed, nor skipped, as on 6.0.1) and those that it skips are found by loading halves.
 */

import { rulesText } from '../../domain/content/family.ts';
import type { Rule } from '../../domain/content/rules.ts';
import type { EngineRun, EngineRunner } from '../../domain/ports.ts';
import type { EngineBuild } from '../../domain/release.ts';

export type NotLoaded = { readonly id: number; readonly words: string };

type Completed = Extract<EngineRun, { kind: 'completed' }>;

/** `run`: what the engine made of all `rules`. Sorted by id; empty when everything was loaded. */
export const findNotLoaded = async (
  engines: EngineRunner,
  engine: EngineBuild,
  rules: readonly Rule[],
  run: Completed,
  signal: AbortSignal,
): Promise<readonly NotLoaded[]> => {
  const found = refusedIn(run);
  const rest = rules.filter((rule) => !found.has(rule.signatureId));

  /** `loaded` of these rules: what of them is missing is looked for in both halves. */
  const search = async (part: readonly Rule[], known: EngineRun | null): Promise<void> => {
    if (part.length === 0) return;
    const loaded = known ?? (await load(part));
    if (loaded?.kind === 'completed' && loaded.loaded === part.length) return;
    const [only] = part;
    if (only && part.length === 1) {
      found.set(only.signatureId, wordsFor(loaded));
      return;
    }
    const half = Math.ceil(part.length / 2);
    await search(part.slice(0, half), null);
    await search(part.slice(half), null);
  };
  const load = (part: readonly Rule[]): Promise<EngineRun | null> => {
    const input = { rules: new TextEncoder().encode(rulesText(part)), captures: [], mode: 'ids' } as const;
    return engines.run(engine, input, signal);
  };

  if (run.loaded !== rules.length) await search(rest, run.loaded === rest.length ? run : null);
  return [...found].map(([id, words]) => ({ id, words })).sort((a, b) => a.id - b.id);
};

/** The ids that the engine itself named. */
const refusedIn = (run: Completed): Map<number, string> =>
  new Map(run.errors.flatMap(({ signatureId, words }) => (signatureId === undefined ? [] : [[signatureId, words]])));

const wordsFor = (run: EngineRun | null): string => {
  if (run === null) return 'there is no such engine';
  if (run.kind === 'no-result') return run.words;
  const said = run.errors[0]?.words;
  if (run.skipped > 0) return said ?? 'skipped: what the rule requires is not met';
  return said ?? 'vanished: neither loaded, nor failed, nor skipped';
};
