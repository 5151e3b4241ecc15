import { describe, expect, test } from 'vitest';
import { findDivergences, type Observation } from '../../domain/matrix/divergence.ts';

const cell = (version: string, alerts: Observation['alerts'], more: Partial<Observation> = {}): Observation => ({
  cellId: `yara-${version}-00000000/scan`,
  engine: { name: 'yara', version },
  configuration: 'scan',
  rules: ['a', 'b'],
  alerts,
  ...more,
});
const difference = (engines: string[], rule = 'a', vector = 'empty') => ({
  ...({ engines, rule, vector, expect: 'match', reason: 'known' } as const),
});

describe('silent divergences', () => {
  const old = cell('4.0.5', { v: ['a'], empty: ['a'] });
  const middle = cell('4.5.2', { v: ['a'], empty: [] });
  const newest = cell('4.5.8', { v: ['a'], empty: [] });

  test('the same rule, loaded everywhere, alerts on one engine and not on others', () => {
    expect(findDivergences([old, middle, newest], [])).toEqual([
      { rule: 'a', input: 'empty', alerting: [old.cellId], silent: [middle.cellId, newest.cellId] },
    ]);
  });

  test('an engine whose difference is declared is not compared; another engine or rule still is', () => {
    expect(findDivergences([old, middle, newest], [difference(['yara@4.0.5'])])).toEqual([]);
    expect(findDivergences([old, middle, newest], [difference(['yara@*'])])).toEqual([]);
    expect(findDivergences([old, middle, newest], [difference(['yara@4.5.2'])])).toHaveLength(1);
    expect(findDivergences([old, middle, newest], [difference(['yara@4.0.5'], 'b')])).toHaveLength(1);
    expect(findDivergences([old, middle, newest], [difference(['yara@4.0.5'], 'a', 'v')])).toHaveLength(1);
  });

  test('a rule that an engine did not load, or an input that it did not look at, is no divergence', () => {
    expect(findDivergences([old, cell('4.5.2', { v: [], empty: [] }, { rules: ['b'] })], [])).toEqual([]);
    expect(findDivergences([old, cell('4.5.2', { v: ['a'] })], [])).toEqual([]);
  });

  test('configurations are not compared with each other', () => {
    expect(findDivergences([old, { ...middle, configuration: 'other' }], [])).toEqual([]);
  });
});
