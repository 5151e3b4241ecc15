/** The rest of the halt specification's vectors (frozen cells, promote, decisions, attribution, sites), and properties. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { attribute, eBenjaminiHochberg } from '../../domain/judge/attribution.ts';
import { type Decision, decide, noDecision } from '../../domain/judge/decision.ts';
import {
  absoluteLogFactor,
  ceilingLogE,
  gainMinus1,
  logFactor,
  logMinimum,
  lossMinus1,
  mixture,
} from '../../domain/judge/factor.ts';
import { foldTick, initialJudgeState, type JudgeState, type TickLeaves } from '../../domain/judge/fold.ts';
import {
  type FrozenSums,
  foldFrozen,
  frozenHaltLog,
  frozenPromoteLog,
  frozenValue,
} from '../../domain/judge/frozen.ts';
import type { FrozenCell, JudgePolicy, PromotePolicy } from '../../domain/judge/policy.ts';
import {
  foldPromote,
  initialPromoteState,
  promoteLogFactor,
  promotes,
  promoteValues,
  validatePromote,
} from '../../domain/judge/promote.ts';
import { cappedSiteCount, eventsPerSite } from '../../domain/judge/sites.ts';

const folder = join(import.meta.dirname, '../vectors/halt');
type Tolerance = { relative: string; absolute: string };
type Vector = {
  id: string;
  kind: string;
  // biome-ignore lint/suspicious/noExplicitAny: every kind of vector has fields of its own
  inputs: any;
  // biome-ignore lint/suspicious/noExplicitAny: every kind of vector has fields of its own
  expected: any;
  tolerance: Tolerance;
};
const { vectors }: { vectors: Vector[] } = JSON.parse(readFileSync(join(folder, 'vectors.json'), 'utf8'));
const close = (got: number, want: string | number, tolerance: Tolerance = { relative: '1e-9', absolute: '1e-9' }) => {
  const target = Number(want);
  const allowed = Math.max(Number(tolerance.absolute), Number(tolerance.relative) * Math.abs(target));
  expect(Math.abs(got - target), `got ${got}, want ${want}`).toBeLessThanOrEqual(allowed);
};
const fraction = (text: string | number): number => {
  const [a, b] = String(text).split('/').map(Number);
  return (a ?? 0) / (b ?? 1);
};
const betsOf = (bets: { r: number[]; weight: (string | number)[] }) => ({
  r: bets.r,
  weight: bets.weight.map(fraction),
});
const frozenCell = (i: Vector['inputs'], start: FrozenCell['start']): FrozenCell => ({
  id: 'f',
  kind: 'frozen',
  metric: 'm',
  segments: ['s'],
  weight: 1,
  r0: i.r0,
  bets: betsOf(i.bets),
  baseline: { events: i.Y0, exposure: i.C0 },
  start,
});

const checks: Record<string, (vector: Vector) => void> = {
  factor: ({ inputs: i, expected: e, tolerance }) => {
    close(logFactor(i.x, i.y, i.T, i.C, i.r, i.r0, i.delta), e.logE, tolerance);
    if (e.g !== undefined && i.T + i.C > 0) close(1 + gainMinus1(i.T, i.C, i.r, i.r0), e.g);
    if (e.w !== undefined && i.T + i.C > 0) close(1 + lossMinus1(i.T, i.C, i.r, i.r0), e.w);
  },
  'frozen-halt': ({ inputs: i, expected: e }) =>
    close(frozenHaltLog({ events: i.Y0, exposure: i.C0 }, i.X, i.T, i.r, i.r0), e.logE),
  'frozen-halt-mixture': ({ inputs: i, expected: e }) => {
    const cell = frozenCell(i, [{ tick: 0, mass: 1 }]);
    close(frozenValue(cell, foldFrozen(cell, [], 0, [[i.X, i.T]])), e.E);
  },
  'frozen-promote': ({ inputs: i, expected: e }) =>
    close(frozenPromoteLog({ events: i.Y0, exposure: i.C0 }, i.X, i.T, i.ra, i.r1), e.logE),
  'frozen-start-maximum': ({ inputs: i, expected: e, tolerance }) => {
    const cell = frozenCell(i, i.start);
    let sums: FrozenSums[] = [];
    expect(frozenValue(cell, sums)).toBe(0);
    for (const [k, counts] of i.ticks.entries()) {
      sums = foldFrozen(cell, sums, k, [counts]);
      close(frozenValue(cell, sums), e.value[k], tolerance);
    }
  },
  'promote-factor': ({ inputs: i, expected: e }) =>
    close(promoteLogFactor(i.x, i.y, i.T, i.C, i.r1, i.delta1, i.g), e.logE),
  'promote-mixture': ({ inputs: i, expected: e }) => {
    const policy = onePolicy();
    const { r1, g, beta } = i;
    const weight = i.weight.map(fraction);
    const promote: PromotePolicy = { r1, delta1: { m: i.delta1 }, g, weight, beta, from: 0, cells: ['m/s'] };
    expect(validatePromote(policy, promote)).toEqual([]);
    let state = initialPromoteState(promote);
    for (const [k, leaf] of i.ticks.entries()) {
      state = foldPromote(policy, promote, state, { tick: k, leaves: [leaf] });
      close(promoteValues(promote, state.logs)[0] ?? Number.NaN, e.E[k]);
      expect(promotes(promote, state.logs)).toBe(k >= e.firstAtLeastOneOverBeta);
    }
    expect(state.ready).toBe(e.firstAtLeastOneOverBeta);
  },
  'absolute-factor': ({ inputs: i, expected: e }) => close(absoluteLogFactor(i.x, i.y, i.T, i.C, i.delta, i.g), e.logE),
  'known-ceiling': ({ inputs: i, expected: e }) => close(ceilingLogE(i.X, i.T, i.lambdaU, i.r, i.r0), e.logE),
  minimum: ({ inputs: { ratio: a, absolute: b }, expected: e }) => {
    const ratio = logFactor(a.x, a.y, a.T, a.C, a.r, a.r0, a.delta);
    const absolute = absoluteLogFactor(b.x, b.y, b.T, b.C, b.delta, b.g);
    close(ratio, e.logRatio);
    close(absolute, e.logAbsolute);
    close(logMinimum(ratio, absolute), e.logE);
  },
  // V19 and V20 are figures of the specification about growth and bounds; they follow from the factor.
  growth: ({ inputs: i, expected: e }) => {
    const gain = gainMinus1(i.T, i.C, i.r, i.r0);
    const loss = lossMinus1(i.T, i.C, i.r, i.r0);
    const growth = i.r * i.lambda0 * i.T * Math.log1p(gain) + i.lambda0 * i.C * Math.log1p(loss);
    close(growth, e.growthPerHour);
    close(Math.log(1 / i.alpha) / growth, e.hours);
  },
  'brick-bound': ({ inputs: i, expected: e }) => {
    const q = (i.r0 * i.hazardPerHour * i.windowMinutes) / 60 + i.delta;
    close(q, e.q);
    close(Math.log(1 / i.alpha) / Math.log(1 / q), e.deadDevices);
  },
  'beta-mixture': ({ inputs: i, expected: e }) => close(betaMixture(i.X, i.Y, i.q0, i.a, i.b), e.logE),
  decide: ({ inputs: i, expected: e }) => {
    const alphas = { A: i.alphaA, B: i.alphaB, hold: i.alphaHold };
    let decision: Decision = noDecision(i.cells.length);
    for (const [k, A] of i.A.entries()) decision = decide(decision, i.cells, alphas, { A, B: i.B[k] }, k);
    expect(decision.hold).toEqual(e.hold);
    expect(decision.halt).toEqual(e.halt && expect.objectContaining(e.halt));
  },
  'site-cap': ({ inputs: i, expected: e }) => {
    close(cappedSiteCount(i.siteCounts, i.cap), e.x);
    expect(cappedSiteCount(i.siteCounts)).toBe(4);
  },
  'e-bh': ({ inputs: i, expected: e }) => expect(eBenjaminiHochberg(i.e, i.level)).toHaveLength(e.k),
};

/** The truncated Beta mixture as the integral of the likelihood ratio over q > q0, with q = sin^2 (midpoint rule). */
const betaMixture = (X: number, Y: number, q0: number, a: number, b: number): number => {
  const from = Math.asin(Math.sqrt(q0));
  const steps = 200_000;
  const width = (Math.PI / 2 - from) / steps;
  let top = 0;
  let bottom = 0;
  for (let n = 0; n < steps; n++) {
    const q = Math.sin(from + (n + 0.5) * width) ** 2;
    const prior = q ** (a - 0.5) * (1 - q) ** (b - 0.5);
    bottom += prior;
    top += prior * Math.exp(X * Math.log(q / q0) + Y * Math.log((1 - q) / (1 - q0)));
  }
  return Math.log(top / bottom);
};

