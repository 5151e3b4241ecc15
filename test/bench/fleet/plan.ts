/** What a scripted fleet is told, and what it says: messages between the benchmark and the process of its devices. */
import type { EngineBuild, FailMode, SegmentKey } from '../../../domain/release.ts';

/** Events that devices report by chance, in either arm. */
export type Chance = 'crash' | 'blocked-traffic' | 'update-failure';

/** What content that rolls out does to the devices that take it. */
export type Fault =
  | { readonly kind: 'none' }
  /** Every one of them blocks traffic from its first moment. */
  | { readonly kind: 'blocks' }
  /** A metric becomes this many times as frequent; `segment` null: in the whole fleet. */
  | { readonly kind: 'rate'; readonly metric: Chance; readonly ratio: number; readonly segment: SegmentKey | null }
  /** Every one of them in this segment says nothing any more, until it is repaired. */
  | { readonly kind: 'brick'; readonly segment: SegmentKey };

export type FamilyPlan = {
  readonly family: string;
  readonly devices: number;
  readonly segments: readonly { readonly engine: EngineBuild; readonly failMode: FailMode; readonly share: number }[];
};

/** How many devices each segment has: shares are rounded, so that all of them may be a few more or less than asked for. */
export const devicesOf = ({ devices, segments }: FamilyPlan): readonly number[] =>
  segments.map(({ share }) => Math.round(share * devices));

export type FleetPlan = {
  readonly gatewayUrl: string;
  readonly repositoryUrl: string;
  /** Of the services: the fleet key and the root metadata that devices are shipped with. */
  readonly stateDir: string;
  readonly families: readonly FamilyPlan[];
  readonly heartbeatMs: number;
  /** Devices whose reports go out in one request, as those of a site behind a relay. */
  readonly batch: number;
  readonly seed: string;
  /** Per device-hour. */
  readonly rates: Readonly<Record<Chance, number>>;
  /** A device misses `heartbeats` heartbeats with this probability at each one. */
  readonly silence: { readonly perHeartbeat: number; readonly heartbeats: number };
};

export type ToFleet = { readonly kind: 'fault'; readonly fault: Fault } | { readonly kind: 'stop' };

/** One second of the fleet's life. */
export type Second = {
  /** Taken, now or before. */
  readonly accepted: number;
  readonly refused: number;
  /** Of devices that said too much at once: said again later. */
  readonly limited: number;
  /** Requests that the gateway did not take. */
  readonly failed: number;
  /** Requests that were not made because too many were under way: the load asked for was not reached. */
  readonly skipped: number;
  /** From a request to its answer, ms. */
  readonly answerMs: { readonly median: number; readonly worst: number };
};

export type FromFleet = { readonly kind: 'enrolled' } | ({ readonly kind: 'second' } & Second);
