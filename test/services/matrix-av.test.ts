/** The matrix on ClamAV: what exit codes hide (a refused file, skipped signatures, a scan cut short) is red, and named. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import type { Family } from '../../domain/content/family.ts';
import { languageOf } from '../../domain/content/language.ts';
import type { Rule } from '../../domain/content/rules.ts';
import { findDivergences } from '../../domain/matrix/divergence.ts';
import { fitRules } from '../../domain/matrix/fit.ts';
import { cellsFor } from '../../domain/matrix/plan.ts';
import { type CellContent, type TestedCell, testCell } from '../../domain/matrix/test-cell.ts';
import type { EngineFile, EngineRunner } from '../../domain/ports.ts';
import type { CellResult, EngineBuild } from '../../domain/release.ts';
import { loadFamily } from '../../infra/content/load-family.ts';
import { goodwareFor } from '../../infra/engines/goodware.ts';
import { defaultLimits } from '../../infra/engines/isolated.ts';
import { acquirePacks, type Pack, packsOf } from '../../infra/engines/packs.ts';
import { createEngineRunner } from '../../infra/engines/runner.ts';
import { inParallel } from '../../infra/in-parallel.ts';
import { stderrProgress } from '../../infra/servers/progress.ts';

const product = join(import.meta.dirname, '..', '..');
const { signal } = new AbortController();

let packs: readonly Pack[];
let engines: EngineRunner;
let example: Family;
beforeAll(async () => {
  const all = await acquirePacks(stderrProgress(), packsOf(['clamav']));
  packs = all.filter(({ build, wanted }) => build.version === wanted); // of another version nothing was measured
  engines = createEngineRunner(packs);
  const loaded = await loadFamily(join(product, 'examples', 'families', 'av'));
  if (!loaded.ok) throw new Error(JSON.stringify(loaded.findings));
  example = loaded.family;
}, 900_000);

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
const hexOf = (text: string): string => Buffer.from(text, 'latin1').toString('hex');
const language = languageOf('clamav');

/** Whatever of them is no signature by our own reading fails the test. */
const rulesOf = (file: string, ...lines: string[]): readonly Rule[] => {
  const { rules, findings } = language.parse(file, lines.join('\n'));
  expect(findings).toEqual([]);
  return rules;
};

/** A line that our own reading refuses, as if it had let it through. */
const unread = (name: string, text: string): Rule => ({
  ...{ ruleId: name, revision: 1, message: '', features: ['ndb'], file: 'trap.ndb', line: 1, text },
  needs: [],
});

const familyOf = (rules: readonly Rule[], more: Partial<Family> = {}): Family => ({
  ...example,
  ...{ rules, vectors: [], differences: [], goodware: [], vectorsRequired: false },
  ...more,
});

/** Cells by version, two at a time. `content`: what differs by engine. */
const testAll = async (
  family: Family,
  content: (pack: Pack) => Partial<CellContent> | Promise<Partial<CellContent>> = () => ({}),
  runner: EngineRunner = engines,
): Promise<ReadonlyMap<string, TestedCell>> => {
  const tested = await inParallel(packs, 2, async (pack): Promise<[string, TestedCell]> => {
    const [cell] = cellsFor([pack.build], family.configurations, {});
    if (!cell) throw new Error('no cell');
    const more = await content(pack);
    const whole = { family, rules: family.rules, previous: null, shipped: null, goodware: [], smoke: [], ...more };
    return [pack.build.version, await testCell({ engines: runner, now: Date.now }, cell, whole, signal)];
  });
  return new Map(tested.toSorted(([a], [b]) => (a < b ? -1 : 1)));
};

const gateOf = ({ result }: TestedCell, name: string): CellResult['gates'][number] | undefined =>
  result.gates.find((gate) => gate.gate === name);

const redOf = (tested: ReadonlyMap<string, TestedCell>): string[] =>
  [...tested].flatMap(([version, { result }]) => (result.verdict === 'pass' ? [] : [version]));

const versions = (): string[] => packs.map(({ build }) => build.version).sort();

const good = [`Trap.Good-1:0:*:${hexOf('good-marker-one')}`, `Trap.Good-2:0:0:${hexOf('SGR2')}??${hexOf('tail')}`];
const logical = (name: string, engine: string, ...subsignatures: string[]) =>
  `${name};Engine:${engine},Target:0;${subsignatures.map((_, at) => at).join('&')};${subsignatures.join(';')}`;