/** Checked in judge.test.ts, through the fold. */
const elsewhere = ['start-mixture', 'fleet-factor', 'combine', 'state-caps'];
test('no kind of vector is left out', () => {
  const kinds = new Set(vectors.map(({ kind }) => kind));
  expect([...kinds].filter((kind) => !(kind in checks) && !elsewhere.includes(kind))).toEqual([]);
});
test.each(vectors.filter(({ kind }) => kind in checks).map((one) => [one.id, one.kind, one] as const))(
  '%s: %s',
  (_, kind, vector) => checks[kind]?.(vector),
);

const onePolicy = (): JudgePolicy => ({
  metrics: [{ id: 'm', trial: 'device-hour', delta: 1e-5 }],
  segments: ['s'],
  leaves: [{ metric: 'm', segment: 's' }],
  bets: { r: [3, 30], weight: [0.5, 0.5] },
  keys: { A: { r0: 1, margin: false, alpha: 0.01 }, B: { r0: 1.5, margin: true, alpha: 0.05 } },
  hold: { alpha: 0.05 },
  cells: [
    { id: 'm/s', kind: 'leaf', metric: 'm', segment: 's', weight: 0.5 },
    {
      id: 'm/s/frozen',
      kind: 'frozen',
      metric: 'm',
      segments: ['s'],
      weight: 0.5,
      r0: 3,
      bets: { r: [5, 1000], weight: [0.5, 0.5] },
      baseline: [{ events: 2, exposure: 1000 }],
      start: [
        { tick: 0, mass: 0.5 },
        { tick: 2, mass: 0.5 },
      ],
    },
  ],
});
const fold = (policy: JudgePolicy, state: JudgeState, tick: number, leaves: TickLeaves, startMass = 0): JudgeState => {
  const next = foldTick(policy, state, { tick, startMass, leaves });
  if ('refused' in next) throw new Error(next.refused);
  return next;
};

