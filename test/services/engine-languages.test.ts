/** YARA, YARA-X and ClamAV: what each version makes of each probe is exactly what was measured by hand. */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { languageOf } from '../../domain/content/language.ts';
import type { EngineFile, EngineRun } from '../../domain/ports.ts';
import { defaultLimits, type Limits } from '../../infra/engines/isolated.ts';
import { acquirePacks, type Pack, packsOf } from '../../infra/engines/packs.ts';
import { createEngineRunner } from '../../infra/engines/runner.ts';
import { inParallel } from '../../infra/in-parallel.ts';
import { stderrProgress } from '../../infra/servers/progress.ts';

const shared = process.env.SIGREL_SHARED ?? join(import.meta.dirname, '..', '..', '..', 'shared');
const facts = join(shared, 'engines');
const here = existsSync(facts);
const { signal } = new AbortController();

let packs: readonly Pack[];
beforeAll(async () => {
  packs = await acquirePacks(stderrProgress(), packsOf(['yara', 'yara-x', 'clamav']));
}, 900_000);

const names = (...engines: string[]) => packsOf(engines);
const packOf = (name: string): Pack => {
  const found = packs.find(({ build, wanted }) => `${build.name}@${wanted}` === name);
  if (!found) throw new Error(`no pack ${name}`);
  return found;
};
const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
const run = async (
  pack: Pack,
  rules: Uint8Array,
  inputs: readonly EngineFile[],
  limits: Partial<Limits> = {},
): Promise<EngineRun> => {
  const runner = createEngineRunner([pack], { ...defaultLimits, ...limits });
  const found = await runner.run(pack.build, { rules, inputs, mode: 'scan' }, signal);
  if (found === null) throw new Error('the engine was not found');
  return found;
};

test('the measured facts are there', ({ skip }) => {
  if (!here) skip(`no ${facts}: set SIGREL_SHARED to the folder with engines/`);
  expect(here).toBe(true);
});

type Probe = {
  readonly id: string;
  readonly rule: string;
  readonly sampleBase64?: string;
  readonly sampleRecipe?: readonly (readonly [string, number])[];
  readonly outcomes: Readonly<Record<string, string>>;
};

const sampleOf = ({ sampleBase64, sampleRecipe }: Probe): Uint8Array =>
  sampleRecipe
    ? utf8(sampleRecipe.map(([text, times]) => text.repeat(times)).join(''))
    : new Uint8Array(Buffer.from(sampleBase64 ?? '', 'base64'));

const outcomeOf = (said: EngineRun): string => {
  if (said.kind === 'no-result') return said.reason;
  if (said.loaded === 0) return 'refused';
  return said.alerts.length > 0 ? 'match' : 'no-match';
};

describe.skipIf(!here)('YARA and YARA-X', async () => {
  const { probes }: { probes: Probe[] } = here
    ? JSON.parse(await readFile(join(facts, 'yara-matrix.json'), 'utf8'))
    : { probes: [] };
  const outcomes = (probe: Probe) =>
    new Set(Object.values(probe.outcomes).map((one) => one.replace(/^compile.*/, 'refused')));
  // A library takes a second to start: of those, the probes on which versions differ.
  const split = probes.filter((probe) => probe.id === 'control' || outcomes(probe).size > 1);

  test.each(names('yara', 'yara-x'))(
    '%s',
    async (name) => {
      const pack = packOf(name);
      if (pack.build.version !== pack.wanted) return; // the archive has moved on: nothing was measured of this one
      const wrong: string[] = [];
      await inParallel(pack.build.name === 'yara' ? probes : split, 2, async (probe) => {
        const measured = probe.outcomes[`${pack.build.name}-${pack.build.version}`];
        if (measured === undefined) return;
        const said = await run(pack, utf8(probe.rule), [{ name: 'sample', bytes: sampleOf(probe) }]);
        const found = outcomeOf(said);
        const expected = ['match', 'no-match'].includes(measured) ? measured : 'refused';
        if (found !== expected) wrong.push(`${probe.id}: ${found}, measured ${measured}`);
      });
      expect(wrong).toEqual([]);
    },
    600_000,
  );
});

