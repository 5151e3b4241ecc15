import { expect, test } from 'vitest';
import { bucketSpace, enginesBehind, thresholdsFor } from '../../domain/exposure.ts';

const stages = [1, 2, bucketSpace].map((threshold) => ({
  thresholds: { 'a/fail-open': threshold, 'b/fail-open': threshold, 'b/fail-closed': threshold },
}));
const all = (a: number, b: number) => ({ 'a/fail-open': a, 'b/fail-open': b, 'b/fail-closed': b });

test('engines of the field go on stage by stage', () => {
  expect(thresholdsFor({}, stages, 0, ['a', 'b'])).toEqual(all(1, 1));
  expect(thresholdsFor(all(1, 1), stages, 1, ['a', 'b'])).toEqual(all(2, 2));
  expect(thresholdsFor(all(2, 2), stages, 2, ['a', 'b'])).toEqual(all(bucketSpace, bucketSpace));
});

test('what an engine was offered before it was excluded is neither taken back nor added to', () => {
  expect(thresholdsFor(all(1, 1), stages, 1, ['b'])).toEqual(all(1, 2));
  expect(thresholdsFor({}, stages, 0, ['b'])).toEqual(all(0, 1));
});

test('an engine that missed a stage has no canary behind it: it stays where it is, also when it is back', () => {
  expect(thresholdsFor(all(0, 1), stages, 1, ['a', 'b'])).toEqual(all(0, 2));
  expect(thresholdsFor(all(1, 2), stages, 2, ['a', 'b'])).toEqual(all(1, bucketSpace));
  expect([...enginesBehind(all(1, 2), stages[1])]).toEqual(['a']);
  expect([...enginesBehind(all(1, 2), undefined)]).toEqual([]);
});