describe('one line refuses its whole file', () => {
  const marker = hexOf('bad-marker');
  const bad: readonly (readonly [string, () => Rule, RegExp])[] = [
    ['a negation of several lengths', () => only('ndb', `Trap.Bad-1:0:*:${marker}!(aa|bbcc)${marker}`), /negation/],
    [
      'a regular expression that does not compile',
      () => only('ldb', logical('Trap.Bad-1', '81-255', marker, '0/bad-[a-z+/')),
      /missing terminating/,
    ],
    ['no hex digits', () => unread('Trap.Bad-1', 'Trap.Bad-1:0:*:zz'), /line 1\b/],
    ['half a byte', () => unread('Trap.Bad-1', `Trap.Bad-1:0:*:${marker}6`), /Malformed hexstring/],
    ['too short', () => unread('Trap.Bad-1', 'Trap.Bad-1:0:*:61*62'), /too short/],
    ['an empty line', () => unread('Trap.Bad-1', ''), /line 1\b/],
  ];
  const only = (kind: string, line: string): Rule => rulesOf(`trap.${kind}`, line)[0] as Rule;

  test.each(bad)('%s: red, nothing loaded, the culprit in the engine’s own words', async (_, make, words) => {
    const culprit = make();
    const tested = await testAll(familyOf([...rulesOf('good.ndb', ...good), culprit]));
    expect(redOf(tested)).toEqual(versions());
    for (const [version, cell] of tested) {
      expect([version, gateOf(cell, 'controls')?.verdict]).toEqual([version, 'pass']);
      expect(cell.result).toMatchObject({ verdict: 'fail', rulesLoaded: 0, rulesExpected: 3 });
      const { details = [] } = gateOf(cell, 'rules-loaded') ?? {};
      expect(details).toEqual([{ rule: 'Trap.Bad-1', words: expect.stringMatching(words) }]);
      const along = cell.notLoaded?.filter(({ withFile }) => withFile);
      const because = 'refused with the whole file, because of Trap.Bad-1';
      expect(along?.map(({ id, words: said }) => [id, said])).toEqual([
        ['Trap.Good-1', because],
        ['Trap.Good-2', because],
      ]);
    }
  });

  const image = (engine: string) => logical('Trap.Image-1', engine, 'fuzzy_img#af2ad01ed42993c7');
  const files = () => [...rulesOf('good.ndb', ...good), ...rulesOf('new.ldb', image('51-255'))];

  test('the oldest engine alone refuses everything; cut to fit, it alone goes without the new signature', async () => {
    const family = familyOf(files(), { misfit: 'cut' });
    const tested = await testAll(family);
    expect(redOf(tested)).toEqual(versions().filter((version) => version === '0.103.10'));
    for (const cell of tested.values()) {
      if (cell.result.verdict === 'pass') expect(cell.result.rulesLoaded).toBe(3);
      else {
        expect(cell.result.rulesLoaded).toBe(0);
        const words = expect.stringMatching(/Problem adding signature/);
        expect(gateOf(cell, 'rules-loaded')?.details).toEqual([{ rule: 'Trap.Image-1', words }]);
      }
    }
    const cut = await testAll(family, async ({ build }) => {
      const fit = await fitRules(engines, build, family, signal);
      const gaps = build.version === '0.103.10' ? ['Trap.Image-1'] : [];
      expect([build.version, fit?.gaps.map(({ id }) => id)]).toEqual([build.version, gaps]);
      return { rules: fit?.rules ?? [] };
    });
    expect(redOf(cut)).toEqual([]);
    expect([...cut].map(([version, { result }]) => [version, result.rulesLoaded])).toEqual(
      versions().map((version) => [version, version === '0.103.10' ? 2 : 3]),
    );
  });

  test('with functional levels in the signature the oldest engine skips it alone', async () => {
    const rules = [...rulesOf('good.ndb', ...good), ...rulesOf('new.ldb', image('150-255'))];
    const tested = await testAll(familyOf(rules));
    expect([...tested].map(([version, { result }]) => [version, result.verdict, result.rulesLoaded])).toEqual(
      versions().map((version) => (version === '0.103.10' ? [version, 'fail', 2] : [version, 'pass', 3])),
    );
  });
});

