/** Engines that end with a code of failure and no word about it, as scripts in the place of a pack's loader. */
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { languageOf } from '../../domain/content/language.ts';
import { runClamav } from '../../infra/engines/clamav.ts';
import { defaultLimits } from '../../infra/engines/isolated.ts';
import { runSuricata } from '../../infra/engines/suricata.ts';
import { runYara } from '../../infra/engines/yara.ts';

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sigrel-exits-'));
  await mkdir(join(dir, 'lib'));
});
afterAll(() => rm(dir, { recursive: true }));

const engines = {
  yara: { adapter: runYara, says: "echo 'number of rules : 1'", rules: 'rule a { condition: true }\n', file: 'a.yar' },
  clamav: {
    adapter: runClamav,
    // After its options and their values stands the list of files.
    says: `while [ "$1" != --file-list ]; do shift; done
while read -r path; do echo "$path: OK"; done < "$2"
echo 'Known viruses: 1'; echo 'Scanned files: 1'`,
    rules: 'T.A:0:*:68656c6c6f20776f726c64\n',
    file: 'a.ndb',
  },
} as const;

const runWith = async (name: keyof typeof engines, exit: number, says: string = engines[name].says) => {
  const { adapter, rules, file } = engines[name];
  const script = join(dir, 'lib', 'ld-linux-x86-64.so.2');
  await writeFile(script, `#!/bin/sh\n${says}\nexit ${exit}\n`);
  await chmod(script, 0o755);
  const build = { name, version: '1', packageVersion: '1', digest: 'a'.repeat(64) };
  const input = { rules: languageOf(name).wrap(file, Buffer.from(rules)), inputs: [], mode: 'scan' } as const;
  return adapter({ build, dir }, input, { limits: defaultLimits });
};

test.each([
  ['yara', 1],
  ['yara', 3],
  ['clamav', 2],
  ['clamav', 50],
] as const)('%s, exit code %i without a word: no result', async (name, exit) => {
  expect(await runWith(name, exit)).toMatchObject({
    ...{ kind: 'no-result', reason: 'exit' },
    words: expect.stringContaining(`exit code ${exit}`),
  });
});

test.each([
  ['yara', 0],
  ['clamav', 0],
  ['clamav', 1],
] as const)('%s, exit code %i: a result', async (name, exit) => {
  expect(await runWith(name, exit)).toMatchObject({ kind: 'completed', loaded: 1, failed: 0 });
});

test('clamav: an input of which it says nothing is no clean one, whatever it counted', async () => {
  const says = "echo 'Known viruses: 1'; echo 'Scanned files: 1'";
  expect(await runWith('clamav', 0, says)).toMatchObject({
    kind: 'no-result',
    words: expect.stringContaining('did not look at load-only'),
  });
});

test.each([
  ['yara', 127, '/packs/yara/bin/yara: error while loading shared libraries: libm.so.6: failed to map segment'],
  ['yara', 1, 'content.yar(1): error: not enough memory'],
  ['yara', 1, 'error: rule "a" in content.yar(1): not enough memory'],
  ['yara', 1, 'error: could not open file "content.yar"'],
  ['clamav', 2, "LibClamAV Error: mpool_malloc(): Can't allocate memory (262144 bytes)."],
  ['clamav', 2, "LibClamAV Error: cl_load(): x\nERROR: Can't allocate memory"],
] as const)('%s, exit code %i without a start or without memory is no refusal: %s', async (name, exit, words) => {
  const said = await runWith(name, exit, `cat >&2 <<'END'\n${words}\nEND`);
  expect(said).toMatchObject({ kind: 'no-result', reason: 'no-statistics' });
});

test.each([
  ['yara', 1, 'content.yar(1): error in rule "a": syntax error', { line: 1, ruleId: 'a' }],
  ['yara', 1, 'error: rule "out of memory" in content.yar(1): undefined identifier "no"', { line: 1 }],
  ['clamav', 2, 'LibClamAV Error: Malformed database', {}],
] as const)('%s, exit code %i is a refusal where the engine says of what: %s', async (name, exit, words, place) => {
  const said = await runWith(name, exit, `cat >&2 <<'END'\n${words}\nEND`);
  expect(said).toMatchObject({ kind: 'completed', loaded: 0, failed: 1, errors: [place] });
});

test.each([
  [1, 1, { kind: 'completed', loaded: 1 }],
  [3, 3, { kind: 'completed', loaded: 1 }],
  [4, 3, { kind: 'no-result', reason: 'no-statistics' }],
] as const)('suricata that writes its statistics from run %i on is run %i times', async (from, runs, expected) => {
  const script = join(dir, 'lib', 'ld-linux-x86-64.so.2');
  const counter = join(dir, `runs-${from}`);
  const statistics = {
    event_type: 'stats',
    stats: { decoder: { pkts: 1 }, detect: { engines: [{ rules_loaded: 1, rules_failed: 0 }] } },
  };
  const says = `while [ "$1" != -l ]; do shift; done
echo run >> ${counter}
if [ "$(wc -l < ${counter})" -ge ${from} ]; then echo '${JSON.stringify(statistics)}' > "$2/eve.json"; fi`;
  await writeFile(script, `#!/bin/sh\n${says}\nexit 0\n`);
  await chmod(script, 0o755);
  const build = { name: 'suricata', version: '8.0.7', packageVersion: '1', digest: 'a'.repeat(64) };
  const rules = Buffer.from('alert tcp any any -> any any (msg:"a"; sid:1;)\n');
  const result = await runSuricata({ build, dir }, { rules, inputs: [], mode: 'ids' }, { limits: defaultLimits });
  expect(result).toMatchObject(expected);
  expect((await readFile(counter, 'utf8')).split('\n').length - 1).toBe(runs);
});
