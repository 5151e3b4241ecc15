import { describe, expect, test } from 'vitest';
import { foldTick, initialJudgeState, type JudgeState, type TickLeaves } from '../../domain/judge/fold.ts';
import { foldHolds, type HeldCell, newHolds, raiseHold } from '../../domain/judge/holds.ts';
import type { PromotePolicy } from '../../domain/judge/policy.ts';
import { defaultJudgePolicy } from '../../domain/judge/policy.ts';
import type { Verdict } from '../../domain/release.ts';
import { sampleVerdict } from '../support/streams.ts';

const policy = defaultJudgePolicy({
  metrics: [
    { id: 'crash', trial: 'device-hour', weight: 0.5, delta: 1e-5 },
    { id: 'load-failure', trial: 'device-hour', weight: 0.5, delta: 1e-5 },
  ],
  segments: ['a', 'b'],
  ...{ alphaA: 0.01, alphaB: 0.05, alphaHold: 0.05 },
});
const promote: PromotePolicy = {
  ...{ r1: 3, delta1: { crash: 1e-3, 'load-failure': 1e-3 }, beta: 0.05, from: 0 },
  ...{ g: [0.05, 0.2, 0.5], weight: [1 / 3, 1 / 3, 1 / 3], cells: ['crash/*'] },
};
const hours = [10, 1000] as const;
/** Leaves are crash a, crash b, load-failure a, load-failure b. */
const ticks = (...events: readonly (readonly [number, number, number, number])[]): TickLeaves[] =>
  events.map((xs) => xs.map((x) => [x, 0, ...hours] as const));
const quiet = [0, 0, 0, 0] as const;

const verdictFor = (cell: string, tick: number): Verdict => ({ ...sampleVerdict, kind: 'hold', cell, tick });

/** As the session does it. */
const run = (leaves: readonly TickLeaves[]): { held: readonly HeldCell[]; judge: JudgeState } => {
  let judge = initialJudgeState(policy);
  let held: readonly HeldCell[] = [];
  leaves.forEach((one, tick) => {
    const next = foldTick(policy, judge, { tick, startMass: tick === 0 ? 0.5 : 0, leaves: one });
    if ('refused' in next) throw new Error(next.refused);
    judge = next;
    const raised = newHolds(policy, judge, held);
    held = [
      ...foldHolds(policy, promote, held, { tick, leaves: one }),
      ...raised.map((cell) => raiseHold(promote, verdictFor(cell, tick))),
    ];
  });
  return { held, judge };
};
const told = (held: readonly HeldCell[]) =>
  held.map(({ verdict, clearedAt }) => [verdict.cell, verdict.tick, clearedAt]);

describe('HOLD, cell by cell', () => {
  test('each cell raises its own, in the tick in which it reaches the limit, once', () => {
    const { held } = run(ticks(quiet, [2, 0, 0, 0], [2, 0, 0, 0], [0, 0, 0, 3]));
    const cells = held.map(({ verdict }) => verdict.cell);
    expect(new Set(cells).size).toBe(cells.length);
    expect(told(held)).toContainEqual(['crash/a', 1, null]);
    expect(told(held)).toContainEqual(['load-failure/b', 3, null]);
    expect(cells).not.toContain('crash/b');
    expect(cells).not.toContain('load-failure/a');
  });

  test('evidence since then clears it, and the cell raises none again', () => {
    const harm = [2, 0, 0, 0] as const;
    const { held } = run(ticks(harm, ...Array<typeof quiet>(400).fill(quiet), harm, harm, harm));
    const first = held.find(({ verdict }) => verdict.cell === 'crash/a');
    expect(first?.verdict.tick).toBe(0);
    // Without an event only the absolute claim adds: delta1 * treated hours * (1 - g), mixed over g, in two segments for
    // the fleet-wide cell and in one for the leaf, which therefore decides.
    const mixed = (n: number) =>
      promote.g.reduce((sum, g, j) => sum + (promote.weight[j] ?? 0) * Math.exp(1e-3 * 10 * n * (1 - g)), 0);
    const needed = Array.from({ length: 1000 }, (_, n) => n).findIndex((n) => mixed(n) >= 20);
    expect(needed).toBeGreaterThan(100);
    expect(first?.clearedAt).toBe(needed);
    expect(held.filter(({ verdict }) => verdict.cell === 'crash/a')).toHaveLength(1);
  });

  test('evidence from before the HOLD, and from its own tick, does not count', () => {
    const long = Array<typeof quiet>(400).fill(quiet);
    const { held } = run(ticks(...long, [9, 0, 0, 0]));
    expect(told(held)).toContainEqual(['crash/a', 400, null]);
    expect(held.every(({ evidence }) => evidence?.logs.every((logs) => logs.every((log) => log === 0)))).toBe(true);
  });

  test('a cell that goes on being worse, or a critical one, is not cleared', () => {
    const worse = Array.from({ length: 400 }, () => [1, 0, 0, 0] as const);
    expect(told(run(ticks([2, 0, 0, 0], ...worse)).held)).toContainEqual(['crash/a', 0, null]);
    // load-failure/b itself is quiet from then on; crashes are critical for every HOLD.
    const critical = run(ticks([0, 0, 0, 3], ...worse)).held;
    expect(told(critical)).toContainEqual(['load-failure/b', 0, null]);
    const free = run(ticks([0, 0, 0, 3], ...Array<typeof quiet>(400).fill(quiet))).held;
    expect(told(free)).toContainEqual(['load-failure/b', 0, expect.any(Number)]);
  });
});
