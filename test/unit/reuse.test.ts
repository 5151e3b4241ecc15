import { describe, expect, test } from 'vitest';
import type { Family } from '../../domain/content/family.ts';
import { languageOf } from '../../domain/content/language.ts';
import { type CellIdentity, type KeptCell, keyOf, testOrReuse } from '../../domain/matrix/reuse.ts';
import { type MatrixTools, runCell } from '../../domain/matrix/run-cell.ts';
import type { TestedCell } from '../../domain/matrix/test-cell.ts';
import { type Cell, type CellResult, engineId, type Requalified } from '../../domain/release.ts';
import { controlsDigest, digestOf, digestOfBytes, testDigest } from '../../infra/content/digests.ts';

const cell: Cell = {
  cellId: 'yara-4.0.5-00000000/scan',
  engine: { name: 'yara', version: '4.0.5', packageVersion: '4.0.5-1', digest: '0'.repeat(64) },
  mode: 'scan',
  devices: 1,
};
const identity: CellIdentity = { artefact: 'a', previous: null, shipped: null, tests: 't', goodware: 'g', runner: 'r' };
const key = (of: Cell = cell, what: CellIdentity = identity) => keyOf(of, what, digestOf);

const tested = (verdict: CellResult['verdict'], failing: string[] = []): TestedCell => ({
  result: {
    ...{ cellId: cell.cellId, verdict, rulesExpected: 1, rulesLoaded: 1, wallMs: 1_000 },
    gates: failing.map((gate) => ({ gate, verdict: 'fail', observed: 0, operator: '==', limit: 1, details: [] })),
  },
  ...{ observation: null, notLoaded: [], faults: [], repeatable: true, firstUse: [] },
});
const store = () => {
  const kept = new Map<string, KeptCell>();
  return {
    get: async (name: string) => kept.get(name) ?? null,
    put: async (name: string, one: KeptCell) => void kept.set(name, one),
  };
};

describe('the key of a result', () => {
  test('changes with everything that the result depends on', () => {
    const engine = cell.engine;
    const cells: Cell[] = [
      cell,
      { ...cell, mode: 'ids' },
      { ...cell, protocols: { modbus: true } },
      { ...cell, engine: { ...engine, digest: '1'.repeat(64) } },
      { ...cell, engine: { ...engine, packageVersion: '4.0.5-2' } },
    ];
    const parts = Object.keys(identity).map((part) => ({ ...identity, [part]: 'other' }));
    const keys = [...cells.map((one) => key(one)), ...parts.map((one) => key(cell, one))];
    expect(new Set(keys).size).toBe(keys.length);
    expect(key({ ...cell, devices: 99 })).toBe(key());
  });
});

describe('a cell that was tested before', () => {
  test('is not tested again, and says whose result it is', async () => {
    const ports = { cells: store(), now: () => 1_700_000_000_000 };
    let runs = 0;
    const run = (from: string) =>
      testOrReuse(ports, key(), cell, from, async () => {
        runs += 1;
        return tested('pass');
      });
    expect((await run('r-1')).result.reused).toBeUndefined();
    expect((await run('r-2')).result).toMatchObject({
      verdict: 'pass',
      reused: { from: 'r-1', at: '2023-11-14T22:13:20.000Z' },
    });
    expect(runs).toBe(1);
  });

  test('an attempt that comes again after a worker died finds its own result, which is nobody else’s', async () => {
    const ports = { cells: store(), now: () => 0 };
    const run = () => testOrReuse(ports, key(), cell, 'r-1', async () => tested('pass'));
    await run();
    expect((await run()).result).toMatchObject({ verdict: 'pass' });
    expect((await run()).result.reused).toBeUndefined();
  });

  test.each<[string, TestedCell, number]>([
    ['void', tested('void', ['controls']), 2],
    ['an error', tested('error', ['result']), 2],
    ['without a result', { ...tested('fail', ['result']), repeatable: false }, 2],
    ['red by a run that was ended', { ...tested('fail', ['goodware']), repeatable: false }, 2],
    ['over its budget', tested('fail', ['budget-scan']), 2],
    ['red by what the engine said', tested('fail', ['rules-loaded']), 1],
  ])('%s: tested %i times', async (_name, said, times) => {
    const ports = { cells: store(), now: () => 0 };
    let runs = 0;
    for (const from of ['r-1', 'r-2']) {
      await testOrReuse(ports, key(), cell, from, async () => {
        runs += 1;
        return said;
      });
    }
    expect(runs).toBe(times);
  });

  test('is told by the name that its configuration has now', async () => {
    const ports = { cells: store(), now: () => 0 };
    const observation = { cellId: cell.cellId, engine: cell.engine, configuration: 'scan', rules: ['r'], alerts: {} };
    const run = (of: Cell) => testOrReuse(ports, 'key', of, 'r-1', async () => ({ ...tested('pass'), observation }));
    await run(cell);
    const renamed = { ...cell, cellId: 'yara-4.0.5-00000000/deep' };
    expect((await run(renamed)).observation).toMatchObject({ cellId: renamed.cellId, configuration: 'deep' });
  });
});

