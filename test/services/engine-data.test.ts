/** Real rule sets and real traffic on every engine: exactly what was measured with the engines by hand. */
import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { languageOf } from '../../domain/content/language.ts';
import { parseRules } from '../../domain/content/suricata.ts';
import { findNotLoaded } from '../../domain/matrix/not-loaded.ts';
import { acquirePacks, type Pack, packsOf } from '../../infra/engines/packs.ts';
import { createEngineRunner } from '../../infra/engines/runner.ts';

const shared = process.env.SIGREL_SHARED ?? join(import.meta.dirname, '..', '..', '..', 'shared');
const data = join(shared, 'data');
const skipLine = `no ${data}: set SIGREL_SHARED to the folder with data/`;
const { signal } = new AbortController();
let packs: readonly Pack[];
beforeAll(async () => {
  packs = await acquirePacks(() => {}, packsOf(['suricata']));
}, 600_000);

const load = async (pack: Pack, rules: Uint8Array, inputs: readonly { name: string; bytes: Uint8Array }[] = []) => {
  const run = await createEngineRunner([pack]).run(pack.build, { rules, inputs, mode: 'ids' }, signal);
  if (run === null) throw new Error('the engine was not found');
  return run;
};

/** Rules not loaded of a version's own set on an engine (data/suricata-engine-rules/README.md). */
const lost: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  '6.0.1': { '6.0.1': 14, '7.0.10': 18, '8.0.7': 18, '8.0.8': 18 },
  '7.0.10': { '6.0.1': 89, '7.0.10': 15, '8.0.7': 15, '8.0.8': 15 },
  '8.0.7': { '6.0.1': 174, '7.0.10': 103, '8.0.7': 23, '8.0.8': 23 },
};

describe.skipIf(!existsSync(data))('each version’s own rules on each engine', () => {
  test.each(Object.keys(lost))('the rules of %s: every rule that is not loaded, by id', async (version) => {
    const folder = join(data, 'suricata-engine-rules', version);
    const files = (await readdir(folder)).filter((name) => name.endsWith('.rules')).sort();
    const bytes = Buffer.concat(await Promise.all(files.map((name) => readFile(join(folder, name)))));
    const { rules } = parseRules('all.rules', bytes.toString());
    for (const pack of packs) {
      const expected = lost[version]?.[pack.build.version];
      if (expected === undefined) continue; // the archive has moved on: another engine, of which nothing was measured
      const run = await load(pack, bytes);
      if (run.kind !== 'completed') throw new Error(run.words);
      const loading = {
        ...{ engines: createEngineRunner([pack]), engine: pack.build, language: languageOf('suricata'), signal },
        configuration: { mode: 'ids' },
      } as const;
      const notLoaded = (await findNotLoaded(loading, rules, run)) ?? [];
      expect([pack.build.version, notLoaded.length, rules.length - run.loaded]).toEqual([
        pack.build.version,
        expected,
        expected,
      ]);
      expect(new Set(notLoaded.map(({ id }) => id)).size).toBe(expected);
      for (const { words } of notLoaded) expect(words).not.toBe('');
    }
  });
});

type Measured = {
  readonly outcome: string;
  readonly rulesLoaded: number | null;
  readonly rulesFailed: number | null;
  readonly rulesSkipped: number | null;
  readonly alerts: Readonly<Record<string, number>>;
};

describe.skipIf(!existsSync(data))('vectors of the engine’s own project', async () => {
  const folder = join(data, 'ips-vectors');
  const names: string[] = existsSync(folder)
    ? JSON.parse(await readFile(join(folder, 'index.json'), 'utf8')).vectors
    : [];
  test('there are 45', () => expect(names).toHaveLength(45));
  test.each(names)('%s', async (name) => {
    const dir = join(folder, name);
    const rules = await readFile(join(dir, 'test.rules'));
    const input = (await readdir(dir)).find((file) => file.startsWith('input.pcap')) ?? '';
    const bytes = await readFile(join(dir, input));
    const { measured } = JSON.parse(await readFile(join(dir, 'expected.json'), 'utf8'));
    for (const pack of packs) {
      const expected: Measured | undefined = measured[`suricata-${pack.build.version}`];
      if (expected === undefined) continue;
      const run = await load(pack, rules, [{ name: 'input', bytes }]);
      if (expected.outcome === 'crash') {
        expect(run).toMatchObject({ kind: 'no-result', reason: 'signal' });
        continue;
      }
      if (run.kind !== 'completed') throw new Error(`${pack.build.version}: ${run.words}`);
      const alerts: Record<string, number> = {};
      for (const { ruleId } of run.alerts) alerts[ruleId] = (alerts[ruleId] ?? 0) + 1;
      expect({
        version: pack.build.version,
        loaded: run.loaded,
        failed: run.failed,
        skipped: run.skipped,
        alerts,
      }).toEqual({
        version: pack.build.version,
        loaded: expected.rulesLoaded,
        failed: expected.rulesFailed,
        skipped: expected.rulesSkipped ?? 0,
        alerts: expected.alerts,
      });
    }
  });
});

test('the real data are there', ({ skip }) => {
  if (!existsSync(data)) skip(skipLine);
  expect(existsSync(join(data, 'ips-vectors'))).toBe(true);
});
