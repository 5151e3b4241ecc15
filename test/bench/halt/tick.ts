/** What one tick of a large release costs on one core, beside the bare logarithms and exponentials that it needs. */
import { initialJudgeState, type TickLeaves } from '../../../domain/judge/fold.ts';
import { defaultJudgePolicy } from '../../../domain/judge/policy.ts';
import { median } from '../median.ts';
import { folded } from './cells.ts';
import type { Outcome } from './measure.ts';
import { poisson, randomOf } from './random.ts';
import { metrics, startMassAt } from './world.ts';

const policy = defaultJudgePolicy({
  metrics,
  segments: Array.from({ length: 200 }, (_, s) => `s${s}`),
  ...{ alphaA: 0.01, alphaB: 0.05, alphaHold: 0.05 },
});
const keys = 2;
const bets = policy.bets.r.length;

/** 1000 devices in every segment, a quarter of them updated. */
const leavesOfTick = (tick: number): TickLeaves => {
  const random = randomOf('tick', tick);
  return metrics.flatMap(({ rate, trial }) =>
    Array.from({ length: 200 }, (): TickLeaves[number] => {
      const [treated, control] = trial === 'window' ? [50, 150] : [250 / 60, 750 / 60];
      return [poisson(random, rate * treated), poisson(random, rate * control), treated, control];
    }),
  );
};

const ticks = 200;
const warm = 100;

/** Milliseconds, median over ticks; the first ones, in which the engine still compiles, do not count. */
export const measureTick = (): { readonly ms: number; readonly bareMs: number } => {
  const leaves = Array.from({ length: ticks }, (_, tick) => leavesOfTick(tick));
  let state = initialJudgeState(policy);
  const judge = medianMs((tick) => {
    state = folded(policy, state, { tick, startMass: startMassAt(tick), leaves: leaves[tick] ?? [] });
  });
  let sum = 0;
  const bare = medianMs((tick) => {
    sum += bareCalls(leaves[tick] ?? []);
  });
  if (!Number.isFinite(sum)) throw new Error('the baseline did not compute anything');
  return { ms: judge, bareMs: bare };
};

/** log1p per key and bet where a leaf has events of an arm; exp per bet of every state of key B, whose margin wants it. */
const bareCalls = (leaves: TickLeaves): number => {
  let sum = 0;
  for (const [x, y, treated, control] of leaves) {
    for (let i = 0; i < keys * bets; i++) {
      if (x > 0) sum += Math.log1p(control / (i + 1));
      if (y > 0) sum += Math.log1p(treated / (i + 1));
    }
  }
  for (let i = 0; i < policy.cells.length * bets; i++) sum += Math.exp(-1e-4 * i);
  return sum;
};

const medianMs = (work: (tick: number) => void): number => {
  const times = Array.from({ length: ticks }, (_, tick) => {
    const started = performance.now();
    work(tick);
    return performance.now() - started;
  });
  return median(times.slice(warm));
};

/** Section 15.4: at most 10 ms, and 2 ms as a target. */
export const tickOutcome = (): Outcome => {
  const { ms, bareMs } = measureTick();
  return {
    ...{ gate: 'tick', what: '10 metrics × 200 segments × 8 bets × 2 keys', runs: ticks - warm },
    ...{
      keeps: ms <= 10,
      nearly: ms <= 10,
      onTarget: ms <= 2,
      halt: `${ms.toFixed(2)} ms`,
      hold: `${bareMs.toFixed(2)} ms`,
    },
    ...{ must: '10 ms', target: '2 ms', values: { ms, bareMs, ratio: ms / bareMs } },
  };
};
