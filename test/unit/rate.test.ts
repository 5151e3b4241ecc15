import fc from 'fast-check';
import { expect, test } from 'vitest';
import { fullBucket, giveBack, takeToken } from '../../domain/rate.ts';

const rate = { perSecond: 10, burst: 3 };

test('a burst at once, then one as often as the rate says, and the wait that is told is enough', () => {
  const bucket = fullBucket(rate, 1_000);
  expect([1, 2, 3, 4].map(() => takeToken(bucket, rate, 1_000))).toEqual([0, 0, 0, 100]);
  expect(takeToken(bucket, rate, 1_040)).toBe(60);
  expect(takeToken(bucket, rate, 1_100)).toBe(0);
  expect(takeToken(bucket, rate, 1_100)).toBe(100);
  expect([1, 2, 3, 4].map(() => takeToken(bucket, rate, 60_000))).toEqual([0, 0, 0, 100]);
});

test('what is given back can be taken again, and never more than a burst', () => {
  const bucket = fullBucket(rate, 0);
  giveBack(bucket, rate);
  expect([1, 2, 3, 4].map(() => takeToken(bucket, rate, 0) === 0)).toEqual([true, true, true, false]);
  giveBack(bucket, rate);
  expect([1, 2].map(() => takeToken(bucket, rate, 0) === 0)).toEqual([true, false]);
});

test('in no stretch of time are more taken than a burst and the rate allow, also when the clock steps back', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: -500, max: 500 }), { maxLength: 200 }), (steps) => {
      const bucket = fullBucket(rate, 0);
      let now = 0;
      let passed = 0;
      let taken = 0;
      for (const step of steps) {
        now += step;
        passed += Math.max(0, step);
        if (takeToken(bucket, rate, now) === 0) taken += 1;
      }
      expect(taken).toBeLessThanOrEqual(rate.burst + (passed * rate.perSecond) / 1_000 + 1e-6);
    }),
  );
});
