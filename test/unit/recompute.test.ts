import { expect, test } from 'vitest';
import { compareRecomputed, createWindowFold } from '../../domain/judge/recompute.ts';
import type { Verdict } from '../../domain/release.ts';
import type { Window } from '../../domain/telemetry.ts';
import { digestOf } from '../../infra/content/digests.ts';
import { bucketOf, crashStory } from '../support/telemetry-log.ts';

/** All canaries crash; devices are spread over three partitions, control records go into each. */
const made = (): readonly Window[] => {
  const partitions = 3;
  const fold = createWindowFold({ releaseId: 'r1', partitions, bucketOf });
  const other = createWindowFold({ releaseId: 'elsewhere', partitions, bucketOf });
  for (const [offset, { at, record }] of crashStory(4).entries()) {
    for (let partition = 0; partition < partitions; partition += 1) {
      if ('report' in record && Number(record.report.deviceId.slice(1)) % partitions !== partition) continue;
      for (const one of [fold, other]) one.take(partition, offset, at, record);
    }
  }
  expect(other.windows()).toEqual([]);
  return fold.windows();
};
const windows = made();
const compare = (recorded: readonly Window[], verdicts: readonly Verdict[]) =>
  compareRecomputed('r1', windows, { windows: recorded, verdicts }, digestOf);
const { verdicts } = compare(windows, []);
const halt = verdicts.find(({ kind }) => kind === 'halt');

test('the same log gives the same windows and decisions; what was written twice is the same twice', () => {
  expect(new Set(verdicts.map(({ kind }) => kind))).toEqual(new Set(['halt', 'hold']));
  const again = compare([...windows.toReversed(), ...windows.slice(-3)], verdicts);
  expect(again).toMatchObject({ differences: [], windows: windows.length, ticks: windows.length / 3 });
  expect(made()).toEqual(windows);
});

test('a window that is missing, one too many, and one of other numbers are told by their place', () => {
  const [first, second, ...rest] = windows as [Window, Window, ...Window[]];
  const extra = { ...second, tick: 99 };
  const changed = { ...second, lastOffset: '12345' };
  expect(compare([second, ...rest], verdicts).differences).toEqual([
    `window of tick ${first.tick}, partition ${first.partition}: was not recorded`,
  ]);
  expect(compare([...windows, extra], verdicts).differences[0]).toMatch(/tick 99.*not in the telemetry log/);
  expect(compare([first, changed, ...rest], verdicts).differences[0]).toMatch(/gives another one/);
  expect(compare([...windows, changed], verdicts).differences[0]).toMatch(/recorded in 2 ways/);
});

test('a verdict that cannot be found again, or with other numbers, is told with both', () => {
  if (!halt) throw new Error('no HALT');
  expect(compare(windows, [{ ...halt, x: halt.x + 1 }]).differences).toEqual([
    `HALT of ${halt.cell} at tick ${halt.tick}: x is ${halt.x}, recorded was ${halt.x + 1}`,
  ]);
  expect(compare(windows, [{ ...halt, statA: halt.statA * (1 + 1e-12) }]).differences).toEqual([]);
  const early = windows.filter(({ tick }) => tick < halt.tick);
  expect(compareRecomputed('r1', early, { windows: early, verdicts: [halt] }, digestOf).differences[0]).toMatch(
    /recorded, and not found again/,
  );
});
