import { expect, test } from 'vitest';
import { createEndings } from '../../services/endings.ts';

test('the last begun ends first, and one that cannot end keeps no other from it', async () => {
  const said: unknown[] = [];
  const ended: string[] = [];
  const endings = createEndings((_level, { error }) => said.push(error));
  const begin = (name: string, failure?: string) =>
    endings.add(async () => {
      ended.push(name);
      if (failure !== undefined) throw new Error(failure);
    });
  begin('pool');
  begin('gateway', 'no broker');
  begin('worker');
  await endings.end();
  expect(ended).toEqual(['worker', 'gateway', 'pool']);
  expect(said).toEqual(['Error: no broker']);
});

test('each is ended once, and waited for before the next, however often the end is asked for', async () => {
  const happened: string[] = [];
  const endings = createEndings(() => {});
  for (const name of ['first', 'last']) {
    endings.add(async () => {
      happened.push(`${name} begins`);
      await Promise.resolve();
      happened.push(`${name} is over`);
    });
  }
  await Promise.all([endings.end(), endings.end()]);
  await endings.end();
  expect(happened).toEqual(['last begins', 'last is over', 'first begins', 'first is over']);
});
