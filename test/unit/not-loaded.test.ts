import { describe, expect, test } from 'vitest';
import { languageOf } from '../../domain/content/language.ts';
import { parseRules } from '../../domain/content/suricata.ts';
import { findNotLoaded } from '../../domain/matrix/not-loaded.ts';
import type { EngineRun, EngineRunner } from '../../domain/ports.ts';
import type { RuleId } from '../../domain/release.ts';

type Completed = Extract<EngineRun, { kind: 'completed' }>;

const engine = { name: 'fake', version: '1', packageVersion: '1-1', digest: 'a'.repeat(64) };
const { rules } = parseRules(
  'x.rules',
  Array.from({ length: 33 }, (_, i) => `alert tcp any any -> any any (msg:"r"; content:"x"; sid:${i + 1};)`).join('\n'),
);

/** An engine that refuses, skips and loses the rules of these ids; like 6.0.1 it counts no refusal after a lost rule. */
const fake = (faults: Readonly<Record<RuleId, 'refuse' | 'skip' | 'lose'>>) => {
  let runs = 0;
  const engines: EngineRunner = {
    run: async (_engine, input): Promise<Completed> => {
      runs += 1;
      const ids = parseRules('x.rules', new TextDecoder().decode(input.rules)).rules.map((rule) => rule.ruleId);
      const of = (kind: string) => ids.filter((id) => faults[id] === kind);
      const masked = of('lose').length > 0;
      return {
        kind: 'completed',
        loaded: ids.filter((id) => faults[id] === undefined).length,
        failed: masked ? 0 : of('refuse').length,
        skipped: of('skip').length,
        alerts: [],
        errors: of('refuse').map((id) => ({ ruleId: id, line: 1, words: `refused ${id}` })),
        wallMs: 1,
        peakBytes: null,
      };
    },
  };
  return { engines, runs: () => runs };
};
const find = async (faults: Parameters<typeof fake>[0]) => {
  const { engines, runs } = fake(faults);
  const { signal } = new AbortController();
  const loading = {
    engines,
    engine,
    language: languageOf('suricata'),
    configuration: { mode: 'ids' },
    signal,
  } as const;
  const input = { rules: new TextEncoder().encode(rules.map((rule) => `${rule.text}\n`).join('')), inputs: [] };
  const run = (await engines.run(engine, { ...input, mode: 'ids' }, signal)) as Completed;
  return { found: (await findNotLoaded(loading, rules, run)) ?? [], runs: runs() };
};

describe('rules that were not loaded', () => {
  test('none: nothing more is run', async () => {
    expect(await find({})).toEqual({ found: [], runs: 1 });
  });
  test('refused ones are named by the engine: nothing is searched', async () => {
    const { found, runs } = await find({ 3: 'refuse', 17: 'refuse' });
    expect(found).toEqual([
      { id: 3, words: 'refused 3' },
      { id: 17, words: 'refused 17' },
    ]);
    expect(runs).toBeLessThanOrEqual(2);
  });
  test('lost and skipped ones are found among the rest, also when refusals are no longer counted', async () => {
    const { found } = await find({ 1: 'lose', 2: 'refuse', 20: 'skip', 33: 'lose' });
    expect(found.map(({ id }) => id)).toEqual([1, 2, 20, 33]);
    expect(found[0]?.words).toContain('vanished');
    expect(found[2]?.words).toContain('skipped');
  });
  test('a rule that once did not load and then does is not blamed: nothing is known', async () => {
    const { engines } = fake({});
    let short = 0;
    const once: EngineRunner = {
      run: async (...args) => {
        const run = await engines.run(...args);
        short -= 1; // so many times the machine is short of something
        return run?.kind === 'completed' && short >= 0 ? { ...run, loaded: 0, failed: 1 } : run;
      },
    };
    const one = rules.slice(0, 1);
    const loading = {
      ...{ engines: once, engine, language: languageOf('suricata') },
      configuration: { mode: 'ids' },
      signal: new AbortController().signal,
    } as const;
    const bad = { kind: 'completed', loaded: 0, failed: 1, skipped: 0, alerts: [], errors: [], wallMs: 1 } as const;
    short = 1;
    expect(await findNotLoaded(loading, one, { ...bad, peakBytes: null })).toBeNull();
    short = 2;
    expect(await findNotLoaded(loading, one, { ...bad, peakBytes: null })).toMatchObject([{ id: 1 }]);
  });
  test('every rule lost', async () => {
    const all = Object.fromEntries(rules.map((rule) => [rule.ruleId, 'lose' as const]));
    expect((await find(all)).found).toHaveLength(33);
  });
});