describe('signatures that an engine skips with exit code 0', () => {
  /** Functional levels: 0.103.10 has 129, 1.4.3 has 213, 1.4.6 has 216. */
  const levels: Readonly<Record<string, number>> = { '0.103.10': 129, '1.4.3': 213, '1.4.6': 216 };
  const wanted = [129, 130, 213, 214, 216, 217];
  const line = (level: number) => `Trap.Level-${level}:0:*:${hexOf(`level-marker-${level}`)}:${level}`;
  const vectorOf = (level: number) => ({
    ...{ name: `level-${level}`, bytes: utf8(`a level-marker-${level} inside`) },
    mustMatch: [`Trap.Level-${level}`],
  });
  const tooNew = (version: string) => wanted.filter((level) => level > (levels[version] ?? 0));

  test('by the count they are red, and each is named; their silence passes nothing', async () => {
    const rules = [...rulesOf('good.ndb', ...good), ...rulesOf('levels.ndb', ...wanted.map(line))];
    const clean = { name: 'clean', bytes: utf8('nothing of all this'), mustMatch: [] };
    const tested = await testAll(familyOf(rules, { vectors: [...wanted.map(vectorOf), clean] }));
    for (const [version, cell] of tested) {
      const lost = tooNew(version).map((level) => `Trap.Level-${level}`);
      expect([version, cell.result.rulesLoaded, cell.result.verdict]).toEqual([version, 8 - lost.length, 'fail']);
      expect(cell.notLoaded?.map(({ id }) => id)).toEqual(lost);
      const words = expect.stringMatching(/^skipped: what the rule requires is not met/);
      expect(gateOf(cell, 'rules-loaded')?.details).toEqual(lost.map((rule) => ({ rule, words })));
      expect(gateOf(cell, 'must-match')?.observed).toBe(wanted.length - lost.length);
      expect(gateOf(cell, 'must-match')?.details.map(({ rule }) => rule)).toEqual(lost);
      const silence = gateOf(cell, 'must-not-match');
      expect(silence).toMatchObject({ verdict: 'fail', observed: `0, ${lost.length} vacuous` });
      expect(silence?.details.map(({ rule }) => rule)).toEqual(lost);
    }
    // What is not there cannot differ: a skipped signature is a gap in coverage, and no divergence.
    expect(
      findDivergences(
        [...tested.values()].flatMap(({ observation }) => observation ?? []),
        [],
      ),
    ).toEqual([]);
  });

  test('a file of nothing else: none loaded, red, and not called clean', async () => {
    const vectors = [{ name: 'sample', bytes: utf8('a level-marker-217 inside'), mustMatch: [] }];
    const tested = await testAll(familyOf(rulesOf('levels.ndb', line(217)), { vectors }));
    for (const [version, cell] of tested) {
      expect([version, cell.result.verdict, cell.result.rulesLoaded]).toEqual([version, 'fail', 0]);
      expect(gateOf(cell, 'rules-loaded')?.details).toMatchObject([{ rule: 'Trap.Level-217' }]);
      expect(gateOf(cell, 'must-not-match')).toMatchObject({ verdict: 'fail', observed: '0, 1 vacuous' });
    }
  });

  test('also in logical signatures, by level, by an unknown attribute, and behind a refused line', async () => {
    const marker = hexOf('logical-marker');
    const rules = [
      ...rulesOf('good.ndb', ...good),
      ...rulesOf(
        'trap.ldb',
        logical('Trap.Later-1', '214-255', marker),
        `Trap.Unknown-1;Engine:51-255,Target:0,Nosuch:1;0;${marker}`,
        logical('Trap.Image-1', '51-255', 'fuzzy_img#af2ad01ed42993c7'),
      ),
    ];
    const lost: Readonly<Record<string, readonly string[]>> = {
      '0.103.10': ['Trap.Image-1', 'Trap.Later-1', 'Trap.Unknown-1'],
      '1.4.3': ['Trap.Later-1', 'Trap.Unknown-1'],
      '1.4.6': ['Trap.Unknown-1'],
    };
    const family = familyOf(rules, { misfit: 'cut', budgets: { ...example.budgets, cut: 0.9 } });
    for (const [version, cell] of await testAll(family)) {
      const own = cell.notLoaded?.filter(({ withFile }) => !withFile).map(({ id }) => id);
      expect([version, cell.result.verdict, own]).toEqual([version, 'fail', lost[version]]);
    }
    const cut = await testAll(family, async ({ build }) => {
      const fit = await fitRules(engines, build, family, signal);
      const gaps = fit?.gaps.map(({ id }) => String(id)).sort();
      expect([build.version, gaps]).toEqual([build.version, lost[build.version]]);
      return { rules: fit?.rules ?? [] };
    });
    expect(redOf(cut)).toEqual([]);
  });
});

