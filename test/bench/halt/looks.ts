/** F10: the state after a tick depends on the ticks so far only, not on restarts, on looks, or on what comes later. */
import { attribute } from '../../../domain/judge/attribution.ts';
import { initialJudgeState, type JudgeState } from '../../../domain/judge/fold.ts';
import { folded } from './cells.ts';
import { randomOf } from './random.ts';
import { eventsOf, judgePolicy, planOf, startMassAt, type World } from './world.ts';

/** How many of the compared states differ. */
export const differingStates = (world: World, ticks: number): number => {
  const plan = planOf(world);
  const random = randomOf(world.id, 0);
  const leaves = Array.from({ length: ticks }, (_, tick) => eventsOf(world, plan, tick, random));
  const fold = (until: number, between: (state: JudgeState) => JudgeState): string[] => {
    let state = initialJudgeState(judgePolicy);
    return leaves.slice(0, until).map((tickLeaves, tick) => {
      state = folded(judgePolicy, between(state), { tick, startMass: startMassAt(tick), leaves: tickLeaves });
      return JSON.stringify(state);
    });
  };
  const plain = fold(ticks, (state) => state);
  const restarted = fold(ticks, (state) => JSON.parse(JSON.stringify(state)));
  const lookedAt = fold(ticks, (state) => {
    attribute(judgePolicy, state);
    return state;
  });
  const half = fold(ticks >> 1, (state) => state);
  return [restarted, lookedAt, half].reduce(
    (sum, states) => sum + states.filter((state, tick) => state !== plain[tick]).length,
    0,
  );
};
