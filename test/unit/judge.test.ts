import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { logFactor, nextState } from '../../domain/judge/factor.ts';
import {
  type foldTick as Fold,
  foldTick,
  initialJudgeState,
  type JudgeState,
  leading,
  type TickLeaves,
} from '../../domain/judge/fold.ts';
import { defaultJudgePolicy, type JudgePolicy, startMass, validateJudgePolicy } from '../../domain/judge/policy.ts';

const folder = join(import.meta.dirname, '../vectors/halt');

type Leaf = readonly [number, number, number, number];
type Vector<I, E> = {
  id: string;
  kind: string;
  inputs: I;
  expected: E;
  tolerance: { relative: string; absolute: string };
};
const vectors: Vector<never, never>[] = JSON.parse(readFileSync(join(folder, 'vectors.json'), 'utf8')).vectors;
/** The vectors of one kind; the type arguments say what the file holds for that kind. */
const ofKind = <I, E>(kind: string): (readonly [string, Vector<I, E>])[] =>
  vectors.filter((vector) => vector.kind === kind).map((vector) => [vector.id, vector] as const);

const close = (got: number, want: string | number, tolerance = { relative: '1e-9', absolute: '1e-9' }) => {
  const target = Number(want);
  const allowed = Math.max(Number(tolerance.absolute), Number(tolerance.relative) * Math.abs(target));
  expect(Math.abs(got - target), `got ${got}, want ${want}`).toBeLessThanOrEqual(allowed);
};
const fraction = (text: string | number): number => {
  const [a, b] = String(text).split('/').map(Number);
  return (a ?? 0) / (b ?? 1);
};
const folded = (result: ReturnType<typeof Fold>): JudgeState => {
  if ('refused' in result) throw new Error(result.refused);
  return result;
};

test.each(
  ofKind<{ x: number; y: number; T: number; C: number; r: number; r0: number; delta: number }, { logE: string }>(
    'factor',
  ),
)('%s: factor', (_, { inputs, expected, tolerance }) => {
  const got = logFactor(inputs.x, inputs.y, inputs.T, inputs.C, inputs.r, inputs.r0, inputs.delta);
  close(got, expected.logE, tolerance);
});

test.each(ofKind<{ S: number; start?: number; logFactors: number[] }, { S: string[] }>('state-caps'))(
  '%s: caps',
  (_, { inputs, expected, tolerance }) => {
    let state: number = inputs.S;
    for (const [k, logE] of inputs.logFactors.entries()) {
      state = nextState(state, Number(inputs.start ?? 0), logE);
      close(state, expected.S[k] ?? 'missing', tolerance);
    }
  },
);

const oneLeaf = (bets: { r: number[]; weight: string[] }, r0: number, delta: number): JudgePolicy => ({
  metrics: [{ id: 'm', trial: 'device-hour', delta }],
  segments: ['s'],
  leaves: [{ metric: 'm', segment: 's' }],
  bets: { r: bets.r, weight: bets.weight.map(fraction) },
  keys: { A: { r0: 1, margin: false, alpha: 0.01 }, B: { r0, margin: true, alpha: 0.05 } },
  hold: { alpha: 0.05 },
  cells: [{ id: 'm/s', kind: 'leaf', metric: 'm', segment: 's', weight: 1 }],
});

test.each(
  ofKind<
    { bets: { r: number[]; weight: string[] }; start: number[]; r0: number; delta: number; ticks: Leaf[] },
    { ticks: { S: string[]; E: string }[] }
  >('start-mixture'),
)('%s: start mixture', (_, { inputs, expected, tolerance }) => {
  const policy = oneLeaf(inputs.bets, inputs.r0, inputs.delta);
  let state = initialJudgeState(policy);
  for (const [k, leaf] of inputs.ticks.entries()) {
    state = folded(foldTick(policy, state, { tick: k, startMass: inputs.start[k] ?? 0, leaves: [leaf] }));
    for (const [j, want] of (expected.ticks[k]?.S ?? []).entries())
      close(state.states.B[0]?.[j] ?? Number.NaN, want, tolerance);
    close(state.statistics.B[0] ?? Number.NaN, expected.ticks[k]?.E ?? 'missing', tolerance);
  }
});

