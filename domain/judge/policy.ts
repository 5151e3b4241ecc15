/**
 * What the judge needs to know before a release: plain data in the shape of the specification's annex A
 * (`halt-series/1`), so that a recorded series and a live release are folded by the same functions.
 */
export type Bets = { readonly r: readonly number[]; readonly weight: readonly number[] };

export type Key = { readonly r0: number; readonly margin: boolean; readonly alpha: number };

export type JudgeMetric = {
  readonly id: string;
  readonly trial: 'device-hour' | 'window';
  /** Absolute margin of key B, per device-hour or per trial. */
  readonly delta: number;
  readonly bets?: Bets;
};

export type JudgeCell =
  | {
      readonly id: string;
      readonly kind: 'leaf';
      readonly metric: string;
      readonly segment: string;
      readonly weight: number;
    }
  | {
      readonly id: string;
      readonly kind: 'fleet';
      readonly metric: string;
      readonly segments: readonly string[];
      readonly weight: number;
    };

export type JudgePolicy = {
  readonly metrics: readonly JudgeMetric[];
  readonly segments: readonly string[];
  /** The columns of a tick, in this order. */
  readonly leaves: readonly { readonly metric: string; readonly segment: string }[];
  readonly bets: Bets;
  readonly keys: { readonly A: Key; readonly B: Key };
  readonly hold: { readonly alpha: number };
  readonly cells: readonly JudgeCell[];
};

const uniform = (r: readonly number[]): Bets => ({ r, weight: r.map(() => 1 / r.length) });

/** Share of a metric's weight that its fleet-wide cell carries; the rest is split over its leaves (section 14). */
const fleetShare = 0.3;

/**
 * The specification's defaults (section 14) for these metrics and segments. Metric weights are used as given, never
 * rescaled: metrics that are not judged leave their share of the error budget unused.
 */
export const defaultJudgePolicy = (options: {
  readonly metrics: readonly {
    readonly id: string;
    readonly trial: 'device-hour' | 'window';
    readonly weight: number;
    readonly delta: number;
  }[];
  readonly segments: readonly string[];
  readonly alphaA: number;
  readonly alphaB: number;
  readonly alphaHold: number;
}): JudgePolicy => {
  const { metrics, segments } = options;
  return {
    metrics: metrics.map(({ id, trial, delta }) => ({ id, trial, delta })),
    segments,
    leaves: metrics.flatMap(({ id }) => segments.map((segment) => ({ metric: id, segment }))),
    bets: uniform([2.25, 3, 5, 10, 30, 100, 300, 1000]),
    keys: {
      A: { r0: 1, margin: false, alpha: options.alphaA },
      B: { r0: 1.5, margin: true, alpha: options.alphaB },
    },
    hold: { alpha: options.alphaHold },
    cells: metrics.flatMap(({ id, weight }): JudgeCell[] => [
      { id: `${id}/*`, kind: 'fleet', metric: id, segments, weight: weight * fleetShare },
      ...segments.map(
        (segment): JudgeCell => ({
          id: `${id}/${segment}`,
          kind: 'leaf',
          metric: id,
          segment,
          weight: (weight * (1 - fleetShare)) / segments.length,
        }),
      ),
    ]),
  };
};

/**
 * Mass that starts in this tick (section 14): 0.5 at tick 0, 0.05 where one of the first four later stages opens, 0.25
 * spread evenly over the restarts (every 10 ticks) of the plan, and 0.05/(m(m+1)) at the m-th restart, beyond the plan
 * too. `stageOpens`: 0 when no later stage opens in this tick, else its number. `planTicks`: length of the plan.
 * The total never exceeds 1, whatever really happens.
 */
export const startMass = (tick: number, stageOpens: number, planTicks: number): number => {
  if (tick === 0) return 0.5;
  const stage = stageOpens >= 1 && stageOpens <= 4 ? 0.05 : 0;
  if (tick % restartEvery !== 0) return stage;
  const m = tick / restartEvery;
  const restarts = Math.floor(planTicks / restartEvery);
  return stage + (m <= restarts ? 0.25 / restarts : 0) + 0.05 / (m * (m + 1));
};

const restartEvery = 10;

/** Findings of a policy that must not be used (section 13, rule 8); empty when it is sound. Nothing is repaired. */
export const validateJudgePolicy = (policy: JudgePolicy): string[] => {
  const findings: string[] = [];
  const near = (a: number, b: number) => Math.abs(a - b) <= 1e-9;
  const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
  const alphas = { 'key A': policy.keys.A.alpha, 'key B': policy.keys.B.alpha, hold: policy.hold.alpha };
  for (const [name, alpha] of Object.entries(alphas)) {
    if (!(alpha > 0 && alpha < 1)) findings.push(`alpha of ${name} is ${alpha}, expected a number between 0 and 1`);
  }
  const weights = sum(policy.cells.map((cell) => cell.weight));
  if (!(weights <= 1 + 1e-9)) findings.push(`the weights of all cells add up to ${weights}, expected at most 1`);
  for (const cell of policy.cells) {
    if (!(cell.weight > 0)) findings.push(`cell ${cell.id} has weight ${cell.weight}, expected more than 0`);
    for (const segment of cell.kind === 'leaf' ? [cell.segment] : cell.segments) {
      if (!policy.leaves.some((leaf) => leaf.metric === cell.metric && leaf.segment === segment)) {
        findings.push(
          `cell ${cell.id} names metric ${cell.metric} in segment ${segment}, which is no leaf of the policy`,
        );
      }
    }
  }
  if (new Set(policy.cells.map((cell) => cell.id)).size !== policy.cells.length)
    findings.push('two cells have the same id');
  const highestR0 = Math.max(policy.keys.A.r0, policy.keys.B.r0);
  for (const [name, bets] of [
    ['default', policy.bets] as const,
    ...policy.metrics.flatMap((metric) => (metric.bets ? [[metric.id, metric.bets] as const] : [])),
  ]) {
    if (bets.r.length !== bets.weight.length)
      findings.push(`bets ${name}: ${bets.r.length} ratios, ${bets.weight.length} weights`);
    if (!near(sum(bets.weight), 1)) findings.push(`bets ${name}: weights add up to ${sum(bets.weight)}, expected 1`);
    for (const r of bets.r) {
      if (!(r > highestR0))
        findings.push(`bets ${name}: ratio ${r} is not above ${highestR0}, the largest r0 of a key`);
    }
  }
  return findings;
};
