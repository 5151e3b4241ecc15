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
    }
  | FrozenCell;

/** Events in an exposure before the update. */
export type Baseline = { readonly events: number; readonly exposure: number };

/** A cell against a baseline that is not concurrent (section 10): one value for both keys, bets and starts of its own. */
export type FrozenCell = {
  readonly id: string;
  readonly kind: 'frozen';
  readonly metric: string;
  readonly segments: readonly string[];
  readonly weight: number;
  readonly r0: number;
  readonly bets: Bets;
  /**
   * One for all segments pools them: only while treated and baseline exposure have the same ratio in each. One per segment,
   * in their order, sums their logs.
   */
  readonly baseline: Baseline | readonly Baseline[];
  readonly start: readonly { readonly tick: number; readonly mass: number }[];
};

/** When a stage may be left (section 9): the treated rate is excluded to be r1 * control rate + delta1 or more. */
export type PromotePolicy = {
  readonly r1: number;
  /** Per metric, per unit of exposure. */
  readonly delta1: Readonly<Record<string, number>>;
  readonly g: readonly number[];
  readonly weight: readonly number[];
  readonly beta: number;
  /** First tick of the evidence, inclusive. */
  readonly from: number;
  /** Ids of the critical cells. */
  readonly cells: readonly string[];
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
export const fleetShare = 0.3;

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

export const segmentsOf = (cell: JudgeCell): readonly string[] =>
  cell.kind === 'leaf' ? [cell.segment] : cell.segments;

/** null: the cell is of the whole fleet. */
export const segmentOf = (cell: JudgeCell): string | null => {
  if (cell.kind === 'leaf') return cell.segment;
  return cell.kind === 'frozen' && 'events' in cell.baseline && cell.segments.length === 1
    ? (cell.segments[0] ?? null)
    : null;
};

/** Findings of a policy that must not be used (section 13, rule 8); empty when it is sound. Nothing is repaired. */
export const validateJudgePolicy = (policy: JudgePolicy): string[] => {
  const findings: string[] = [];
  const alphas = { 'key A': policy.keys.A.alpha, 'key B': policy.keys.B.alpha, hold: policy.hold.alpha };
  for (const [name, alpha] of Object.entries(alphas)) {
    if (!(alpha > 0 && alpha < 1)) findings.push(`alpha of ${name} is ${alpha}, expected a number between 0 and 1`);
  }
  const weights = sum(policy.cells.map((cell) => cell.weight));
  if (!(weights <= 1 + 1e-9)) findings.push(`the weights of all cells add up to ${weights}, expected at most 1`);
  for (const cell of policy.cells) {
    if (!(cell.weight > 0)) findings.push(`cell ${cell.id} has weight ${cell.weight}, expected more than 0`);
    for (const segment of segmentsOf(cell)) {
      if (!policy.leaves.some((leaf) => leaf.metric === cell.metric && leaf.segment === segment)) {
        findings.push(
          `cell ${cell.id} names metric ${cell.metric} in segment ${segment}, which is no leaf of the policy`,
        );
      }
    }
  }
  if (new Set(policy.cells.map((cell) => cell.id)).size !== policy.cells.length)
    findings.push('two cells have the same id');
  const frozen = policy.cells.filter((cell): cell is FrozenCell => cell.kind === 'frozen');
  for (const cell of frozen) findings.push(...frozenFindings(cell));
  const highestR0 = Math.max(policy.keys.A.r0, policy.keys.B.r0);
  for (const [name, bets, r0] of [
    ['default', policy.bets, highestR0] as const,
    ...policy.metrics.flatMap((metric) => (metric.bets ? [[metric.id, metric.bets, highestR0] as const] : [])),
    ...frozen.map((cell) => [cell.id, cell.bets, cell.r0] as const),
  ]) {
    const expected = `above ${r0}, the largest r0 it is tested against`;
    findings.push(...betFindings(name, bets.r, bets.weight, (r) => r > r0, expected));
  }
  return findings;
};

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

/** Findings of a mixture: one weight per ratio, 1 in all, and every ratio as `isSound` says (in words: `expected`). */
export const betFindings = (
  name: string,
  ratios: readonly number[],
  weights: readonly number[],
  isSound: (ratio: number) => boolean,
  expected: string,
): string[] => {
  const findings: string[] = [];
  if (ratios.length !== weights.length)
    findings.push(`bets ${name}: ${ratios.length} ratios, ${weights.length} weights`);
  if (!(Math.abs(sum(weights) - 1) <= 1e-9))
    findings.push(`bets ${name}: weights add up to ${sum(weights)}, expected 1`);
  for (const ratio of ratios) {
    if (!isSound(ratio)) findings.push(`bets ${name}: ratio ${ratio}, expected ${expected}`);
  }
  return findings;
};

const frozenFindings = (cell: FrozenCell): string[] => {
  const findings: string[] = [];
  const baselines = 'events' in cell.baseline ? [cell.baseline] : cell.baseline;
  if (!('events' in cell.baseline) && baselines.length !== cell.segments.length)
    findings.push(`cell ${cell.id}: ${baselines.length} baselines for ${cell.segments.length} segments`);
  for (const { events, exposure } of baselines) {
    if (!(Number.isSafeInteger(events) && events >= 0 && Number.isFinite(exposure) && exposure > 0))
      findings.push(
        `cell ${cell.id}: baseline of ${events} events in ${exposure}, expected whole events and exposure above 0`,
      );
  }
  const mass = sum(cell.start.map((start) => start.mass));
  if (!(mass <= 1 + 1e-9) || !cell.start.every((start) => start.mass >= 0))
    findings.push(`cell ${cell.id}: start masses add up to ${mass}, expected numbers from 0, at most 1 in all`);
  if (new Set(cell.start.map((start) => start.tick)).size !== cell.start.length)
    findings.push(`cell ${cell.id}: two starts in the same tick`);
  if (!(cell.r0 > 0)) findings.push(`cell ${cell.id}: r0 is ${cell.r0}, expected more than 0`);
  return findings;
};
