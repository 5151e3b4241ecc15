/** The generator behind the halt benchmark: its distributions, the rollout and exposures of section 15.1, determinism. */
import { expect, test } from 'vitest';
import { validateJudgePolicy } from '../../domain/judge/policy.ts';
import { quantile, readSpeed } from '../bench/halt/gates.ts';
import { binomial, gammaOfMean1, geometric, normal, poisson, type Random, randomOf } from '../bench/halt/random.ts';
import {
  eventsOf,
  judgePolicy,
  planOf,
  segmentSizes,
  startMassAt,
  ticks,
  treatedShare,
  twoPercent,
  updatedDevices,
  worldOf,
} from '../bench/halt/world.ts';
import { worlds } from '../bench/halt/worlds.ts';

const draws = 40_000;

/** Mean and variance of many draws are within five standard errors of what the distribution has. */
const moments = (name: string, draw: (random: Random) => number, mean: number, variance: number, fourth: number) => {
  const random = randomOf(name, 0);
  const values = Array.from({ length: draws }, () => draw(random));
  const found = values.reduce((sum, value) => sum + value, 0) / draws;
  const spread = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / draws;
  expect(Math.abs(found - mean), `mean ${found}, expected ${mean}`).toBeLessThan(5 * Math.sqrt(variance / draws));
  const error = Math.sqrt((fourth - variance ** 2) / draws);
  expect(Math.abs(spread - variance), `variance ${spread}, expected ${variance}`).toBeLessThan(5 * error);
};

test.each([0.001, 0.3, 2, 40, 499, 501, 2_000])('Poisson of mean %d', (mean) => {
  moments('poisson', (random) => poisson(random, mean), mean, mean, mean + 3 * mean ** 2);
});

test.each([
  [1, 0.2],
  [40, 0.5],
  [300, 0.01],
])('binomial of %d trials at %d', (n, p) => {
  const variance = n * p * (1 - p);
  const fourth = variance * (1 + (3 * n - 6) * p * (1 - p));
  moments('binomial', (random) => binomial(random, n, p), n * p, variance, fourth);
});

test('geometric of mean 12, from 1', () => {
  const p = 1 / 12;
  const variance = (1 - p) / p ** 2;
  moments('geometric', (random) => geometric(random, 12), 12, variance, variance ** 2 * (9 + p ** 2 / (1 - p)));
});

test('normal', () => moments('normal', normal, 0, 1, 3));

test.each([0.1, 1, 3])('gamma of shape %d and mean 1', (shape) => {
  const variance = 1 / shape;
  moments('gamma', (random) => gammaOfMean1(random, shape), 1, variance, variance ** 2 * (3 + 6 / shape));
});

test('uniform numbers fill their range, and other runs and worlds have other numbers', () => {
  moments('uniform', (random) => random(), 1 / 2, 1 / 12, 1 / 80);
  const first = (world: string, run: number) => randomOf(world, run)();
  const seeds = ['N1', 'N2', 'A1', '1A'].flatMap((world) => [0, 1, 2].map((run) => first(world, run)));
  expect(new Set(seeds).size).toBe(seeds.length);
  expect(first('N1', 1)).toBe(first('N1', 1));
});

test('the fleet, the rollout and the start masses are those of the specification', () => {
  expect(segmentSizes.reduce((sum, size) => sum + size, 0)).toBe(200_000);
  expect([segmentSizes[11], segmentSizes[19]]).toEqual([4_000, 1_000]);
  const shares = [0, 19, 59, 60, 79, 120, 199, 300, 319, 419].map((tick) => treatedShare(tick));
  const expected = [0.00005, 0.001, 0.001, 0.00145, 0.01, 0.012, 0.25, 0.2865, 0.98, 0.98];
  for (const [i, share] of shares.entries()) expect(share).toBeCloseTo(expected[i] ?? 0, 12);
  expect(treatedShare(419, 0.25)).toBe(0.25);
  expect(updatedDevices(worldOf('w'), twoPercent, 19)).toBe(4);
  expect(updatedDevices(worldOf('w', { stratified: true }), twoPercent, 19)).toBe(8);
  expect(updatedDevices(worldOf('w'), twoPercent, -1)).toBe(0);
  const used = Array.from({ length: ticks }, (_, tick) => startMassAt(tick)).reduce((sum, mass) => sum + mass, 0);
  expect(used).toBeGreaterThan(0.98);
  expect(used).toBeLessThanOrEqual(1);
  expect([0, 60, 5].map(startMassAt)).toEqual([0.5, 0.05 + 0.25 / 42 + 0.05 / 42, 0]);
  expect(validateJudgePolicy(judgePolicy)).toEqual([]);
  expect(judgePolicy.cells).toHaveLength(210);
});