type AvProbe = {
  readonly name: string;
  readonly file: string;
  readonly content: string;
  readonly outcomes: Readonly<Record<string, { readonly loaded: number | null; readonly detected: boolean }>>;
};

describe.skipIf(!here)('ClamAV', async () => {
  const { probes, sampleText }: { probes: AvProbe[]; sampleText: string } = here
    ? JSON.parse(await readFile(join(facts, 'clamav-matrix.json'), 'utf8'))
    : { probes: [], sampleText: '' };
  const language = languageOf('clamav');
  // Content of this product has no database kinds that take signatures away, and no rules of another language.
  const one = (file: string) => language.endings.some((ending) => file === `a.${ending}`);
  const own = probes.filter(({ file }) => one(file));

  test.each(names('clamav'))(
    '%s',
    async (name) => {
      const pack = packOf(name);
      if (pack.build.version !== pack.wanted) return;
      expect(own.length).toBeGreaterThan(10);
      const wrong: string[] = [];
      for (const probe of own) {
        const measured = probe.outcomes[`clamav-${pack.build.version}`];
        if (!measured) continue;
        const rules = language.wrap(probe.file, utf8(probe.content));
        const said = await run(pack, rules, [{ name: 'sample', bytes: utf8(sampleText) }]);
        const found = said.kind === 'completed' ? [said.loaded, said.alerts.length > 0] : [said.reason];
        if (JSON.stringify(found) !== JSON.stringify([measured.loaded ?? 0, measured.detected]))
          wrong.push(`${probe.name}: ${JSON.stringify(found)}, measured ${JSON.stringify(measured)}`);
      }
      expect(wrong).toEqual([]);
    },
    300_000,
  );
});