test.each(ofKind<{ segments: Leaf[]; r0: number; r: number; delta: number }, { logE: string }>('fleet-factor'))(
  '%s: the fleet-wide cell sums segments, it never pools counts',
  (_, { inputs, expected }) => {
    const segments = inputs.segments.map((__, i) => `s${i}`);
    const policy: JudgePolicy = {
      ...oneLeaf({ r: [inputs.r], weight: ['1'] }, inputs.r0, inputs.delta),
      segments,
      leaves: segments.map((segment) => ({ metric: 'm', segment })),
      cells: [{ id: 'm/*', kind: 'fleet', metric: 'm', segments, weight: 1 }],
    };
    const state = folded(
      foldTick(policy, initialJudgeState(policy), { tick: 0, startMass: 1, leaves: inputs.segments }),
    );
    close(Math.log(state.states.B[0]?.[0] ?? 0), expected.logE);
  },
);

test.each(
  ofKind<{ weights: number[]; E: number[]; alpha: number }, { max: string; fires: boolean; leading: number }>(
    'combine',
  ),
)('%s: the weighted maximum, not the sum', (_, { inputs, expected }) => {
  const policy: JudgePolicy = {
    ...oneLeaf({ r: [2], weight: ['1'] }, 1.5, 0),
    cells: inputs.weights.map((weight, i) => ({ id: String(i), kind: 'leaf', metric: 'm', segment: 's', weight })),
  };
  const first = leading(
    policy,
    inputs.weights.map((w, i) => w * (inputs.E[i] ?? Number.NaN)),
  );
  close(first.value, expected.max);
  expect(first.cell).toBe(String(expected.leading));
  expect(first.value >= 1 / inputs.alpha).toBe(expected.fires);
});

type Series = {
  policy: JudgePolicy & { start: { tick: number; mass: number }[]; cells: { kind: string }[] };
  ticks: TickLeaves[];
  expected: {
    decision: {
      hold: { tick: number; cell: string } | null;
      halt: { tick: number; cell: string; A: string; B: string } | null;
    };
    latches: { cell: string; A: number | null; B: number | null }[];
    ticks: { tick: number; A: { max: string; leading: string[] }; B: { max: string; leading: string[] } }[];
    cells: { tick: number; A: Record<string, string>; B: Record<string, string> }[];
  };
};

describe.each(readdirSync(join(folder, 'series')))('series %s', (file) => {
  const { policy, ticks, expected }: Series = JSON.parse(readFileSync(join(folder, 'series', file), 'utf8'));
  test('gives the recorded statistics, latches and decision', () => {
    expect(validateJudgePolicy(policy)).toEqual([]);
    const mass = new Map(policy.start.map((start) => [start.tick, start.mass]));
    let state = initialJudgeState(policy);
    ticks.forEach((leaves, k) => {
      state = folded(foldTick(policy, state, { tick: k, startMass: mass.get(k) ?? 0, leaves }));
      const want = expected.ticks.find((tick) => tick.tick === k);
      for (const key of ['A', 'B'] as const) {
        if (want) {
          close(leading(policy, state.statistics[key]).value, want[key].max);
          expect(want[key].leading).toContain(leading(policy, state.statistics[key]).cell);
        }
        const cells = expected.cells.find((tick) => tick.tick === k)?.[key] ?? {};
        for (const [id, value] of Object.entries(cells)) {
          close(state.statistics[key][policy.cells.findIndex((cell) => cell.id === id)] ?? Number.NaN, value);
        }
      }
    });
    expect(state.hold).toEqual(expected.decision.hold);
    if (expected.decision.halt === null) expect(state.halt).toBeNull();
    else {
      expect(state.halt).toMatchObject({ tick: expected.decision.halt.tick, cell: expected.decision.halt.cell });
      close(state.halt?.A ?? 0, expected.decision.halt.A);
      close(state.halt?.B ?? 0, expected.decision.halt.B);
    }
    const latched = policy.cells.flatMap((cell, c) => {
      const latch = state.latches[c] ?? { A: null, B: null };
      return latch.A === null && latch.B === null ? [] : [{ cell: cell.id, ...latch }];
    });
    expect(latched).toEqual(expected.latches);
  });
});

