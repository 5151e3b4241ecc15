/** Scenarios of one cell: frailty (F7), frozen baseline (F8, D16), promotion (F9) (halt specification, sections 15.2, 15.3). */
import { foldTick, initialJudgeState, type JudgeState } from '../../../domain/judge/fold.ts';
import { foldFrozen, frozenValue } from '../../../domain/judge/frozen.ts';
import { type Bets, defaultJudgePolicy, type FrozenCell, type JudgePolicy } from '../../../domain/judge/policy.ts';
import { foldPromote, initialPromoteState } from '../../../domain/judge/promote.ts';
import { exponential, gammaOfMean1, poisson, type Random } from './random.ts';
import { treatedShare } from './world.ts';

/** Place of the first tick, event or look at which it was decided; null when it never was. */
export type CellScenario = (random: Random) => number | null;

const [metric, segment, cellId] = ['crash', 'all', 'crash/all'];

/** The default bets and keys, one metric, one segment, no cell yet. */
const bare: JudgePolicy = {
  ...defaultJudgePolicy({
    metrics: [{ id: metric, trial: 'device-hour', weight: 1, delta: 0 }],
    segments: [segment],
    ...{ alphaA: 0.01, alphaB: 0.05, alphaHold: 0.05 },
  }),
  cells: [],
};
const leafPolicy: JudgePolicy = { ...bare, cells: [{ id: cellId, kind: 'leaf', metric, segment, weight: 1 }] };

export const folded = (policy: JudgePolicy, state: JudgeState, tick: Parameters<typeof foldTick>[2]): JudgeState => {
  const next = foldTick(policy, state, tick);
  if ('refused' in next) throw new Error(next.refused);
  return next;
};

// ---- F7

const fleet = 20_000;
const hours = 7;

/** Chronic devices: hazards of Gamma(shape, mean 1) times 2e-3 per hour, one factor per event, one event per device. */
export const frailty =
  (shape: number): CellScenario =>
  (random) => {
    // The hazards are drawn independently, so the place of a device is a random rank of the rollout.
    const events: { readonly at: number; readonly rank: number }[] = [];
    for (let rank = 0; rank < fleet; rank++) {
      const at = exponential(random, 2e-3 * gammaOfMean1(random, shape));
      if (at < hours) events.push({ at, rank });
    }
    events.sort((a, b) => a.at - b.at);
    let state = initialJudgeState(leafPolicy);
    for (const [tick, { at, rank }] of events.entries()) {
      const updated = Math.floor(treatedShare(Math.floor(at * 60)) * fleet);
      const gone = events.slice(0, tick).filter((before) => before.rank < updated).length;
      const treated = updated - gone;
      const control = fleet - tick - treated;
      const isTreated = rank < updated;
      // No start mixture: all the mass starts with the first event.
      state = folded(leafPolicy, state, {
        tick,
        startMass: tick === 0 ? 1 : 0,
        leaves: [[isTreated ? 1 : 0, isTreated ? 0 : 1, treated, control]],
      });
      if (state.latches[0]?.A != null) return tick;
    }
    return null;
  };

// ---- F8

/** A baseline of `expected` events on average in exposure 1, then events at 1.5 times its rate, which is r0. */
export const frozenBaseline =
  (expected: number): CellScenario =>
  (random) => {
    const cell: FrozenCell = {
      ...{ id: cellId, kind: 'frozen', metric, segments: [segment], weight: 1, r0: 1.5, bets: bare.bets },
      baseline: { events: poisson(random, expected), exposure: 1 },
      start: [{ tick: 0, mass: 1 }],
    };
    const end = expected >= 20 ? 50 : 200;
    let sums: ReturnType<typeof foldFrozen> = [];
    let exposed = 0;
    for (let event = 0; ; event++) {
      const gap = exponential(random, 1.5 * expected);
      exposed += gap;
      if (exposed > end) return null;
      sums = foldFrozen(cell, sums, event, [[1, gap]]);
      if (frozenValue(cell, sums) >= 100) return event;
    }
  };

// ---- F9

export type PromoteRow = {
  readonly baseline: number;
  readonly r1: number;
  readonly delta1: number;
  /** Control exposure per treated exposure. */
  readonly ratio: number;
  /** Treated exposure until 1/beta when nothing changed (section 16.3). */
  readonly expected: number;
};

const looks = 400;

/** The treated rate is the one that promotion must exclude. */
export const promoteAtBoundary = ({ baseline, r1, delta1, ratio, expected }: PromoteRow): CellScenario => {
  const promote = {
    ...{ r1, delta1: { [metric]: delta1 }, g: [0.05, 0.2, 0.5], weight: [1 / 3, 1 / 3, 1 / 3] },
    ...{ beta: 0.05, from: 0, cells: [cellId] },
  };
  const treated = (8 * expected) / looks;
  const control = ratio * treated;
  return (random) => {
    let state = initialPromoteState(promote);
    for (let tick = 0; tick < looks; tick++) {
      const x = poisson(random, (r1 * baseline + delta1) * treated);
      const y = poisson(random, baseline * control);
      state = foldPromote(leafPolicy, promote, state, { tick, leaves: [[x, y, treated, control]] });
      if (state.ready !== null) return state.ready;
    }
    return null;
  };
};

// ---- D16

const frozenBets: Bets = { r: [5, 10, 30, 100, 300, 1000], weight: [5, 10, 30, 100, 300, 1000].map(() => 1 / 6) };
const restarts = Array.from({ length: 35 }, (_, m) => ({ tick: 10 * (m + 1), mass: 0.5 / 35 }));
export const frozenOnset = 60;

/** Everything is treated, nothing is held back; crashes are `ratio` times as many from tick 60. `share`: of the metrics' weight. */
export const withoutHoldback =
  (devices: number, share: number, ratio: number): CellScenario =>
  (random) => {
    const rate = 1e-4;
    const cell: FrozenCell = {
      ...{ id: cellId, kind: 'frozen', metric, segments: [segment], weight: 0.25 * share, r0: 3, bets: frozenBets },
      baseline: { events: poisson(random, rate * devices * 24), exposure: devices * 24 },
      start: [{ tick: 0, mass: 0.5 }, ...restarts],
    };
    const policy: JudgePolicy = { ...bare, cells: [cell] };
    const treated = devices / 60;
    let state = initialJudgeState(policy);
    for (let tick = 0; tick < 360; tick++) {
      const x = poisson(random, rate * treated * (tick < frozenOnset ? 1 : ratio));
      state = folded(policy, state, { tick, startMass: 0, leaves: [[x, 0, treated, 0]] });
      if (state.halt !== null) return state.halt.tick;
    }
    return null;
  };
