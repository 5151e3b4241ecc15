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

describe('what is not known cuts nothing', () => {
  const { rules } = parseRules(
    'a.rules',
    [1, 2, 3, 4].map((sid) => `alert tcp any any -> any any (msg:"m"; sid:${sid};)`).join('\n'),
  );
  const family = {
    ...{ language: languageOf('suricata'), rules },
    configurations: [{ name: 'ids', mode: 'ids' }] as const,
  };
  const fitOf = (run: (ids: readonly number[], count: number) => EngineRun | null) => {
    let count = 0;
    const engines: EngineRunner = {
      run: async (_build, input) => {
        count += 1;
        const given = parseRules('x', new TextDecoder().decode(input.rules)).rules;
        return run(
          given.map(({ ruleId }) => Number(ruleId)),
          count,
        );
      },
    };
    return fitRules(engines, engineA, family, signal);
  };
  const died: EngineRun = { kind: 'no-result', reason: 'signal', words: 'ended by SIGSEGV', wallMs: 1 };

  test('an engine that names a rule that it was not given: the search goes by what it loads, and ends', async () => {
    const named = (ids: readonly number[]): EngineRun => ({
      ...(answer(ids.length - 1, 1) as Extract<EngineRun, { kind: 'completed' }>),
      errors: [{ ruleId: 99, words: 'refused' }],
    });
    const fit = await fitOf((ids) => (ids.includes(2) ? named(ids) : answer(ids.length, 0)));
    expect(fit?.gaps).toEqual([{ id: 2, words: 'refused' }]);
    // One that says so whenever it has all, and of no part.
    expect(await fitOf((ids) => (ids.length === 4 ? named(ids) : answer(ids.length, 0)))).toBeNull();
  });

  test('an engine that is gone, or dies once, while halves are loaded', async () => {
    const lost = (ids: readonly number[]) => answer(ids.filter((id) => id !== 2).length, 0);
    expect(await fitOf((ids, count) => (count > 1 ? null : lost(ids)))).toBeNull();
    expect(await fitOf((ids, count) => (count > 1 ? died : lost(ids)))).toBeNull();
    let times = 0;
    expect(await fitOf((ids) => (ids.length === 1 && times++ === 0 ? died : lost(ids)))).toBeNull();
  });

  test('a rule that ends the engine whenever it is alone is at fault, where others load', async () => {
    const crash = await fitOf((ids) =>
      ids.includes(3) ? (ids.length === 4 ? answer(3, 0) : died) : answer(ids.length, 0),
    );
    expect(crash?.gaps).toEqual([{ id: 3, words: 'ended by SIGSEGV' }]);
  });
});

describe('the culprit is named, and not what needs it', () => {
  const gapsOf = async (source: string) => {
    const { rules } = parseYara('a.yar', source);
    const engines: EngineRunner = {
      run: async (_build, input) => {
        const text = new TextDecoder().decode(input.rules);
        const count = parseYara('x.yar', text).rules.length;
        return text.includes('nothing_of_this_name') ? answer(0, count, ['undefined identifier']) : answer(count, 0);
      },
    };
    const family = { language: languageOf('yara'), rules, configurations: [{ name: 'scan', mode: 'scan' }] as const };
    return (await fitRules(engines, engineA, family, signal))?.gaps;
  };

  test('where it stands after a rule that needs it', async () => {
    expect(
      await gapsOf(`rule needs_it { condition: faulty and filesize > 1 }
rule good { condition: true }
rule faulty { condition: nothing_of_this_name }`),
    ).toEqual([
      { id: 'needs_it', words: 'it needs faulty, which is not loaded' },
      { id: 'faulty', words: 'undefined identifier' },
    ]);
  });

  test('where it is the last of the global rules, without which no rule means the same', async () => {
    expect(
      await gapsOf(`rule plain { condition: true }
global rule good { condition: true }
global rule faulty { condition: nothing_of_this_name }`),
    ).toEqual([
      { id: 'plain', words: 'it needs faulty, which is not loaded' },
      { id: 'good', words: 'it needs faulty, which is not loaded' },
      { id: 'faulty', words: 'undefined identifier' },
    ]);
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
