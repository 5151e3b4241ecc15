/** The gates of a cell, with an engine that does exactly what a test tells it: each gate passes and fails for its own reason. */
import { describe, expect, test } from 'vitest';
import type { Family } from '../../domain/content/family.ts';
import { languageOf } from '../../domain/content/language.ts';
import { parseRules } from '../../domain/content/suricata.ts';
import { parseYara } from '../../domain/content/yara.ts';
import { type CellContent, testCell } from '../../domain/matrix/test-cell.ts';
import type { EngineFile, EngineInput, EngineRun } from '../../domain/ports.ts';
import type { Cell, RuleId } from '../../domain/release.ts';

type Completed = Extract<EngineRun, { kind: 'completed' }>;

const suricata = languageOf('suricata');
const cell: Cell = {
  cellId: 'suricata-6.0.1-00000000/ips',
  engine: { name: 'suricata', version: '6.0.1', packageVersion: '1:6.0.1-3', digest: '0'.repeat(64) },
  mode: 'ips',
  devices: 10,
};
/** Rule n alerts on every input that contains the byte n. */
const rule = (n: number, more = '') => `alert tcp any any -> any any (msg:"r${n}"; ${more} sid:${n}; rev:1;)`;
const rulesOf = (...numbers: number[]) => parseRules('a.rules', numbers.map((n) => rule(n)).join('\n')).rules;
const bytes = (...values: number[]) => Uint8Array.from(values);

const family: Family = {
  ...{ name: 'ips', language: suricata, misfit: 'block', vectorsRequired: true, goodware: [], support: [], policy: {} },
  configurations: [{ name: 'ips', mode: 'ips' }],
  budgets: { load: 2, memory: 1.5, scan: 2, cut: 0.5 },
  rules: rulesOf(1, 2, 3),
  vectors: [
    { name: 'one', bytes: bytes(1), mustMatch: [1] },
    { name: 'two', bytes: bytes(2, 3), mustMatch: [2, 3] },
    { name: 'clean', bytes: bytes(77), mustMatch: [] },
  ],
  differences: [],
  controls: {
    good: rulesOf(200),
    bad: parseRules('bad.rules', `${rule(201, 'bad;')}\n${rule(202, 'bad;')}`).rules,
    skip: parseRules('skip.rules', rule(203, 'skip;')).rules,
    input: bytes(200),
  },
};

const dataOf = (input: EngineFile): Uint8Array => ('bytes' in input ? input.bytes : new Uint8Array());

/** An honest engine: refuses `bad`, skips `skip`, and alerts on the byte that a rule is called by. */
const honest = (input: EngineInput): Completed => {
  const { rules } = parseRules('content.rules', new TextDecoder().decode(input.rules));
  const bad = rules.filter(({ features }) => features.includes('bad'));
  const skip = rules.filter(({ features }) => features.includes('skip'));
  const loaded = rules.filter((one) => !bad.includes(one) && !skip.includes(one));
  const alerts = input.inputs.flatMap((one) =>
    loaded
      .filter(({ ruleId }) => dataOf(one).includes(Number(ruleId)))
      .map(({ ruleId }) => ({ input: one.name, ruleId, action: 'allowed' as const })),
  );
  return {
    kind: 'completed',
    ...{ loaded: loaded.length, failed: bad.length, skipped: skip.length, alerts },
    errors: bad.map(({ ruleId, line }) => ({ ruleId, line, words: `refused ${ruleId}` })),
    ...{ wallMs: 100, peakBytes: 60 * 2 ** 20 },
  };
};
const dead: EngineRun = { kind: 'no-result', reason: 'signal', words: 'SIGSEGV', wallMs: 1 };

/** `change`: what this engine does otherwise; it is told which run this is, from 1, and what an honest engine would say. */
type Change = (said: Completed, input: EngineInput, run: number) => EngineRun | null;

