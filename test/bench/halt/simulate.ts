/** One run of one scenario, folded by the product's judge. Everything here is a function of its name and number. */
import { initialJudgeState } from '../../../domain/judge/fold.ts';
import { type CellScenario, folded, frailty, frozenBaseline, promoteAtBoundary, withoutHoldback } from './cells.ts';
import { randomOf } from './random.ts';
import {
  affectedSegments,
  eventsOf,
  judgePolicy,
  metrics,
  planOf,
  segmentSizes,
  startMassAt,
  ticks,
  type World,
  type WorldPlan,
} from './world.ts';
import { frailtyShapes, frozenCounts, frozenFaults, promoteRowName, promoteRows, worlds } from './worlds.ts';

/** Ticks from 0; null when it never happened. */
export type Run = {
  readonly hold: number | null;
  readonly halt: number | null;
  /** Trials of silence-first that had failed in the affected segments by the HALT. */
  readonly dead: number;
};

type Scenario = (run: number) => Run;

const ofCell = (id: string, decided: CellScenario): [string, () => Scenario] => [
  id,
  () => (run) => ({ halt: decided(randomOf(id, run)), hold: null, dead: 0 }),
];

/** By name; made once per thread, then asked for every run. */
const scenarios = new Map<string, () => Scenario>([
  ...worlds.map((world): [string, () => Scenario] => [world.id, () => worldScenario(world)]),
  ...frailtyShapes.map((shape) => ofCell(`F7 ${shape}`, frailty(shape))),
  ...frozenCounts.map((expected) => ofCell(`F8 ${expected}`, frozenBaseline(expected))),
  ...promoteRows.map((row) => ofCell(`F9 ${promoteRowName(row)}`, promoteAtBoundary(row))),
  ...frozenFaults.map((fault) => ofCell(`D16 ${fault.name}`, withoutHoldback(fault.devices, fault.share, fault.ratio))),
]);
const made = new Map<string, Scenario>();

export const simulate = (scenario: string, first: number, count: number): readonly Run[] => {
  const run = made.get(scenario) ?? scenarios.get(scenario)?.();
  if (run === undefined) throw new Error(`there is no scenario "${scenario}"`);
  made.set(scenario, run);
  return Array.from({ length: count }, (_, i) => run(first + i));
};

const worldScenario = (world: World): Scenario => {
  const plan = planOf(world);
  const affected = new Set(affectedSegments(world));
  return (run) => runWorld(world, plan, affected, run);
};

const silenceFirst = metrics.findIndex(({ id }) => id === 'silence-first') * segmentSizes.length;

/** Folds until HALT, which no HOLD comes after (its threshold is lower), or to the end. */
const runWorld = (world: World, plan: WorldPlan, affected: ReadonlySet<number>, run: number): Run => {
  const random = randomOf(world.id, run);
  let state = initialJudgeState(judgePolicy);
  for (let tick = 0; tick < ticks && state.halt === null; tick++) {
    state = folded(judgePolicy, state, {
      tick,
      startMass: startMassAt(tick),
      leaves: eventsOf(world, plan, tick, random),
    });
  }
  const dead = [...affected].reduce((sum, segment) => sum + (state.totals[silenceFirst + segment]?.[0] ?? 0), 0);
  return { hold: state.hold?.tick ?? null, halt: state.halt?.tick ?? null, dead };
};