test('signatures too slow for a file: a timeout on every engine, and never a clean file', async () => {
  const lines = Array.from(
    { length: 200 },
    (_, at) => `Trap.Slow-${at}:0:*:6161*6161*6161*${at.toString(16).padStart(8, '0')}`,
  );
  const vectors = [{ name: 'slow', bytes: new Uint8Array(2 * 2 ** 20).fill(0x61), mustMatch: [] }];
  const runner = createEngineRunner(packs, { ...defaultLimits, wallMs: 4_000 });
  const tested = await testAll(familyOf(rulesOf('slow.ndb', ...lines), { vectors }), undefined, runner);
  expect(redOf(tested)).toEqual(versions());
  for (const [version, cell] of tested) {
    expect([version, gateOf(cell, 'controls')?.verdict, cell.result.verdict]).toEqual([version, 'pass', 'fail']);
    expect(gateOf(cell, 'result')).toMatchObject({ verdict: 'fail', observed: 'timeout' });
    expect(gateOf(cell, 'result')?.details[0]?.words).toMatch(/killed after|Heuristics\.Limits\.Exceeded/);
    expect(cell).toMatchObject({ observation: null, notLoaded: null, result: { rulesLoaded: null } });
  }
  expect(redOf(await testAll(familyOf(rulesOf('good.ndb', ...good)), undefined, runner))).toEqual([]);
});

describe('good files', () => {
  const sample = { name: 'sample', bytes: utf8('nothing but good-marker-one'), mustMatch: ['Trap.Good-1'] };
  const corpus = async ({ dir }: Pack) => ({ goodware: (await goodwareFor(dir)).files });

  test('a signature that condemns sigrel’s own agent: red on every engine, with signature and file', async () => {
    // A line of the device's agent, whatever it says today, that stands nowhere else.
    const lines = (await readFile(join(product, 'apps', 'device', 'trial.ts'), 'latin1')).split('\n');
    const longest = lines.toSorted((one, other) => other.length - one.length)[0] ?? '';
    const rules = rulesOf('trap.ndb', ...good, `Trap.Agent-1:0:*:${hexOf(longest)}`);
    const own = { name: 'agent', bytes: utf8(`x${longest}`), mustMatch: ['Trap.Agent-1'] };
    const tested = await testAll(familyOf(rules, { vectors: [sample, own] }), corpus);
    expect(redOf(tested)).toEqual(versions());
    for (const [version, cell] of tested) {
      const failed = cell.result.gates.filter(({ verdict }) => verdict !== 'pass').map(({ gate }) => gate);
      expect([version, failed]).toEqual([version, ['goodware']]);
      const vector = expect.stringMatching(/^good\.agent\.\d+\.trial\.ts$/);
      const details = [{ rule: 'Trap.Agent-1', vector, words: 'alerted on a good file' }];
      expect(gateOf(cell, 'goodware')).toMatchObject({ observed: 1, details });
    }
  });

  test('a corpus run in which nothing at all is detected is void', async () => {
    const family = familyOf(rulesOf('good.ndb', ...good), { vectors: [sample] });
    const isGood = ({ name }: EngineFile) => name.startsWith('good.');
    /** Loads and scans as it should, until it comes to the corpus. */
    const blind: EngineRunner = {
      run: async (engine, input, given) => {
        const said = await engines.run(engine, input, given);
        return said?.kind === 'completed' && input.inputs.some(isGood) ? { ...said, alerts: [] } : said;
      },
    };
    expect(redOf(await testAll(family, corpus))).toEqual([]);
    for (const [version, cell] of await testAll(family, corpus, blind)) {
      expect([version, cell.result.verdict]).toEqual([version, 'void']);
      const words = expect.stringMatching(/^beside what is good it did not alert on sample: nothing is proven$/);
      expect(gateOf(cell, 'goodware')).toMatchObject({ verdict: 'void', details: [{ vector: 'sample', words }] });
    }
  });
});

test('two builds that print the same version are two engines', async () => {
  const [pack] = packs;
  if (!pack) throw new Error('no pack');
  const other: EngineBuild = {
    ...pack.build,
    digest: pack.build.digest.replace(/^./, (one) => (one === 'f' ? '0' : 'f')),
  };
  const family = familyOf(rulesOf('good.ndb', ...good));
  const cells = cellsFor([pack.build, other], family.configurations, {});
  expect(new Set(cells.map(({ cellId }) => cellId)).size).toBe(2);
  const content = { family, rules: family.rules, previous: null, shipped: null, goodware: [], smoke: [] };
  for (const cell of cells) {
    const { result } = await testCell({ engines, now: Date.now }, cell, content, signal);
    const isOther = cell.engine.digest === other.digest;
    expect(result).toMatchObject(
      isOther ? { verdict: 'error', rulesLoaded: null } : { verdict: 'pass', rulesLoaded: 2 },
    );
  }
});