test('exposures of a tick: device-hours at risk, and trials that fall due', () => {
  const leaf = (tick: number, metric: number) => planOf(worldOf('w'))[tick]?.[metric * 20 + twoPercent];
  expect(leaf(19, 0)).toMatchObject({ treated: 4 / 60, control: 3_996 / 60 });
  // The fourth device was updated in tick 19: its first trial falls due ten ticks later.
  expect([28, 29, 30].map((tick) => leaf(tick, 8)?.treated)).toEqual([0, 1, 0]);
  expect([28, 29].map((tick) => leaf(tick, 9)?.treated)).toEqual([3 / 5, 4 / 5]);
  expect(leaf(29, 8)?.control).toBe(3_996 / 5);
});

test.each(['N1', 'N4d', 'A5', 'A9'])('world %s: the counts of a run are events of the planned means', (name) => {
  const world = worlds.find(({ id }) => id === name) ?? worldOf('missing');
  const plan = planOf(world);
  const random = randomOf(name, 0);
  let broken = 0;
  const sums = { planned: 0, treated: 0, control: 0 };
  for (const [tick, planned] of plan.entries()) {
    for (const [i, [x, y, treated, control]] of eventsOf(world, plan, tick, random).entries()) {
      if (!(Number.isSafeInteger(x) && Number.isSafeInteger(y))) broken++;
      if ((treated === 0 && x > 0) || (control === 0 && y > 0)) broken++;
      const leaf = planned[i];
      if (leaf === undefined || [3, 9].includes(Math.floor(i / 20))) continue;
      const mean = leaf.failing > 0 ? leaf.failing * treated : leaf.treatedMean;
      sums.planned += mean + leaf.controlMean;
      sums.treated += x - mean;
      sums.control += y - leaf.controlMean;
    }
  }
  expect(broken).toBe(0);
  expect(Math.abs(sums.treated)).toBeLessThan(5 * Math.sqrt(sums.planned));
  expect(Math.abs(sums.control)).toBeLessThan(5 * Math.sqrt(sums.planned));
});

test('outages hit both of their metrics, in both arms by their shares', () => {
  const world = worldOf('outages', { outages: 'by device' });
  const plan = planOf(world);
  const random = randomOf('outages', 0);
  // Tick 250: a quarter is treated. 200 000 · 0.01 / 60 / 12 outages in a minute, of nearly 12 devices each.
  const hit = { treated: 0, control: 0 };
  const rounds = 500;
  for (let round = 0; round < rounds; round++) {
    for (const [i, [x, y]] of eventsOf(world, plan, 250, random).entries()) {
      if (Math.floor(i / 20) !== 3) continue;
      hit.treated += x - (plan[250]?.[i]?.treatedMean ?? 0);
      hit.control += y - (plan[250]?.[i]?.controlMean ?? 0);
    }
  }
  const perMinute = (hit.treated + hit.control) / rounds;
  expect(perMinute).toBeGreaterThan(0.85 * ((200_000 * 0.01) / 60));
  expect(perMinute).toBeLessThan(1.1 * ((200_000 * 0.01) / 60));
  expect(hit.treated / (hit.treated + hit.control)).toBeCloseTo(0.25, 1);
});

test('reading of runs: order statistics, misses are infinite, early decisions are left out', () => {
  expect(quantile([5, 1, 4, 2, 3], 0.5)).toBe(3);
  expect(quantile([1, 2, 3, 4, 5], 0.95)).toBe(4);
  const run = (halt: number | null) => ({ halt, hold: halt, dead: 0 });
  const read = readSpeed('A12', 'halt', [run(204), run(205), run(210), run(null)]);
  expect(read).toMatchObject({ runs: 3, early: 1, delays: [1, 6, Number.POSITIVE_INFINITY], median: 6 });
  expect(read.miss).toBeCloseTo(1 / 3, 12);
});