const grade = async (change: Change = (said) => said, content: Partial<CellContent> = {}, of: Cell = cell) => {
  let runs = 0;
  const engines = {
    run: async (_engine: unknown, input: EngineInput) => {
      runs += 1;
      return change(honest(input), input, runs);
    },
  };
  const all: CellContent = {
    family,
    rules: family.rules,
    previous: null,
    shipped: null,
    goodware: [],
    smoke: [],
    ...content,
  };
  const tested = await testCell({ engines, now: () => 0 }, of, all, new AbortController().signal);
  const gateOf = (name: string) => tested.result.gates.find((gate) => gate.gate === name);
  const red = tested.result.gates.filter((gate) => gate.verdict !== 'pass').map((gate) => gate.gate);
  return { ...tested, verdict: tested.result.verdict, gateOf, red };
};

/** Only runs over the content: the control runs are left alone. */
const onContent =
  (change: Change): Change =>
  (said, input, run) =>
    input.inputs.some(({ name }) => name === 'control') ? said : change(said, input, run);

const lose = (...ids: RuleId[]) =>
  onContent((said) => ({
    ...said,
    loaded: said.loaded - ids.length,
    alerts: said.alerts.filter(({ ruleId }) => !ids.includes(ruleId)),
  }));

describe('the gates of a cell', () => {
  const previous = rulesOf(1, 2);
  const shipped = previous.flatMap(({ features }) => features);

  test('pass when everything loads, alerts and stays quiet as expected', async () => {
    const { verdict, result, observation } = await grade();
    expect(verdict).toBe('pass');
    expect(result.gates.map((gate) => gate.gate)).toEqual([
      ...['controls', 'rules-loaded', 'must-match', 'must-not-match', 'restart'],
    ]);
    expect(result).toMatchObject({ rulesExpected: 3, rulesLoaded: 3, usage: { peakBytes: 60 * 2 ** 20 } });
    expect(observation?.alerts).toEqual({ one: [1], two: [2, 3], clean: [] });
  });

  test('a refused rule fails the cell and is named in the words of the engine', async () => {
    const errors = [{ ruleId: 3, line: 7, words: 'unknown rule keyword "entropy"' }];
    const { verdict, gateOf, notLoaded } = await grade(
      onContent((said) => (said.loaded < 3 ? said : { ...said, loaded: 2, failed: 1, errors })),
    );
    expect(verdict).toBe('fail');
    expect(gateOf('rules-loaded')).toMatchObject({
      ...{ observed: 2, operator: '==', limit: 3 },
      details: [{ rule: 3, words: 'unknown rule keyword "entropy"' }],
    });
    expect(notLoaded?.map(({ id }) => id)).toEqual([3]);
  });

  test('a rule that vanished without a word fails the cell, is found by its id, and its silence is vacuous', async () => {
    const { verdict, gateOf } = await grade((said, input) =>
      new TextDecoder().decode(input.rules).includes('sid:2;') ? lose(2)(said, input, 0) : said,
    );
    expect(verdict).toBe('fail');
    expect(gateOf('rules-loaded')?.details).toMatchObject([{ rule: 2, words: expect.stringContaining('vanished') }]);
    expect(gateOf('must-not-match')).toMatchObject({ verdict: 'fail', observed: '0, 1 vacuous' });
    expect(gateOf('must-not-match')?.details[0]).toMatchObject({ rule: 2, words: expect.stringMatching(/^vacuous/) });
  });

  test('a missing and a surplus alert are different gates', async () => {
    const missing = await grade(onContent((said) => ({ ...said, alerts: said.alerts.filter((a) => a.ruleId !== 3) })));
    expect(missing.gateOf('must-match')).toMatchObject({ verdict: 'fail', observed: 2, limit: 3 });
    const surplus = await grade(
      onContent((said, input) =>
        input.inputs.length === 0
          ? said
          : { ...said, alerts: [...said.alerts, { input: 'clean', ruleId: 3, action: 'allowed' }] },
      ),
    );
    expect(surplus.red).toEqual(['must-not-match']);
    expect(surplus.gateOf('must-not-match')?.details).toEqual([
      { rule: 3, vector: 'clean', words: 'alerted, and should not' },
    ]);
  });

  test('a declared difference is what an engine of that version must show, and no other', async () => {
    const silent: Change = onContent((said) => ({ ...said, alerts: said.alerts.filter((a) => a.ruleId !== 3) }));
    const difference = { rule: 3, vector: 'two', expect: 'silent', reason: 'known' } as const;
    const declared = { ...family, differences: [{ ...difference, engines: ['suricata@6.0.1'] }] };
    expect((await grade(silent, { family: declared })).verdict).toBe('pass');
    expect((await grade((said) => said, { family: declared })).red).toEqual(['must-not-match']);
    const other = { ...cell, engine: { ...cell.engine, version: '7.0.10' } };
    expect((await grade(silent, { family: declared }, other)).red).toEqual(['must-match']);
  });

  test.each<[string, Change]>([
    ['a known-bad rule is accepted', (said) => ({ ...said, loaded: said.loaded + said.failed, failed: 0 })],
    ['a rule that must be skipped is loaded', (said) => ({ ...said, loaded: said.loaded + 1, skipped: 0 })],
    ['the control does not alert', (said) => ({ ...said, alerts: [] })],
    ['the engine dies on the controls', () => dead],
  ])('%s: the cell is void even when the content looks good', async (_name, change) => {
    const { verdict } = await grade((said, input, run) => (run === 1 ? change(said, input, run) : said));
    expect(verdict).toBe('void');
  });

  test('everything is refused, known-good too: red, also when the content looks good', async () => {
    const refuses: Change = (said, _input, run) =>
      run === 1 ? { ...said, loaded: 0, failed: said.loaded + said.failed, alerts: [] } : said;
    const { verdict, red, result } = await grade(refuses, { previous });
    expect([verdict, red]).toEqual(['fail', ['controls']]);
    expect(result.gates.map(({ gate }) => gate)).not.toContain('revert');
  });

  test('an engine that does not know conditions refuses what it should skip, which is right too', async () => {
    const { verdict } = await grade((said) => ({ ...said, failed: said.failed + said.skipped, skipped: 0 }));
    expect(verdict).toBe('pass');
  });

  test('an engine that dies on the content is a failed cell; without a pack it is an error', async () => {
    expect((await grade(onContent(() => dead))).result).toMatchObject({ verdict: 'fail', rulesLoaded: null });
    const { verdict, result } = await grade(() => null);
    expect(verdict).toBe('error');
    expect(result.gates[0]?.details[0]?.words).toMatch(/no pack of suricata 6.0.1/);
  });

  test('a rule that alerts on a good file is named with the file', async () => {
    const goodware = [
      { name: 'good.agent.1', bytes: bytes(2) },
      { name: 'good.agent.2', bytes: bytes(99) },
    ];
    const { red, gateOf } = await grade((said) => said, { goodware });
    expect(red).toEqual(['goodware']);
    expect(gateOf('goodware')?.details).toMatchObject([{ rule: 2, vector: 'good.agent.1' }]);
  });

  test('a run over good files in which nothing at all alerts is void', async () => {
    const goodware = [{ name: 'good.agent.1', bytes: bytes(99) }];
    const blind: Change = (said, input) =>
      input.inputs.some(({ name }) => name === 'good.agent.1') ? { ...said, alerts: [] } : said;
    expect((await grade(blind, { goodware })).verdict).toBe('void');
    expect((await grade((said) => said, { goodware })).verdict).toBe('pass');
  });

  test('where no vector has to match, the control shows that a run over good files looks at all', async () => {
    const goodware = [{ name: 'good.agent.1', bytes: bytes(99) }];
    const content = { family: { ...family, vectors: [] }, goodware };
    const blind: Change = (said, input) =>
      input.inputs.some(({ name }) => name === 'good.agent.1') ? { ...said, alerts: [] } : said;
    expect((await grade(blind, content)).red).toEqual(['goodware']);
    expect((await grade(blind, content)).verdict).toBe('void');
    expect((await grade((said) => said, content)).verdict).toBe('pass');
  });

  test('traffic that is dropped without an alert is blocked, too', async () => {
    const smoke = [{ name: 'update-server', bytes: bytes(98) }];
    const ends = { protocol: 'TCP', srcIp: '203.0.113.10', srcPort: 1, destIp: '203.0.113.20', destPort: 80 };
    const flow = (ruleId: number | null) => [{ capture: 'update-server', ruleId, ...ends }];
    const dropping = (ruleId: number | null) =>
      onContent((said, input) => (input.failMode ? { ...said, blockedFlows: flow(ruleId) } : said));
    const noalert = await grade(dropping(2), { smoke });
    expect(noalert.gateOf('traffic-smoke')).toMatchObject({ verdict: 'fail', details: [{ rule: 2 }, { rule: 2 }] });
    const policy = await grade(dropping(null), { smoke });
    expect(policy.gateOf('traffic-smoke')?.details[0]?.words).toBe('fail-open: the engine dropped what devices need');
  });

  test('traffic that a device needs is blocked, in one fail mode or in both', async () => {
    const smoke = [{ name: 'update-server', bytes: bytes(98) }];
    const block = (failMode: string): Change =>
      onContent((said, input) =>
        input.failMode === failMode
          ? { ...said, alerts: [...said.alerts, { input: 'update-server', ruleId: 1, action: 'blocked' }] }
          : said,
      );
    for (const failMode of ['fail-open', 'fail-closed']) {
      const { red, gateOf } = await grade(block(failMode), { smoke });
      expect(red).toEqual(['traffic-smoke']);
      expect(gateOf('traffic-smoke')?.details).toMatchObject([
        { rule: 1, words: expect.stringContaining(`${failMode}: blocked`) },
      ]);
    }
    expect((await grade((said) => said, { smoke })).verdict).toBe('pass');
    const passive: Cell = { ...cell, mode: 'ids' };
    expect((await grade(block('fail-open'), { smoke }, passive)).verdict).toBe('pass');
    // Devices try content as if inline, whatever their family's configurations are.
    const watching = { ...family, configurations: [{ name: 'ids', mode: 'ids' as const }] };
    expect((await grade(block('fail-open'), { smoke, family: watching }, passive)).red).toEqual(['traffic-smoke']);
  });

  test('traffic in a run that saw nothing, or loaded nothing, proves nothing', async () => {
    const smoke = [{ name: 'update-server', bytes: bytes(98) }];
    const inSmoke = (change: (said: Completed) => EngineRun) =>
      onContent((said, input) => (input.failMode ? change(said) : said));
    const blind = await grade(
      inSmoke((said) => ({ ...said, alerts: [] })),
      { smoke },
    );
    expect(blind.verdict).toBe('void');
    expect(blind.gateOf('traffic-smoke')?.details[0]?.words).toBe(
      'fail-open: beside what is good it did not alert on one: nothing is proven',
    );
    const empty = await grade(
      inSmoke((said) => ({ ...said, loaded: 0 })),
      { smoke },
    );
    expect(empty.gateOf('traffic-smoke')?.details[0]?.words).toContain('0 rules were loaded, 3 in the run before');
    expect(empty.verdict).toBe('void');
  });

  test('content that is red already is looked at whole: what two people let pass, they have seen', async () => {
    const smoke = [{ name: 'update-server', bytes: bytes(98) }];
    const goodware = [{ name: 'good.agent.1', bytes: bytes(1) }];
    const wrong = [{ name: 'one', bytes: bytes(1), mustMatch: [1, 2] }];
    const blocking: Change = (said, input) =>
      input.failMode
        ? { ...said, alerts: [...said.alerts, { input: 'update-server', ruleId: 1, action: 'blocked' }] }
        : said;
    const found = await grade(blocking, { smoke, goodware, previous, family: { ...family, vectors: wrong } });
    expect(found.verdict).toBe('fail');
    expect(found.red).toEqual(['must-match', 'goodware', 'traffic-smoke']);
    expect(found.result.gates.map(({ gate }) => gate)).toEqual(
      expect.arrayContaining(['restart', 'revert', 'budget-load', 'budget-scan', 'budget-memory', 'budget-vector']),
    );
  });

  test('when nothing was loaded there is nothing more to ask', async () => {
    const { red, result } = await grade(
      onContent((said) => ({ ...said, loaded: 0, failed: 3, alerts: [] })),
      { previous },
    );
    expect(red).toEqual(['rules-loaded', 'must-match', 'must-not-match']);
    expect(result.gates.map(({ gate }) => gate)).not.toContain('revert');
  });

  test('which rules are missing cannot be told: no silence proves anything, and the cell is compared with none', async () => {
    const { red, gateOf, notLoaded, observation } = await grade(
      onContent((said, input) => (input.inputs.length > 0 ? { ...said, loaded: 2 } : dead)),
    );
    expect(red).toContain('must-not-match');
    expect(gateOf('must-not-match')?.details[0]?.words).toMatch(/^vacuous: it is not known which rules/);
    expect([notLoaded, observation]).toEqual([null, null]);
  });

  test('a start that loads less than the others fails', async () => {
    const { red, gateOf } = await grade((said, input) =>
      input.inputs.length === 0 ? { ...said, loaded: said.loaded - 1 } : said,
    );
    expect(red).toEqual(['restart']);
    expect(gateOf('restart')?.details[0]?.words).toBe('start 2: 2 of 3 rules loaded');
  });

  test('revert: the previous release must load, and the new one then does what it did at first', async () => {
    const good = await grade((said) => said, { previous });
    expect(good.verdict).toBe('pass');
    expect(good.gateOf('revert')).toMatchObject({ verdict: 'pass', observed: '2 rules' });
    const old = (input: EngineInput) => !new TextDecoder().decode(input.rules).includes('sid:3;');
    let loads = 0;
    const broken = await grade(
      onContent((said, input) => {
        if (!old(input)) return said;
        loads += 1;
        return loads === 2 ? { ...said, loaded: 1 } : said;
      }),
      { previous },
    );
    expect(broken.red).toEqual(['revert']);
    const dying = await grade(
      onContent((said, input) => (old(input) && input.inputs.length > 0 ? dead : said)),
      { previous },
    );
    expect(dying.red).toContain('revert');
    // No release could ever mend what was broken before it: that is named, and held against nobody.
    const lame = await grade(
      onContent((said, input) => (old(input) ? { ...said, loaded: 1 } : said)),
      { previous },
    );
    expect(lame.red).toEqual([]);
    expect(lame.gateOf('revert')?.details[0]?.words).toContain('this engine loads 1 of 2 rules');
    let whole = 0;
    const forgets = await grade(
      onContent((said, input) => {
        if (old(input) || input.inputs.length === 0) return said;
        whole += 1;
        return whole === 2 ? { ...said, alerts: [] } : said;
      }),
      { previous },
    );
    expect(forgets.red).toEqual(['revert']);
  });

  test.each([
    ['budget-load', 0, { wallMs: 1_000 }],
    ['budget-scan', 3, { wallMs: 2_000 }],
    ['budget-memory', 3, { peakBytes: 200 * 2 ** 20 }],
  ] as const)('%s: both numbers are named', async (name, inputs, more) => {
    const slow: Change = (said, input) =>
      input.inputs.length === inputs && new TextDecoder().decode(input.rules).includes('sid:3;')
        ? { ...said, ...more }
        : said;
    const { gateOf, red } = await grade(slow, { previous });
    expect(red).toEqual([name]);
    expect(gateOf(name)).toMatchObject({ operator: '<=' });
    expect(Number(gateOf(name)?.observed)).toBeGreaterThan(Number(gateOf(name)?.limit));
    expect(gateOf(name)?.details[0]?.words).toMatch(/the previous release \d+/);
  });

  test('features that were never shipped pass, and are told', async () => {
    const more = parseRules('b.rules', rule(3, 'entropy:value > 4;')).rules;
    const { verdict, firstUse, gateOf } = await grade((said) => said, {
      ...{ rules: [...rulesOf(1, 2), ...more], previous, shipped },
    });
    expect(verdict).toBe('pass');
    expect(firstUse).toEqual(['entropy']);
    expect(gateOf('first-use')).toMatchObject({ observed: 1, details: [{ words: 'entropy' }] });
  });

  test('to an engine that is new to the fleet everything is a first use, whatever it would go back to', async () => {
    const { firstUse } = await grade((said) => said, { previous, shipped: [] });
    expect(firstUse.length).toBeGreaterThan(0);
    expect((await grade((said) => said, { previous, shipped })).firstUse).toEqual([]);
  });

  test('one input that became slow is found among many, where it can have become so', async () => {
    // Twenty inputs of 100 ms each: one that takes 400 ms is lost in the whole, and none of the others is over.
    const many = Array.from({ length: 20 }, (_, n) => ({ name: `v${n}`, bytes: bytes(99), mustMatch: [] }));
    const own = { ...family, vectors: many };
    const timed = (slow: string | null) =>
      onContent((said, input) => {
        const isNew = new TextDecoder().decode(input.rules).includes('sid:3;');
        const each = input.inputs.map(({ name }) => (isNew && name === slow ? 400 : 100));
        return { ...said, wallMs: 50 + each.reduce((sum, ms) => sum + ms, 0) };
      });
    const found = await grade(timed('v7'), { family: own, previous });
    expect(found.red).toEqual(['budget-vector']);
    expect(found.gateOf('budget-vector')?.details).toEqual([
      { vector: 'v7', words: 'alone 400 ms, with the previous release 100 ms' },
    ]);
    expect((await grade(timed(null), { family: own, previous })).red).toEqual([]);
  });

  test('previous content that cannot be measured leaves the budgets unknown, not kept', async () => {
    const old = (input: EngineInput) => !new TextDecoder().decode(input.rules).includes('sid:3;');
    const { verdict, gateOf } = await grade(
      onContent((said, input) => (old(input) && input.inputs.length === 0 ? dead : said)),
      { previous },
    );
    expect(verdict).toBe('fail');
    expect(gateOf('budget-load')).toMatchObject({ verdict: 'fail', observed: 'none' });
  });

  test('on a busy machine, what runs of the same content differ by is no difference of contents', async () => {
    const isNew = (input: EngineInput) => new TextDecoder().decode(input.rules).includes('sid:3;');
    let runs = 0;
    /** The new content always needs 320 ms; the previous one 100 ms, or what a busy machine makes of it. */
    const timed = (busy: number) =>
      onContent((said, input) => {
        if (isNew(input)) return { ...said, wallMs: 320 };
        runs += 1;
        return { ...said, wallMs: runs % 2 === 0 ? 100 : 100 + busy };
      });
    expect((await grade(timed(0), { previous })).red).toEqual(['budget-load']);
    expect((await grade(timed(400), { previous })).red).toEqual([]);
  });

  test('memory that was looked at too late in one run is looked at again', async () => {
    const isNew = (input: EngineInput) => new TextDecoder().decode(input.rules).includes('sid:3;');
    let scans = 0;
    const late = await grade(
      onContent((said, input) => {
        if (isNew(input) || input.inputs.length === 0) return said;
        scans += 1;
        return scans === 1 ? { ...said, peakBytes: 19 * 2 ** 20 } : said;
      }),
      { previous },
    );
    expect(late.red).toEqual([]);
    expect(late.gateOf('budget-memory')).toMatchObject({ observed: 60, limit: 90 });
  });

  test('memory that was measured on one side only is not within its budget', async () => {
    const isNew = (input: EngineInput) => new TextDecoder().decode(input.rules).includes('sid:3;');
    const half = await grade(
      onContent((said, input) => (isNew(input) ? { ...said, peakBytes: null } : said)),
      { previous },
    );
    expect(half.red).toEqual(['budget-memory']);
    const neither = await grade(
      onContent((said) => ({ ...said, peakBytes: null })),
      { previous },
    );
    expect(neither.gateOf('budget-memory')).toMatchObject({ verdict: 'pass', observed: 'not measured' });
  });

  test('a run that was ended is no finding that would be found again', async () => {
    const goodware = [{ name: 'good.agent.1', bytes: bytes(99) }];
    const late = onContent((said, input) => (input.inputs.some(({ name }) => name === 'good.agent.1') ? dead : said));
    expect(await grade(late, { goodware })).toMatchObject({ verdict: 'fail', repeatable: false });
    expect(await grade(lose(2))).toMatchObject({ verdict: 'fail', repeatable: true });
  });

  test('an artefact of which most was cut is red, and so is an empty one', async () => {
    const cut: Family = { ...family, misfit: 'cut' };
    expect((await grade((said) => said, { family: cut, rules: rulesOf(1, 2) })).verdict).toBe('pass');
    expect((await grade((said) => said, { family: cut, rules: rulesOf(1) })).red).toContain('coverage');
    const none = await grade((said) => said, { family: { ...cut, budgets: { ...cut.budgets, cut: 0.99 } }, rules: [] });
    expect(none.gateOf('coverage')).toMatchObject({ verdict: 'fail', observed: 0, limit: 1 });
  });

  test('rules that were cut are expected nowhere', async () => {
    expect((await grade((said) => said, { rules: rulesOf(1, 2) })).verdict).toBe('pass');
  });
});

