import { describe, expect, test } from 'vitest';
import { plotLines, plotSvg } from '../../apps/cli/plot.ts';
import { type Explanation, explainEvidence } from '../../domain/judge/explain.ts';
import { acceptWindow, foldTicks, newSession, type TickResult } from '../../domain/judge/session.ts';
import { crashStory, foldLog, policy, segment } from '../support/telemetry-log.ts';

const judged = (harmed: number): readonly TickResult[] => {
  const context = { digestOf: (value: unknown) => JSON.stringify(value), codeVersion: 'test' };
  const session = newSession('r1');
  for (const window of foldLog(crashStory(6, harmed)).windows) acceptWindow(session, window, context.digestOf(window));
  return foldTicks(session, context);
};
const explain = (results: readonly TickResult[]): Explanation =>
  explainEvidence(
    policy,
    results.map(({ evidence }) => evidence),
  );

describe('evidence explained', () => {
  test('is what the judge recorded, tick by tick, with the counts of every cell', () => {
    const results = judged(8);
    const { ticks, cells, halt, hold, refused } = explain(results);
    expect(ticks.length).toBe(results.length);
    expect(ticks.every(({ asRecorded }) => asRecorded)).toBe(true);
    expect(ticks.map(({ A }) => A)).toEqual(results.map(({ status }) => status.statA));
    const verdicts = results.flatMap((result) => result.verdicts);
    expect(halt).toMatchObject({ tick: verdicts.find(({ kind }) => kind === 'halt')?.tick });
    expect(hold).toMatchObject({ tick: verdicts.find(({ kind }) => kind === 'hold')?.tick });
    expect(refused).toBeNull();
    const crash = cells.find((cell) => cell.metric === 'crash' && cell.segment === segment);
    expect(crash).toMatchObject({ x: 8, y: 0, latchedA: halt?.tick });
    expect(crash?.control).toBeGreaterThan(crash?.treated ?? Number.POSITIVE_INFINITY);
  });

  test('a tick that was recorded otherwise is told, and one that cannot be folded ends it', () => {
    const results = judged(0).map(({ evidence }) => evidence);
    const changed = results.map((one) => (one.tick === 3 ? { ...one, statA: one.statA * 1.001 } : one));
    expect(explainEvidence(policy, changed).ticks.filter(({ asRecorded }) => !asRecorded)).toMatchObject([{ tick: 3 }]);
    const missing = results.filter(({ tick }) => tick !== 3);
    expect(explainEvidence(policy, missing)).toMatchObject({ refused: expect.stringContaining('tick 4 came') });
    expect(explainEvidence(policy, []).ticks).toEqual([]);
  });

  test('a choice of cells is what the table and the curves show; what was recorded is compared whole', () => {
    const all = judged(8).map(({ evidence }) => evidence);
    const chosen = explainEvidence(policy, all, { metric: 'load-failure', segment });
    expect(chosen.cells.map(({ cell }) => cell)).toEqual([`load-failure/${segment}`]);
    expect(chosen.ticks.every(({ asRecorded, leading }) => asRecorded && leading === `load-failure/${segment}`)).toBe(
      true,
    );
    expect(Math.max(...chosen.ticks.map(({ A }) => A))).toBeLessThan(1);
    expect(explainEvidence(policy, all, { metric: 'crash' }).cells.map(({ segment: of }) => of)).toEqual([
      null,
      segment,
    ]);
    expect(explainEvidence(policy, all, { metric: 'none' }).cells).toEqual([]);
  });

  test('what a stage excludes: with no event in T device-hours about ln(20 / weight of the bet) / T', () => {
    const cell = explain(judged(0)).cells.find(({ metric, segment: of }) => metric === 'crash' && of === segment);
    // E = sum of exp(d T (1 - g)) / 3 over g = 0.05, 0.2, 0.5 reaches 20 where d T is about 4.1.
    expect((cell?.excludes ?? 0) * (cell?.treated ?? 0)).toBeCloseTo(4.1, 0);
    const silent = explain(judged(0)).cells.find(({ metric }) => metric === 'silence-later');
    expect(silent).toMatchObject({ treated: 0, excludes: null });
  });
});

describe('the plot', () => {
  const plot = { ...explain(judged(8)), title: 'a < b', stages: ['canary'] };

  test('fits a terminal, and shows both keys, their thresholds and the decisions', () => {
    const lines = plotLines({
      ...plot,
      ticks: Array.from({ length: 100 }, () => plot.ticks).flat(),
    });
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(100);
    const text = plotLines(plot).join('\n');
    for (const mark of ['*', '┄', 'H', '100', '20']) expect(text).toContain(mark);
  });

  test('says when a curve leaves the scale', () => {
    const high = (A: number) =>
      plotLines({ ...plot, ticks: plot.ticks.map((tick) => ({ ...tick, A, B: A })) }).join('\n');
    expect(high(1e9)).toContain('>1e7');
    expect(high(1e4)).not.toContain('>');
    expect(plotSvg({ ...plot, ticks: plot.ticks.map((tick) => ({ ...tick, A: 1e9 })) })).toContain('&gt;1e7');
  });

  test('is a picture with one point per tick, and escapes what it is told', () => {
    const svg = plotSvg(plot);
    expect(svg).toContain('a &lt; b');
    expect(svg.match(/<polyline/g)).toHaveLength(2);
    expect(/points="([^"]*)"/.exec(svg)?.[1]?.split(' ')).toHaveLength(plot.ticks.length);
    expect(svg).toContain(`HALT, tick ${plot.halt?.tick}`);
    expect(svg).not.toMatch(/NaN|Infinity|undefined/);
  });
});