const recorded = readdirSync(join(folder, 'series')).map((file) => ({
  file,
  ...JSON.parse(readFileSync(join(folder, 'series', file), 'utf8')),
}));

test.each(recorded.filter(({ policy }) => policy.promote))('series $file promotes as recorded', (series) => {
  const { policy, ticks, expected } = series;
  expect(validatePromote(policy, policy.promote)).toEqual([]);
  const wanted = new Map(expected.promote.ticks.map((one: { tick: number }) => [one.tick, one]));
  let state = initialPromoteState(policy.promote);
  for (const [k, leaves] of ticks.entries()) {
    state = foldPromote(policy, policy.promote, state, { tick: k, leaves });
    const want = wanted.get(k) as Readonly<Record<string, string>> | undefined;
    if (want === undefined) continue;
    wanted.delete(k);
    const values = promoteValues(policy.promote, state.logs);
    for (const [c, id] of policy.promote.cells.entries()) close(values[c] ?? Number.NaN, want[id] ?? Number.NaN);
  }
  expect(wanted.size).toBe(0);
  expect(state.ready).toBe(expected.promote.ready);
});

test.each(recorded.filter(({ expected }) => expected.decision.halt))(
  'series $file: attribution names the cell that leads, and only cells that are concurrent as suspects',
  ({ policy, ticks, expected }) => {
    const mass = new Map<number, number>(
      policy.start.map((one: { tick: number; mass: number }) => [one.tick, one.mass]),
    );
    let state = initialJudgeState(policy);
    for (const [k, leaves] of ticks.slice(0, expected.decision.halt.tick + 1).entries())
      state = fold(policy, state, k, leaves, mass.get(k) ?? 0);
    const found = attribute(policy, state);
    expect(found.latchedBoth).toContain(expected.decision.halt.cell);
    expect(found.leading).toBe(expected.decision.halt.cell);
    expect(found.suspects.filter((id) => id.endsWith('/frozen'))).toEqual([]);
  },
);

