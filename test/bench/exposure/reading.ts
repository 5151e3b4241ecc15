/** One run of a fault, read from what the judge recorded: exposure when it decided, and the bound in the same exposure. */
import type { TickEvidence } from '../../../domain/judge/session.ts';
import type { MetricId } from '../../../domain/policy.ts';
import type { SegmentKey } from '../../../domain/release.ts';
import { boundTick, type Null, natsOf, poissonInformation, sumUpTo, trialInformation } from '../halt/bound.ts';

export type Effect = {
  readonly metric: MetricId;
  /** Segments whose treated devices fare worse. */
  readonly segments: readonly SegmentKey[];
  /** Per unit of exposure: device-hours of the machine's clock, or trials. */
  readonly control: number;
  readonly treated: number;
};

export type Exposure = {
  /** Device-hours of the scaled clock (a tick is a minute) of served devices in the affected segments. */
  readonly deviceHours: number;
  /** Devices of the affected segments that were served. */
  readonly devices: number;
  /** Of these, what the metric had counted. */
  readonly harmed: number;
};

export type Reading = {
  readonly bound: number;
  /** The bound that counts the search over the cells. */
  readonly searched: number;
  readonly hold: Exposure | null;
  /** When the first frozen document was on disk: nobody newly takes the release after that. */
  readonly frozen: Exposure | null;
  readonly halt: Exposure | null;
};

const alpha = 0.01;
const ticksPerHour = 60;

/** `ticks`: of one release, without a gap. `hold`, `halt`: the ticks of the decisions; `frozen`: ticks (fractional) from the start. */
export const readRun = (
  ticks: readonly TickEvidence[],
  effect: Effect,
  policy: Null,
  decisions: {
    readonly cells: number;
    readonly hold: number | null;
    readonly frozen: number | null;
    readonly halt: number | null;
  },
): Reading => {
  const { metric, segments } = effect;
  const over = (of: (segment: SegmentKey, tick: TickEvidence) => number): number[] =>
    ticks.map((tick) => segments.reduce((sum, segment) => sum + of(segment, tick), 0));
  const nats = over((segment, tick) => {
    const [, , treated, control] = tick.leaves[segment]?.[metric] ?? [0, 0, 0, 0];
    return metric === 'silence-first'
      ? trialInformation(treated, effect.treated, effect.control, policy)
      : poissonInformation(effect, { treated, control }, policy);
  });
  const served = over((segment, { counts }) => counts[segment]?.offered ?? 0);
  const hours = served.map((devices) => devices / ticksPerHour);
  const harmed = over((segment, tick) => tick.leaves[segment]?.[metric]?.[0] ?? 0);
  /** Up to a moment in ticks from the start. */
  const exposureAt = (moment: number): Exposure => ({
    deviceHours: sumUpTo(hours, moment),
    devices: served[Math.ceil(moment) - 1] ?? 0,
    harmed: sumUpTo(harmed, Math.floor(moment)),
  });
  const hoursFor = (wanted: number): number => {
    const tick = boundTick(nats, wanted);
    if (tick !== null) return sumUpTo(hours, tick);
    // Decided before: what was still needed would have come at the rate of the exposure in which it was decided.
    const recent = Math.min(ticks.length, ratedOver);
    const rate = sumOf(nats.slice(-recent)) / recent;
    const missing = (wanted - sumOf(nats)) / rate;
    return sumOf(hours) + missing * (hours.at(-1) ?? 0);
  };
  return {
    bound: hoursFor(natsOf(alpha)),
    searched: hoursFor(natsOf(alpha, decisions.cells)),
    hold: decisions.hold === null ? null : exposureAt(decisions.hold + 1),
    frozen: decisions.frozen === null ? null : exposureAt(decisions.frozen),
    halt: decisions.halt === null ? null : exposureAt(decisions.halt + 1),
  };
};

/** Trials fall due now and then: one tick says little about their rate. */
const ratedOver = 10;

const sumOf = (list: readonly number[]): number => list.reduce((a, b) => a + b, 0);