const productPolicy = defaultJudgePolicy({
  metrics: [
    { id: 'crash', trial: 'device-hour', weight: 0.15, delta: 1e-5 },
    { id: 'silence-first', trial: 'window', weight: 0.2, delta: 5e-4 },
  ],
  segments: ['a', 'b'],
  alphaA: 0.01,
  alphaB: 0.05,
  alphaHold: 0.05,
});

test('whatever the counts, every statistic is a nonnegative number, and a state survives JSON', () => {
  const count = fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 20 }), fc.integer({ min: 0, max: 1_000_000_000 }));
  const exposure = fc.oneof(fc.constant(0), fc.double({ min: 1e-9, max: 1e9, noNaN: true }));
  const leaf = fc
    .tuple(count, count, exposure, exposure)
    .map(([x, y, t, c]) => [t === 0 ? 0 : x, c === 0 ? 0 : y, t, c] as const);
  fc.assert(
    fc.property(fc.array(fc.tuple(leaf, leaf, leaf, leaf), { minLength: 1, maxLength: 30 }), (ticks) => {
      let state = initialJudgeState(productPolicy);
      for (const [tick, leaves] of ticks.entries()) {
        const mass = startMass(tick, tick === 3 ? 1 : 0, 60);
        const next = folded(foldTick(productPolicy, state, { tick, startMass: mass, leaves }));
        const again = folded(
          foldTick(productPolicy, JSON.parse(JSON.stringify(state)), { tick, startMass: mass, leaves }),
        );
        expect(again).toEqual(next);
        state = next;
        for (const value of [...state.statistics.A, ...state.statistics.B])
          expect(value >= 0 && Number.isFinite(value)).toBe(true);
      }
    }),
    { numRuns: 200 },
  );
});

test('start masses never add up to more than 1, even when every stage opens and the release goes on far beyond its plan', () => {
  for (const plan of [10, 60, 420]) {
    let total = 0;
    for (let tick = 0; tick < 20_000; tick++) total += startMass(tick, tick > 0 && tick <= 6 ? tick : 0, plan);
    expect(total).toBeLessThanOrEqual(1 + 1e-9);
    expect(total).toBeGreaterThan(0.99);
  }
});

const quiet: TickLeaves = productPolicy.leaves.map(() => [0, 0, 1, 100]);
test.each([
  ['a tick out of order', { tick: 1, startMass: 0.5, leaves: quiet }, /tick 1 came, expected tick 0/],
  [
    'treated events without exposure',
    { tick: 0, startMass: 0.5, leaves: [[1, 0, 0, 9], ...quiet.slice(1)] as TickLeaves },
    /crash in a: 1 treated events without/,
  ],
  [
    'a fraction of an event',
    { tick: 0, startMass: 0.5, leaves: [[0.5, 0, 1, 9], ...quiet.slice(1)] as TickLeaves },
    /whole numbers/,
  ],
  [
    'an infinite exposure',
    { tick: 0, startMass: 0.5, leaves: [[0, 0, Infinity, 9], ...quiet.slice(1)] as TickLeaves },
    /finite/,
  ],
  ['more start mass than there is', { tick: 0, startMass: 1.5, leaves: quiet }, /may not exceed 1/],
])('%s is refused', (_, tick, message) => {
  const result = foldTick(productPolicy, initialJudgeState(productPolicy), tick);
  expect('refused' in result ? result.refused : '').toMatch(message);
});

test('a wrong policy is refused with every finding, not repaired', () => {
  const wrong: JudgePolicy = {
    ...productPolicy,
    bets: { r: [1.2], weight: [0.5] },
    hold: { alpha: 0 },
    cells: [{ id: 'x', kind: 'leaf', metric: 'crash', segment: 'nowhere', weight: 2 }],
  };
  expect(validateJudgePolicy(wrong).join('\n')).toMatch(
    /alpha of hold.*weights of all cells.*nowhere.*weights add up to 0.5.*1.2, expected above/s,
  );
});
