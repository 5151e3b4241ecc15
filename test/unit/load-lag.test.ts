/** Lag of the aggregator from samples and windows that are made up. */
import { expect, test } from 'vitest';
import type { Window } from '../../domain/telemetry.ts';
import { aggregatorLag, growthOf, type Sample, type WrittenWindow } from '../bench/load/lag.ts';

const written = (partition: number, appendedAt: number, lastOffset: number): WrittenWindow => ({
  window: { releaseId: 'r', tick: 0, partition, lastOffset: String(lastOffset) } as Window,
  appendedAt,
});
const sample = (at: number, ends: readonly number[]): Sample => ({
  ...{ at, judge: 0 },
  reportEnds: new Map(ends.map((end, partition) => [partition, end])),
});

test('what lies behind the last window of each partition is the lag, also when windows are read in another order', () => {
  const windows = [written(1, 900, 79), written(0, 950, 99), written(0, 700, 49), written(1, 1_900, 179)];
  expect(aggregatorLag([sample(1_000, [130, 90])], windows)).toEqual([{ at: 1_000, records: 30 + 10 }]);
});

test('without a window of every partition from the last second nothing is known', () => {
  const windows = [written(0, 950, 99), written(1, 100, 79)];
  expect(aggregatorLag([sample(1_000, [130, 90]), sample(3_000, [130, 90])], windows)).toEqual([
    { at: 1_000, records: 40 },
  ]);
  expect(aggregatorLag([sample(1_000, [130, 90])], [written(0, 950, 99)])).toEqual([]);
});

test('growth is the mean of the last quarter against the first', () => {
  expect(growthOf([1, 3, 100, 100, 100, 100, 7, 9])).toEqual({ first: 2, last: 8 });
  expect(growthOf([])).toEqual({ first: 0, last: 0 });
});