describe('what the key is made of', () => {
  const engines = { run: async () => null };
  const keys: string[] = [];
  const tools: MatrixTools = {
    ...{ engines, smoke: [], digestOf, digestOfBytes, controlsDigest, testDigest, now: () => 0 },
    cells: {
      get: async (name) => {
        keys.push(name);
        return null;
      },
      put: async () => {},
    },
    qualified: { get: async () => null, put: async () => {} },
    goodware: async () => null,
    runnerDigest: async () => 'r',
  };
  const yara = languageOf('yara');
  const rulesOf = (text: string) => yara.parse('a.yar', text).rules;
  const content = rulesOf('rule a { condition: true }');
  const controls = { good: content, bad: content, skip: [], input: new Uint8Array() };
  const family: Family = {
    ...{ name: 'y', language: yara, misfit: 'block', vectorsRequired: false, goodware: [], support: [], policy: {} },
    ...{ configurations: [], budgets: { load: 2, memory: 2, scan: 2, cut: 0.5 }, rules: content, vectors: [] },
    ...{ differences: [], controls },
  };
  const keyWith = async (more: Partial<Parameters<typeof runCell>[1]>): Promise<string> => {
    const all = { family, cell, rules: content, previous: null, shipped: null, from: 'r-1', ...more };
    await runCell(tools, all, new AbortController().signal);
    return keys.at(-1) ?? '';
  };

  test('the bytes that the engine gets, not only the text of each rule', async () => {
    const imported = rulesOf('import "pe"\nrule a { condition: pe.is_pe }');
    const [first] = imported;
    if (!first) throw new Error('no rule');
    const without = [{ ...first, features: first.features.filter((name) => !name.startsWith('import:')) }];
    const all = [
      await keyWith({}),
      await keyWith({ rules: imported }),
      await keyWith({ rules: without }),
      await keyWith({ previous: imported }),
      await keyWith({ previous: without }),
      await keyWith({ shipped: ['import:pe'] }),
      await keyWith({ family: { ...family, controls: { ...controls, good: imported } } }),
      await keyWith({ family: { ...family, controls: { ...controls, good: without } } }),
    ];
    expect(new Set(all).size).toBe(all.length);
    expect(await keyWith({})).toBe(all[0]);
  });
});

describe('an engine that told good from bad', () => {
  const yara = languageOf('yara');
  const rulesOf = (name: string) => yara.parse(`${name}.yar`, `rule ${name} { condition: true }`).rules;
  const family: Family = {
    ...{ name: 'y', language: yara, misfit: 'block', vectorsRequired: false, goodware: [], support: [], policy: {} },
    ...{ configurations: [], budgets: { load: 2, memory: 2, scan: 2, cut: 0.5 }, rules: rulesOf('a'), vectors: [] },
    ...{ differences: [], controls: { good: rulesOf('good'), bad: rulesOf('bad'), skip: [], input: new Uint8Array() } },
  };
  /** Refuses `bad` unless it is a pushover; alerts on the control. */
  const engineThat = (refuses: boolean): MatrixTools['engines'] => ({
    run: async (_engine, input) => {
      const text = new TextDecoder().decode(input.rules);
      const bad = refuses && text.includes('rule bad');
      const said = { skipped: 0, errors: [], wallMs: 1, peakBytes: 1 };
      if (bad) return { kind: 'completed', ...said, loaded: 0, failed: 1, alerts: [] };
      const alerts = input.inputs.map(({ name }) => ({ input: name, ruleId: 'good', action: 'allowed' as const }));
      return { kind: 'completed', ...said, loaded: text.split('rule ').length - 1, failed: 0, alerts };
    },
  });
  const toolsWith = (engines: MatrixTools['engines']) => {
    const known = new Map<string, Requalified & { readonly from: string }>();
    let runner = 'r1';
    const tools: MatrixTools = {
      ...{ engines, smoke: [], digestOf, digestOfBytes, controlsDigest, testDigest, now: () => 0 },
      cells: store(),
      qualified: { get: async (name) => known.get(name) ?? null, put: async (name, one) => void known.set(name, one) },
      goodware: async () => null,
      runnerDigest: async () => runner,
    };
    const test = async (from: string, more: Partial<Parameters<typeof runCell>[1]> = {}) => {
      const all = { family, cell, rules: family.rules, previous: null, shipped: null, from, ...more };
      return (await runCell(tools, all, new AbortController().signal)).requalified;
    };
    const changeRunner = () => {
      runner = 'r2';
    };
    return { test, changeRunner };
  };

  test('is news once, until the code that runs it, its pack or the controls change', async () => {
    const { test: run, changeRunner } = toolsWith(engineThat(true));
    expect(await run('r-1')).toMatchObject({ engine: engineId(cell.engine), runner: 'r1' });
    expect(await run('r-2', { rules: rulesOf('b') })).toBeNull();
    changeRunner();
    expect(await run('r-3')).toMatchObject({ runner: 'r2' });
    const other = { ...cell, engine: { ...cell.engine, digest: '1'.repeat(64) } };
    expect(await run('r-4', { cell: other })).toMatchObject({ digest: '1'.repeat(64) });
    const controls = { ...family.controls, input: Uint8Array.of(1) };
    expect(await run('r-5', { family: { ...family, controls } })).not.toBeNull();
  });

  test('is still news for the release that found it, whose first attempt may have died', async () => {
    const { test: run } = toolsWith(engineThat(true));
    expect(await run('r-1')).not.toBeNull();
    expect(await run('r-1')).not.toBeNull();
    expect(await run('r-2', { rules: rulesOf('b') })).toBeNull();
  });

  test('is not qualified by controls that came out wrong', async () => {
    const { test: run } = toolsWith(engineThat(false));
    expect(await run('r-1')).toBeNull();
  });
});
