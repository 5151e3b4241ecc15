import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createLog } from '../../infra/logging.ts';

let dir = '';
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'sigrel-logging-'));
});
afterAll(() => rmSync(dir, { recursive: true }));

const linesOf = (file: string) =>
  readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));

test('one JSON object per line, with its component, in a folder that was not there', async () => {
  const file = join(dir, 'made', 'services.log');
  const log = createLog({ file, level: 'info' });
  log.of('judge')('warn', { releaseId: 'r-1', tick: 4 }, 'two\nlines');
  log.of('gateway')('info', {}, 'listens');
  await log.close();
  expect(linesOf(file)).toEqual([
    {
      level: 40,
      time: expect.any(Number),
      pid: process.pid,
      component: 'judge',
      releaseId: 'r-1',
      tick: 4,
      msg: 'two\nlines',
    },
    { level: 30, time: expect.any(Number), pid: process.pid, component: 'gateway', msg: 'listens' },
  ]);
});

test('below its level nothing is written', async () => {
  const file = join(dir, 'level.log');
  const log = createLog({ file, level: 'warn' });
  const say = log.of('worker');
  for (const level of ['debug', 'info', 'warn', 'error'] as const) say(level, {}, level);
  await log.close();
  expect(linesOf(file).map(({ msg }) => msg)).toEqual(['warn', 'error']);
});

test('closing writes everything that was said, also nothing; a second process life goes on in the same file', async () => {
  const file = join(dir, 'twice.log');
  await createLog({ file, level: 'info' }).close();
  for (const life of [1, 2]) {
    const log = createLog({ file, level: 'info' });
    const say = log.of('worker');
    for (let i = 0; i < 5_000; i += 1) say('info', { life, i, filler: 'x'.repeat(100) }, 'line');
    await log.close();
  }
  const lines = linesOf(file);
  expect(lines).toHaveLength(10_000);
  expect(lines.at(-1)).toMatchObject({ life: 2, i: 4_999 });
});
