/**
 * The benchmark of the halt specification in its reduced form: every MUST that so few runs can decide. It needs no servers
 * and is here for its length. No time is asserted.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { fails, type Group, measureGroup } from '../bench/halt/measure.ts';
import { createPool, type Pool } from '../bench/halt/pool.ts';

let pool: Pool;
beforeAll(() => {
  pool = createPool();
});
afterAll(() => pool.close());

test.each<Group>(['safety', 'cells', 'speed'])('no MUST gate fails: %s', async (group) => {
  const outcomes = await measureGroup(group, {
    ...{ pool, form: 'reduced', only: [], runs: null },
    step: (_what, work) => work(),
  });
  expect(outcomes.length).toBeGreaterThan(0);
  expect(outcomes.filter((outcome) => fails(outcome, 'reduced'))).toEqual([]);
});

test('the misuse of world N4, raw counts of whole sites, would be seen', async () => {
  const runs = await pool.runs('N4', 10);
  expect(runs.every(({ halt }) => halt !== null)).toBe(true);
});

test('one thread and two give the same runs', async () => {
  const alone = createPool(1);
  try {
    expect(await alone.runs('A9', 7)).toEqual(await pool.runs('A9', 7));
  } finally {
    await alone.close();
  }
});
