/** Engines that end with a code of failure and no word about it, as scripts in the place of a pack's loader. */
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { languageOf } from '../../domain/content/language.ts';
import { runClamav } from '../../infra/engines/clamav.ts';
import { defaultLimits } from '../../infra/engines/isolated.ts';
import { runYara } from '../../infra/engines/yara.ts';

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sigrel-exits-'));
  await mkdir(join(dir, 'lib'));
});
afterAll(() => rm(dir, { recursive: true }));

const engines = {
  yara: { adapter: runYara, says: 'number of rules : 1', rules: 'rule a { condition: true }\n', file: 'a.yar' },
  clamav: {
    adapter: runClamav,
    says: 'Known viruses: 1\nScanned files: 1',
    rules: 'T.A:0:*:68656c6c6f20776f726c64\n',
    file: 'a.ndb',
  },
} as const;

const runWith = async (name: keyof typeof engines, exit: number) => {
  const { adapter, says, rules, file } = engines[name];
  const script = join(dir, 'lib', 'ld-linux-x86-64.so.2');
  await writeFile(script, `#!/bin/sh\necho '${says}'\nexit ${exit}\n`);
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
