import { describe, expect, test } from 'vitest';
import { languageOf } from '../../domain/content/language.ts';
import { parseRules } from '../../domain/content/suricata.ts';
import { parseYara } from '../../domain/content/yara.ts';
import { fitRules } from '../../domain/matrix/fit.ts';
import type { EngineInput, EngineRun, EngineRunner } from '../../domain/ports.ts';
import { engineA } from '../support/devices.ts';

const { signal } = new AbortController();
const answer = (loaded: number, failed: number, words: readonly string[] = []): EngineRun => ({
  ...{ kind: 'completed', loaded, failed, skipped: 0, alerts: [], wallMs: 1, peakBytes: null },
  errors: words.map((one) => ({ words: one })),
});

describe('rules that fit an engine', () => {
  const rules = parseRules(
    'a.rules',
    [1, 2, 3, 4].map((sid) => `alert tcp any any -> any any (msg:"m"; sid:${sid};)`).join('\n'),
  ).rules;
  const suricata = { language: languageOf('suricata'), rules };
  /** Loads rules but those that `bad` names for this input. */
  const engine = (bad: (input: EngineInput) => readonly number[]): EngineRunner => ({
    run: async (_build, input) => {
      const ids = parseRules('x', new TextDecoder().decode(input.rules)).rules.map(({ ruleId }) => Number(ruleId));
      const lost = ids.filter((id) => bad(input).includes(id));
      return answer(ids.length - lost.length, lost.length);
    },
  });

  test('what does not load in any configuration is a gap, in the order of the source', async () => {
    const configurations = [
      { name: 'ids', mode: 'ids' },
      { name: 'plant', mode: 'ids', protocols: { modbus: true } },
    ] as const;
    const engines = engine(({ protocols }) => (protocols?.modbus ? [2] : [3]));
    const fit = await fitRules(engines, engineA, { ...suricata, configurations }, signal);
    expect(fit?.rules.map(({ ruleId }) => ruleId)).toEqual([1, 4]);
    expect(fit?.gaps.map(({ id }) => id)).toEqual([2, 3]);
  });

  test('an engine that is not there or dies fits nothing and cuts nothing', async () => {
    const family = { ...suricata, configurations: [{ name: 'ids', mode: 'ids' }] as const };
    expect(await fitRules({ run: async () => null }, engineA, family, signal)).toBeNull();
    const dies: EngineRunner = {
      run: async () => ({ kind: 'no-result', reason: 'signal', words: 'SIGSEGV', wallMs: 1 }),
    };
    expect(await fitRules(dies, engineA, family, signal)).toBeNull();
  });
});

describe('where one faulty rule refuses the file', () => {
  const source = `rule good { condition: filesize > 0 }
rule faulty { condition: nothing_of_this_name }
rule needs_it { condition: faulty and filesize > 1 }
rule last { condition: good }`;
  const { rules } = parseYara('a.yar', source);
  let runs = 0;
  const engines: EngineRunner = {
    run: async (_build, input) => {
      runs += 1;
      const text = new TextDecoder().decode(input.rules);
      const count = parseYara('x.yar', text).rules.length;
      const bad = text.includes('nothing_of_this_name');
      return bad ? answer(0, count, ['undefined identifier']) : answer(count, 0);
    },
  };

  test('only the culprit and what needs it are cut; the rules that were refused along with it stay', async () => {
    const family = { language: languageOf('yara'), rules, configurations: [{ name: 'scan', mode: 'scan' }] as const };
    const fit = await fitRules(engines, engineA, family, signal);
    expect(fit?.rules.map(({ ruleId }) => ruleId)).toEqual(['good', 'last']);
    expect(fit?.gaps).toEqual([
      { id: 'faulty', words: 'undefined identifier' },
      { id: 'needs_it', words: 'it needs faulty, which is not loaded' },
    ]);
    expect(runs).toBeLessThan(12);
  });
});
