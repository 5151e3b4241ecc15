/** The world of the halt specification, section 15.1: an assumed fleet, its rollout, and the events of every tick. */
import type { TickLeaves } from '../../../domain/judge/fold.ts';
import { defaultJudgePolicy, type JudgePolicy, startMass } from '../../../domain/judge/policy.ts';
import { binomial, geometric, poissonFrom, type Random } from './random.ts';

export const ticks = 420;
const devices = 200_000;
const shares = [
  0.18, 0.14, 0.12, 0.1, 0.08, 0.07, 0.06, 0.05, 0.04, 0.03, 0.025, 0.02, 0.02, 0.015, 0.015, 0.01, 0.01, 0.005, 0.005,
  0.005,
];
/** Devices of every segment. */
export const segmentSizes: readonly number[] = shares.map((share) => Math.round(share * devices));
/** "The 2 % segment" and "the 0.5 % segment". */
export const twoPercent = 11;
export const halfPercent = 19;

const silencePerTrial = (0.02 * 5) / 60;

/** In the order of the specification; weights and margins are those of its section 14. */
export const metrics = [
  { id: 'crash', trial: 'device-hour', rate: 1e-4, weight: 0.15, delta: 1e-5 },
  { id: 'load-failure', trial: 'device-hour', rate: 2e-5, weight: 0.15, delta: 1e-5 },
  { id: 'blocked', trial: 'device-hour', rate: 5e-5, weight: 0.1, delta: 1e-5 },
  { id: 'proxy-down', trial: 'device-hour', rate: 2e-4, weight: 0.1, delta: 1e-5 },
  { id: 'scan-error', trial: 'device-hour', rate: 1e-3, weight: 0.05, delta: 1e-5 },
  { id: 'false-positive', trial: 'device-hour', rate: 1e-5, weight: 0.05, delta: 1e-5 },
  { id: 'licence', trial: 'device-hour', rate: 5e-5, weight: 0.05, delta: 1e-5 },
  { id: 'update-failure', trial: 'device-hour', rate: 2e-4, weight: 0.05, delta: 1e-5 },
  { id: 'silence-first', trial: 'window', rate: silencePerTrial, weight: 0.2, delta: 5e-4 },
  { id: 'silence-later', trial: 'window', rate: silencePerTrial, weight: 0.1, delta: 1e-4 },
] as const;
export type MetricId = (typeof metrics)[number]['id'];

export const judgePolicy: JudgePolicy = defaultJudgePolicy({
  metrics,
  segments: shares.map((_, s) => `s${String(s).padStart(2, '0')}`),
  ...{ alphaA: 0.01, alphaB: 0.05, alphaHold: 0.05 },
});

const stageStarts = [0, 60, 120, 180, 300];
const stageShares = [0.001, 0.01, 0.05, 0.25, 0.98];

export const startMassAt = (tick: number): number => startMass(tick, Math.max(0, stageStarts.indexOf(tick)), ticks);

/** f(k); `last`: share of the last stage. Ramps take 20 minutes. */
export const treatedShare = (tick: number, last = 0.98): number => {
  const targets = stageShares.with(-1, last);
  const stage = stageStarts.findLastIndex((start) => start <= tick);
  const before = targets[stage - 1] ?? 0;
  const start = stageStarts[stage] ?? 0;
  return before + ((targets[stage] ?? 0) - before) * Math.min(1, (tick - start + 1) / 20);
};

export type World = {
  readonly id: string;
  /** The effect on treated devices begins here. */
  readonly onset: number;
  /** Ratio of the treated rate of a metric in a segment, from the onset. */
  readonly effect: (metric: MetricId, segment: number) => number;
  /** Share of the updated devices of a segment that fall silent at once. */
  readonly brick: (segment: number) => number;
  /** What moves both arms alike. */
  readonly common: (tick: number, metric: MetricId) => number;
  readonly outages: 'none' | 'by device' | 'by site' | 'by site, counted once';
  /** Canary of at least 8 devices of every segment. */
  readonly stratified: boolean;
  /** Ticks until a device without heartbeat counts as silent. */
  readonly deadline: number;
  readonly lastShare: number;
};

/** N1: nothing happens. The other worlds say how they differ. */
export const worldOf = (id: string, differences: Partial<World> = {}): World => ({
  id,
  onset: 0,
  effect: () => 1,
  brick: () => 0,
  common: () => 1,
  outages: 'none',
  stratified: false,
  deadline: 10,
  lastShare: 0.98,
  ...differences,
});