const count = fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 20 }), fc.integer({ min: 0, max: 1_000_000_000 }));
const exposure = fc.oneof(fc.constant(0), fc.double({ min: 1e-9, max: 1e13, noNaN: true }));
const leaf = fc
  .tuple(count, count, exposure, exposure)
  .map(([x, y, t, c]): [number, number, number, number] => [t === 0 ? 0 : x, c === 0 ? 0 : y, t, c]);

test('no statistic is negative, NaN or infinite for counts up to 1e9: halt, frozen and promote', () => {
  const policy = onePolicy();
  const promote: PromotePolicy = {
    r1: 3,
    delta1: { m: 1e-3 },
    g: [0.05, 0.5],
    weight: [0.5, 0.5],
    beta: 0.05,
    from: 0,
    cells: ['m/s'],
  };
  fc.assert(
    fc.property(fc.array(leaf, { minLength: 1, maxLength: 20 }), (ticks) => {
      let state = initialJudgeState(policy);
      let safe = initialPromoteState(promote);
      for (const [k, one] of ticks.entries()) {
        const mass = k === 0 ? 0.5 : 0;
        const looked = fold(policy, JSON.parse(JSON.stringify(state)), k, [one], mass);
        state = fold(policy, state, k, [one], mass);
        expect(looked).toEqual(state);
        safe = foldPromote(policy, promote, safe, { tick: k, leaves: [one] });
        // The same tick once more changes nothing.
        expect(foldPromote(policy, promote, safe, { tick: k, leaves: [one] })).toBe(safe);
        expect('refused' in foldTick(policy, state, { tick: k, startMass: 0, leaves: [one] })).toBe(true);
        const values = [...state.statistics.A, ...state.statistics.B, ...promoteValues(promote, safe.logs)];
        for (const value of values) expect(value >= 0 && Number.isFinite(value), String(value)).toBe(true);
        expect(safe.logs.flat().every(Number.isFinite)).toBe(true);
      }
    }),
    { numRuns: 200 },
  );
});

test('order and repeats of the reports inside a tick change nothing', () => {
  const report = fc.record({ site: fc.constantFrom('a', 'b', 'c'), device: fc.constantFrom('1', '2', '3') });
  fc.assert(
    fc.property(fc.array(report, { maxLength: 12 }), fc.nat(), (reports, seed) => {
      const again = [...reports, ...reports]
        .map((one, i) => ({ one, key: ((i + 1) * (seed + 7919)) % 104729 }))
        .sort((a, b) => a.key - b.key)
        .map(({ one }) => one);
      const counted = (list: typeof reports) => cappedSiteCount([...eventsPerSite(list).values()]);
      expect([...eventsPerSite(again)]).toEqual([...eventsPerSite(reports)]);
      const policy = onePolicy();
      const folded = (list: typeof reports) =>
        fold(policy, initialJudgeState(policy), 0, [[counted(list), 0, 10, 90]], 1);
      expect(folded(again)).toEqual(folded(reports));
    }),
  );
});

test('one baseline for one segment is the same pooled or summed, and mixtures are capped', () => {
  const policy = onePolicy();
  const cell = policy.cells[1] as FrozenCell;
  const sums = foldFrozen(cell, [], 0, [[3, 50]]);
  const pooled: FrozenCell = { ...cell, baseline: { events: 2, exposure: 1000 } };
  expect(frozenValue(cell, sums)).toBe(frozenValue(pooled, sums));
  expect(Number.isFinite(mixture({ weight: [1] }, [1e9]))).toBe(true);
});
