/**
 * The judge of a release under way: what a rollout policy makes of the specification's defaults, and one tick of it. The
 * session folds with it, and who explains or recomputes folds the same again.
 */
import { metrics, type RolloutPolicy } from '../policy.ts';
import type { SegmentKey } from '../release.ts';
import { foldTick, initialJudgeState, type JudgeState, type TickLeaves, type WindowRefusal } from './fold.ts';
import { withFrozenCells } from './no-control.ts';
import { defaultJudgePolicy, type JudgePolicy, type PromotePolicy, startMass, validateJudgePolicy } from './policy.ts';
import { validatePromote } from './promote.ts';

/** Plain data. */
export type LiveJudge = {
  readonly policy: JudgePolicy;
  readonly promote: PromotePolicy;
  /** Length of the plan. */
  readonly planTicks: number;
  /** The stage that leaves no control, and its length; null: the plan has none. */
  readonly noControl: { readonly stage: number; readonly ticks: number } | null;
};

/** What the judge works by, for a release under this rollout policy with these segments. */
export const liveJudge = (policy: RolloutPolicy, segments: readonly SegmentKey[]): LiveJudge => {
  const ticks = (ms: number) => Math.ceil(ms / policy.tickMs);
  const everybody = policy.stages.findIndex(({ kind }) => kind === 'all');
  return {
    policy: defaultJudgePolicy({
      metrics: metrics.map((metric) => ({ ...metric, delta: deltaOf(metric) })),
      segments: [...segments].sort(),
      ...policy.judge,
    }),
    promote: promotePolicyFor(policy),
    planTicks: ticks(policy.stages.reduce((sum, stage) => sum + stage.minMs, 0)),
    noControl: everybody < 0 ? null : { stage: everybody, ticks: ticks(policy.stages[everybody]?.minMs ?? 0) },
  };
};

/** Findings of a judge that must not be used; empty when it is sound. */
export const validateLiveJudge = ({ policy, promote }: LiveJudge): string[] =>
  policy.segments.length === 0
    ? ['there is no segment']
    : [...validateJudgePolicy(policy), ...validatePromote(policy, promote)];

/**
 * One tick. `state` null: the first one. `opens`: number of the stage that opens in this tick, 0 when none does. The judge
 * that comes back has other cells from the tick on in which the controls end.
 */
export const foldLiveTick = (
  live: LiveJudge,
  state: JudgeState | null,
  { tick, opens, leaves }: { readonly tick: number; readonly opens: number; readonly leaves: TickLeaves },
): { readonly live: LiveJudge; readonly state: JudgeState } | WindowRefusal => {
  const before = state ?? initialJudgeState(live.policy);
  const { noControl, planTicks } = live;
  const ends = noControl !== null && opens > 0 && opens >= noControl.stage;
  const now = ends
    ? withFrozenCells(live.policy, before, { tick, ticks: noControl.ticks, weights: weightOf })
    : { policy: live.policy, state: before };
  const next = foldTick(now.policy, now.state, { tick, startMass: startMass(tick, opens, planTicks), leaves });
  return 'refused' in next ? next : { live: ends ? { ...live, policy: now.policy } : live, state: next };
};

const weightOf: ReadonlyMap<string, number> = new Map(metrics.map(({ id, weight }) => [id, weight]));

/** Margin of key B per metric (halt-judge, section 14). */
const deltaOf = (metric: (typeof metrics)[number]): number => {
  if (metric.trial === 'device-hour') return 1e-5;
  return metric.id === 'silence-first' ? 5e-4 : 1e-4;
};

/**
 * The critical metrics (halt-judge, section 14), as far as this product judges them. Of the first silence a device has one
 * trial in a release: no stage of a small fleet could ever show enough of them, and their being closed is a rule of its own.
 */
const critical: readonly (typeof metrics)[number]['id'][] = [
  ...(['silence-later', 'crash', 'load-failure', 'blocked-traffic'] as const),
];

/**
 * When a stage has shown enough (section 14): fleet-wide, no critical metric is at three times the control rate and 1e-3 per
 * device-hour more; for silence 1e-2 per hour of a trial's length.
 */
const promotePolicyFor = ({ firstSilenceMs, silenceMs }: RolloutPolicy): PromotePolicy => ({
  r1: 3,
  // Of every metric: the cell that holds a release has to show it too.
  delta1: {
    ...Object.fromEntries(metrics.map(({ id }) => [id, 1e-3])),
    'silence-first': (1e-2 * firstSilenceMs) / 3_600_000,
    'silence-later': (1e-2 * silenceMs) / 3_600_000,
  },
  g: [0.05, 0.2, 0.5],
  weight: [1 / 3, 1 / 3, 1 / 3],
  beta: 0.05,
  from: 0,
  cells: critical.map((id) => `${id}/*`),
});
