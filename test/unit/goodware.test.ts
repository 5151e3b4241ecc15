import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { checkGroup, goodwareFor } from '../../infra/engines/goodware.ts';

test('a corpus that shrank is refused, and the group named', async () => {
  const pack = await mkdtemp(join(tmpdir(), 'sigrel-pack-'));
  await expect(goodwareFor(pack)).rejects.toMatchObject({
    code: 'SRP_DEP_GOODWARE',
    message: 'goodware of group "engine": 0 files that can be read, expected at least 1',
  });
  await writeFile(join(pack, 'program'), 'x');
  const { files } = await goodwareFor(pack);
  expect(files.filter(({ name }) => name.startsWith('good.engine.'))).toHaveLength(1);
  await rm(pack, { recursive: true });
  expect(() => checkGroup('system', 5)).not.toThrow();
  expect(() => checkGroup('system', 4)).toThrow('group "system": 4 files that can be read, expected at least 5');
  expect(() => checkGroup('agent', 0)).toThrow('at least 1');
});