/** U_s(k): updated devices of a segment; the ramp is open loop. */
export const updatedDevices = (world: World, segment: number, tick: number): number => {
  if (tick < 0) return 0;
  const size = segmentSizes[segment] ?? 0;
  const updated = Math.floor(size * treatedShare(tick, world.lastShare) + 1e-9);
  if (!world.stratified) return updated;
  return Math.max(updated, Math.floor(Math.min(8 * Math.min(1, (tick + 1) / 20), size)));
};

/** Segments in which treated devices fare worse. */
export const affectedSegments = (world: World): readonly number[] =>
  segmentSizes.flatMap((_, s) =>
    world.brick(s) > 0 || metrics.some(({ id }) => world.effect(id, s) !== 1) ? [s] : [],
  );

/** What a run does not change of one leaf in one tick: exposures, means, and exp(-mean), which is costly. */
type LeafPlan = {
  readonly treated: number;
  readonly control: number;
  readonly treatedMean: number;
  readonly controlMean: number;
  readonly noneTreated: number;
  readonly noneControl: number;
  /** Above 0: each of the treated trials fails with this probability, instead of the mean. */
  readonly failing: number;
};

/** Leaves of every tick, in the order of the judge's policy. */
export type WorldPlan = readonly (readonly LeafPlan[])[];

export const planOf = (world: World): WorldPlan =>
  Array.from({ length: ticks }, (_, tick) =>
    metrics.flatMap((metric) => segmentSizes.map((_, segment) => leafPlan(world, tick, metric, segment))),
  );

const leafPlan = (world: World, tick: number, metric: (typeof metrics)[number], segment: number): LeafPlan => {
  const { treated, control } = exposureOf(world, tick, metric.id, segment);
  const rate = metric.rate * world.common(tick, metric.id);
  const effect = tick >= world.onset ? world.effect(metric.id, segment) : 1;
  const treatedMean = rate * effect * treated;
  const controlMean = rate * control;
  const brick = metric.id === 'silence-first' ? world.brick(segment) : 0;
  return {
    ...{ treated, control, treatedMean, controlMean },
    noneTreated: Math.exp(-treatedMean),
    noneControl: Math.exp(-controlMean),
    failing: brick > 0 ? Math.min(1, brick + rate) : 0,
  };
};

/** T and C (the table of section 15.1). */
const exposureOf = (
  world: World,
  tick: number,
  metric: MetricId,
  segment: number,
): { readonly treated: number; readonly control: number } => {
  const updated = (at: number) => updatedDevices(world, segment, at);
  const controls = (segmentSizes[segment] ?? 0) - updated(tick);
  const due = tick - world.deadline;
  if (metric === 'silence-first') return { treated: updated(due) - updated(due - 1), control: controls / 5 };
  if (metric === 'silence-later') return { treated: updated(due) / 5, control: controls / 5 };
  return { treated: updated(tick) / 60, control: controls / 60 };
};

/** Draws the events of one tick. */
export const eventsOf = (world: World, plan: WorldPlan, tick: number, random: Random): TickLeaves => {
  const planned = plan[tick] ?? [];
  const leaves = planned.map((leaf): [number, number, number, number] => [
    leaf.failing > 0
      ? binomial(random, leaf.treated, leaf.failing)
      : poissonFrom(random, leaf.treatedMean, leaf.noneTreated),
    poissonFrom(random, leaf.controlMean, leaf.noneControl),
    leaf.treated,
    leaf.control,
  ]);
  if (world.outages !== 'none') addOutages(world.outages, leaves, random);
  return leaves;
};

const outageMetrics = [3, 9];
const meanOutage = 12;

/** Whole sites lose their network: in both arms, by the share of each (N3), or in one arm as a whole (N4, N4d). */
const addOutages = (
  kind: World['outages'],
  leaves: readonly [number, number, number, number][],
  random: Random,
): void => {
  segmentSizes.forEach((size, segment) => {
    const mean = (size * 0.01) / 60 / 12;
    const outages = poissonFrom(random, mean, Math.exp(-mean));
    for (let i = 0; i < outages; i++) {
      const hit = kind === 'by site, counted once' ? 1 : Math.min(geometric(random, meanOutage), 60);
      const arm = random();
      for (const metric of outageMetrics) {
        const leaf = leaves[metric * segmentSizes.length + segment];
        if (leaf === undefined) continue;
        const share = leaf[2] / (leaf[2] + leaf[3]);
        const wholeSite = arm < share ? hit : 0;
        const treated = kind === 'by device' ? binomial(random, hit, share) : wholeSite;
        leaf[0] += treated;
        leaf[1] += hit - treated;
      }
    }
  });
};
