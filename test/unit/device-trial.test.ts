import { describe, expect, test } from 'vitest';
import { createTrials, tryContent } from '../../apps/device/trial.ts';
import type { EngineFile, EngineInput, EngineRun, EngineRunner } from '../../domain/ports.ts';
import type { EngineBuild } from '../../domain/release.ts';
import { engineA as anyEngine } from '../support/devices.ts';

const engineA: EngineBuild = { ...anyEngine, name: 'suricata' };
const engineB: EngineBuild = { ...engineA, digest: 'cd'.repeat(32) };
const utf8 = new TextEncoder();
const rules = utf8.encode(
  [7, 8].map((sid) => `alert tcp any any -> any any (msg:"m"; content:"x"; sid:${sid}; rev:1;)`).join('\n'),
);
const completed = (values: Partial<Extract<EngineRun, { kind: 'completed' }>> = {}): EngineRun => ({
  ...{ kind: 'completed', loaded: 2, failed: 0, skipped: 0, alerts: [], errors: [], wallMs: 1, peakBytes: null },
  ...values,
});
/** An engine that answers always the same, and remembers what it was asked. */
const engineThatSays = (run: EngineRun | null): EngineRunner & { readonly asked: [EngineBuild, EngineInput][] } => {
  const asked: [EngineBuild, EngineInput][] = [];
  return {
    asked,
    run: async (engine, input) => {
      asked.push([engine, input]);
      return run;
    },
  };
};
const bytesOf = (input: EngineFile | undefined) => (input && 'bytes' in input ? input.bytes : undefined);
const attempt = (run: EngineRun | null) => tryContent(engineThatSays(run), engineA, rules, new Uint8Array([1]));

describe('what an engine says about content', () => {
  test('it is asked as if inline, with the traffic of the device', async () => {
    const engines = engineThatSays(completed());
    await tryContent(engines, engineA, rules, new Uint8Array([1, 2]));
    expect(engines.asked).toEqual([
      [engineA, { rules, inputs: [{ name: 'traffic', bytes: new Uint8Array([1, 2]) }], mode: 'ips' }],
    ]);
  });

  test('healthy: every rule was loaded and nothing was blocked, alerts or not', async () => {
    expect(await attempt(completed())).toEqual({ outcome: 'healthy' });
    const alerts = [{ input: 'traffic', ruleId: 7, action: 'allowed' }] as const;
    expect(await attempt(completed({ alerts }))).toEqual({ outcome: 'healthy' });
  });

  test('blocked traffic names each rule once', async () => {
    const blocked = (ruleId: number) => ({ input: 'traffic', ruleId, action: 'blocked' }) as const;
    expect(await attempt(completed({ alerts: [blocked(7), blocked(7), blocked(8)] }))).toEqual({
      outcome: 'blocked-traffic',
      words: 'rule 7, 8 blocked legitimate traffic',
    });
  });

  test('one rule that was not loaded is a load failure, whatever else went well', async () => {
    const errors = [{ words: 'unknown rule keyword' }];
    expect(await attempt(completed({ loaded: 1, failed: 1, errors }))).toEqual({
      outcome: 'load-failure',
      words: 'unknown rule keyword',
    });
    expect(await attempt(completed({ loaded: 1, skipped: 1 }))).toEqual({
      outcome: 'load-failure',
      words: '1 of 2 rules were loaded',
    });
    expect(await attempt(completed({ loaded: 3 }))).toMatchObject({ outcome: 'load-failure' });
  });

  test('an engine without a result is a load failure, its words cut to what a report may hold', async () => {
    const run: EngineRun = { kind: 'no-result', reason: 'signal', words: 'x'.repeat(5_000), wallMs: 1 };
    const trial = await attempt(run);
    expect(trial).toEqual({ outcome: 'load-failure', words: 'x'.repeat(400) });
    const errors = [{ words: 'y'.repeat(5_000) }];
    expect(await attempt(completed({ loaded: 0, errors }))).toMatchObject({ words: 'y'.repeat(400) });
  });

  test('an engine that is not here says nothing', async () => {
    await expect(attempt(null)).rejects.toThrow('there is no engine suricata-1.0-abababab here');
  });
});

describe('trials shared by devices', () => {
  const profiles = new Map([
    ['office', new Uint8Array([1])],
    ['plant', new Uint8Array([2])],
  ]);
  const fetchRules = async () => rules;

  test('an engine is asked once for the same content and traffic, also when many devices ask at once', async () => {
    const engines = engineThatSays(completed());
    const trials = createTrials(engines, profiles);
    let fetched = 0;
    const fetchOnce = async () => {
      fetched += 1;
      return rules;
    };
    const many = await Promise.all(Array.from({ length: 50 }, () => trials(engineA, 'd1', fetchOnce, 'office')));
    expect(many).toEqual(Array.from({ length: 50 }, () => ({ outcome: 'healthy' })));
    await trials(engineA, 'd1', fetchOnce, 'office');
    expect([engines.asked.length, fetched]).toEqual([1, 1]);
  });

  test('another engine, content or traffic is another question', async () => {
    const engines = engineThatSays(completed());
    const trials = createTrials(engines, profiles);
    await trials(engineA, 'd1', fetchRules, 'office');
    await trials(engineB, 'd1', fetchRules, 'office');
    await trials(engineA, 'd2', fetchRules, 'office');
    await trials(engineA, 'd1', fetchRules, 'plant');
    expect(engines.asked.map(([{ digest }, { inputs }]) => [digest, bytesOf(inputs[0])?.[0]])).toEqual([
      [engineA.digest, 1],
      [engineB.digest, 1],
      [engineA.digest, 1],
      [engineA.digest, 2],
    ]);
  });

  test('a load failure is an answer and is remembered', async () => {
    const engines = engineThatSays({ kind: 'no-result', reason: 'exit', words: 'bad', wallMs: 1 });
    const trials = createTrials(engines, profiles);
    for (let i = 0; i < 3; i += 1) {
      expect(await trials(engineA, 'd1', fetchRules, 'office')).toMatchObject({ outcome: 'load-failure' });
    }
    expect(engines.asked).toHaveLength(1);
  });

  test('a fetch that failed is told to who waited for it, and not remembered', async () => {
    const engines = engineThatSays(completed());
    const trials = createTrials(engines, profiles);
    const failing = () => Promise.reject(new Error('no connection'));
    const waiting = [1, 2, 3].map(() => trials(engineA, 'd1', failing, 'office'));
    for (const one of waiting) await expect(one).rejects.toThrow('no connection');
    expect(await trials(engineA, 'd1', fetchRules, 'office')).toEqual({ outcome: 'healthy' });
    expect(engines.asked).toHaveLength(1);
  });

  test('devices that try again after the same failed fetch still share one question', async () => {
    const engines = engineThatSays(completed());
    const trials = createTrials(engines, profiles);
    const failing = () => Promise.reject(new Error('no connection'));
    const stubborn = () =>
      trials(engineA, 'd1', failing, 'office').catch(() => trials(engineA, 'd1', fetchRules, 'office'));
    await Promise.all([1, 2, 3].map(stubborn));
    expect(engines.asked).toHaveLength(1);
  });
});