describe('every scanning engine', () => {
  const yara = utf8('rule good { strings: $a = "abc" condition: $a }\nprivate rule hidden { condition: true }');
  const inputs: EngineFile[] = [
    { name: 'one', bytes: utf8('xxabcxx') },
    { name: 'two', bytes: utf8('nothing') },
    { name: 'empty', bytes: new Uint8Array() },
    { name: 'in.place', path: import.meta.filename },
  ];

  test.each(names('yara', 'yara-x'))('%s: counts, alerts by input, private rules, refusal', async (name) => {
    const pack = packOf(name);
    const said = await run(pack, yara, inputs);
    expect(said).toMatchObject({ kind: 'completed', loaded: 2, failed: 0, skipped: 0 });
    const alerts = said.kind === 'completed' ? said.alerts : [];
    expect(alerts).toEqual([
      { input: 'one', ruleId: 'good', action: 'allowed' },
      { input: 'in.place', ruleId: 'good', action: 'allowed' },
    ]);
    const refused = await run(pack, utf8('rule good { condition: true }\nrule bad { condition: nope }'), []);
    expect(refused).toMatchObject({ kind: 'completed', loaded: 0, failed: 2 });
    expect(refused.kind === 'completed' && refused.errors[0]?.words).toMatch(/nope/);
  });

  test.each(names('clamav'))('%s: counts, alerts by input, refusal, what it passes over', async (name) => {
    const pack = packOf(name);
    const language = languageOf('clamav');
    const good = 'Sigrel.Good-1:0:*:6162636465666768\n';
    const found = await run(pack, language.wrap('a.ndb', utf8(good)), [
      { name: 'one', bytes: utf8('xx abcdefgh xx') },
      { name: 'two', bytes: utf8('nothing') },
      { name: 'empty', bytes: new Uint8Array() },
    ]);
    expect(found).toMatchObject({
      ...{ kind: 'completed', loaded: 1, failed: 0, skipped: 0 },
      alerts: [{ input: 'one', ruleId: 'Sigrel.Good-1', action: 'allowed' }],
    });
    const refused = await run(pack, language.wrap('a.ndb', utf8(`${good}Sigrel.Bad-1:0:*:zz\n`)), []);
    expect(refused).toMatchObject({ kind: 'completed', loaded: 0 });
    const skipped = utf8('Sigrel.Later-1;Engine:300-400,Target:0;0;6162636465666768\n');
    const over = await run(pack, language.wrap('a.ldb', skipped), [{ name: 'one', bytes: utf8('abcdefgh') }]);
    expect(over).toMatchObject({ kind: 'completed', loaded: 0, failed: 0, skipped: 1, alerts: [] });
  });

  test.each(names('yara', 'yara-x', 'clamav'))('%s: a file that it did not look at is no clean one', async (name) => {
    const pack = packOf(name);
    const file = { yara: 'a.yar', 'yara-x': 'a.yar', clamav: 'a.ndb' }[pack.build.name] ?? '';
    const clamav = file === 'a.ndb';
    const text = clamav ? 'Sigrel.Good-1:0:*:6162636465666768\n' : 'rule good { strings: $a = "abc" condition: $a }\n';
    const rules = clamav ? languageOf('clamav').wrap(file, utf8(text)) : utf8(text);
    const missing = { name: 'missing', path: join(import.meta.dirname, 'no', 'such', 'file') };
    for (const inputs of [[missing], [{ name: 'one', bytes: utf8('xx abcdefgh xx') }, missing]]) {
      expect(await run(pack, rules, inputs)).toMatchObject({ kind: 'no-result' });
    }
  });

  test.each(names('yara', 'clamav'))('%s: too little memory is no refusal', async (name) => {
    const pack = packOf(name);
    const clamav = pack.build.name === 'clamav';
    const yara = utf8('rule a { strings: $a = "abc" $b = /x.*[a-z]{2,40}y/ condition: any of them }\n');
    const rules = clamav ? languageOf('clamav').wrap('a.ndb', utf8('T.A-1:0:*:6162636465666768\n')) : yara;
    const inputs = [{ name: 'one', bytes: utf8('nothing') }];
    for (const mb of clamav ? [8, 24, 48, 56, 64] : [2, 8, 12, 16, 20]) {
      const said = await run(pack, rules, inputs, { addressSpaceBytes: mb * 2 ** 20, wallMs: 5_000 });
      // Enough for one version is too little for another: then it loads, and nothing is refused.
      if (said.kind === 'completed') expect([mb, said.loaded, said.failed]).toEqual([mb, 1, 0]);
    }
  });

  const slow = utf8('rule slow { strings: $a = /a+b/ condition: !a[1] == 5001 }');
  test.each(names('yara'))(
    '%s: a rule that does not honour the engine’s own time limit is ended from outside',
    async (name) => {
      const bytes = utf8(`${'a'.repeat(20_000)}b`);
      const said = await run(packOf(name), slow, [{ name: 'slow', bytes }], { wallMs: 2_000 });
      expect(said).toMatchObject({ kind: 'no-result', reason: 'timeout' });
    },
  );

  const late = utf8(
    'rule late { strings: $a = /a+b/ $m = "MARKER-AT-END" condition: #m == 1 and #a > 0 and !m[1] == 13 }',
  );
  test.each(names('yara-x').filter((name) => /@1\.[05]\.0$/.test(name)))(
    '%s: an empty result after its time is over is no clean file',
    async (name) => {
      const bytes = utf8(`${'a'.repeat(12_000)}bMARKER-AT-END`);
      const said = await run(packOf(name), late, [{ name: 'late', bytes }], { wallMs: 3_000 });
      expect(said).toMatchObject({ kind: 'no-result', reason: 'timeout' });
    },
  );

  test.each(names('clamav'))('%s: a scan that reaches its limit is no clean file', async (name) => {
    const lines = Array.from(
      { length: 200 },
      (_, i) => `T.X${i}:0:*:6161*6161*6161*${i.toString(16).padStart(8, '0')}\n`,
    );
    const rules = languageOf('clamav').wrap('slow.ndb', utf8(lines.join('')));
    const bytes = new Uint8Array(2 * 2 ** 20).fill(0x61);
    const said = await run(packOf(name), rules, [{ name: 'slow', bytes }], { wallMs: 4_000 });
    expect(said).toMatchObject({ kind: 'no-result', reason: 'timeout' });
  });
});