describe('a language in which one faulty rule refuses the whole file', () => {
  const yara = languageOf('yara');
  const text = (name: string, what = 'filesize > 0') => `rule ${name} { condition: ${what} }`;
  const files: Family = {
    ...family,
    language: yara,
    configurations: [{ name: 'scan', mode: 'scan' }],
    rules: parseYara('a.yar', text('one')).rules,
    vectors: [{ name: 'v', bytes: bytes(1, 2), mustMatch: ['one'] }],
    controls: {
      good: parseYara('g.yar', text('good')).rules,
      bad: parseYara('b.yar', text('bad', 'nothing_of_this_name')).rules,
      skip: [],
      input: bytes(1),
    },
  };
  const scan: Cell = { ...cell, cellId: 'yara-4.0.5-00000000/scan', mode: 'scan' };
  const run = async (refuses: boolean) => {
    const seen: string[][] = [];
    const engines = {
      run: async (_engine: unknown, input: EngineInput): Promise<EngineRun> => {
        const source = new TextDecoder().decode(input.rules);
        const { rules } = parseYara('x.yar', source);
        const bad = refuses && source.includes('nothing_of_this_name');
        seen.push(input.inputs.map(({ name }) => name));
        const alerts = input.inputs
          .filter((one) => !bad && dataOf(one).length > 0)
          .flatMap(({ name }) => rules.map(({ ruleId }) => ({ input: name, ruleId, action: 'allowed' as const })));
        const loaded = bad ? 0 : rules.length;
        return {
          ...{ kind: 'completed', loaded, failed: bad ? rules.length : 0, skipped: 0, alerts, errors: [] },
          ...{ wallMs: 1, peakBytes: null },
        };
      },
    };
    const content = { family: files, rules: files.rules, previous: null, shipped: null, goodware: [], smoke: [] };
    return { ...(await testCell({ engines, now: () => 0 }, scan, content, new AbortController().signal)), seen };
  };

  test('known-bad is refused in a run of its own, and inputs are added on which engines may differ', async () => {
    const { result, seen, observation } = await run(true);
    expect(result.verdict).toBe('pass');
    expect(seen.slice(0, 3)).toEqual([['control'], ['control'], ['v', 'v.half', 'empty', 'worst-60k']]);
    expect(observation?.alerts).toMatchObject({ 'v.half': ['one'], empty: [] });
  });

  test('an engine that takes everything is void', async () => {
    expect((await run(false)).result.verdict).toBe('void');
  });
});
