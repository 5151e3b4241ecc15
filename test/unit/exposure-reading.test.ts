/** Exposure and bound of one run, from evidence made up so that both can be computed by hand. */
import { expect, test } from 'vitest';
import type { TickEvidence } from '../../domain/judge/session.ts';
import { readRun } from '../bench/exposure/reading.ts';
import { natsOf, poissonInformation, trialInformation } from '../bench/halt/bound.ts';

const segment = 'e/fail-open';
const other = 'e/fail-closed';
const policy = { r0: 1.5, delta: 0 };

/** `treated`: exposure of the tick; 6 devices served in every tick, one event in every third. */
const tick = (number: number, metric: string, treated: number): TickEvidence => ({
  ...{
    releaseId: 'r',
    tick: number,
    stage: 0,
    offsets: [],
    statA: 0,
    statB: 0,
    leading: '',
    exposed: {},
    openTrials: {},
  },
  leaves: {
    [segment]: { [metric]: [number % 3 === 2 ? 1 : 0, 0, treated, 100] },
    [other]: { [metric]: [5, 0, 1_000, 100] },
  },
  counts: {
    [segment]: { enrolled: 400, offered: 6, installed: 6, healthy: 6, harmed: 0, recovered: 0 },
    [other]: { enrolled: 400, offered: 400, installed: 6, healthy: 6, harmed: 0, recovered: 0 },
  },
});
const ticksOf = (count: number, metric: string, treated: number) =>
  Array.from({ length: count }, (_, number) => tick(number, metric, treated));

test('exposure counts what was served in the affected segments up to the end of the tick that decided', () => {
  const effect = { metric: 'crash', segments: [segment], control: 0.01, treated: 1 } as const;
  const found = readRun(ticksOf(60, 'crash', 0.1), effect, policy, { cells: 42, hold: 9, frozen: 10.5, halt: 19 });
  expect(found.hold).toEqual({ deviceHours: expect.closeTo(1), devices: 6, harmed: 3 });
  expect(found.frozen).toEqual({ deviceHours: expect.closeTo(1.05), devices: 6, harmed: 3 });
  expect(found.halt).toEqual({ deviceHours: expect.closeTo(2), devices: 6, harmed: 6 });
});

test('the bound is reached within the run, or after it at the same rate', () => {
  const effect = { metric: 'crash', segments: [segment], control: 0.01, treated: 1 } as const;
  const perTick = poissonInformation(effect, { treated: 0.1, control: 100 }, policy);
  const ticks = natsOf(0.01) / perTick;
  for (const length of [Math.ceil(ticks) + 5, Math.floor(ticks) - 5]) {
    const found = readRun(ticksOf(length, 'crash', 0.1), effect, policy, {
      cells: 42,
      hold: null,
      frozen: null,
      halt: null,
    });
    expect(found.bound).toBeCloseTo((ticks * 6) / 60, 9);
    expect(found.searched / found.bound).toBeCloseTo(natsOf(0.01, 42) / natsOf(0.01), 9);
    expect(found.hold).toBeNull();
  }
});

test('silence is counted in trials', () => {
  const effect = { metric: 'silence-first', segments: [segment], control: 0.002, treated: 1 } as const;
  const found = readRun(ticksOf(30, 'silence-first', 2), effect, policy, { cells: 1, hold: 0, frozen: 1, halt: 0 });
  const ticks = natsOf(0.01) / trialInformation(2, 1, 0.002, policy);
  expect(found.bound).toBeCloseTo((ticks * 6) / 60, 9);
});
