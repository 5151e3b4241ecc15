/**
 * What flows through `telemetry.reports.v1` (key: site, else deviceId; control records are written to every partition explicitly)
 * and `telemetry.windows.v1`. The aggregator is a pure fold over the records of one partition: everything it needs to
 * know, also which stage is open, stands in that partition's log, so that recomputing gives the same windows.
 */
import type { MetricId, RolloutPolicy } from './policy.ts';
import type { EngineBuild, FailMode, SegmentCounts, SegmentKey } from './release.ts';

/** From a device, authenticated by the gateway. Every report is a heartbeat. `sequence` grows by one per device. */
export type DeviceReport = {
  readonly deviceId: string;
  /**
   * Where it was enrolled, when a site may be updated as one: the reports of a site are in one partition. The gateway refuses
   * every other than the first.
   */
  readonly site?: string;
  readonly sequence: number;
  readonly body:
    | {
        readonly kind: 'poll';
        readonly engine: EngineBuild;
        readonly failMode: FailMode;
        readonly contentVersion: number;
        readonly directorVersion: number;
        /** The rolling content this poll asks to be offered; the acknowledgement makes it an offer. null: nothing new. */
        readonly offer: { readonly releaseId: string; readonly contentVersion: number } | null;
      }
    | { readonly kind: 'installed' | 'healthy' | 'reverted'; readonly contentVersion: number }
    | {
        readonly kind: 'crash' | 'load-failure' | 'blocked-traffic' | 'update-failure';
        readonly contentVersion: number;
        readonly words: string;
      };
};

/** Records of one key are in one partition: the devices of a site are judged together. */
export const partitionKey = ({ site, deviceId }: Pick<DeviceReport, 'site' | 'deviceId'>): string => site ?? deviceId;

/** Reports in one request to the gateway; one request becomes one write to the log. */
export const reportsPerRequest = 2_000;

/**
 * The answer to one report. `acknowledgedForMs`: how long the offer that the poll asked for may be taken, counted by the device
 * from the moment at which it asked. A length of time, no time of day: the clock of a device may be wrong. `limited`: the device
 * is above its rate, or the gateway lacks what it needs to check the report (`reason`); nothing was kept of it: to be sent again
 * after `retryAfterMs`.
 */
export type ReportResult = {
  readonly status: 'accepted' | 'duplicate' | 'rejected' | 'limited';
  readonly acknowledgedForMs?: number;
  readonly reason?: string;
  readonly retryAfterMs?: number;
};

/** `POST /v1/reports` answers with one result per report, in order. */
export type ReportsAnswer = { readonly results: readonly ReportResult[] };

/** Written by sigrel itself into every partition, so that each partition knows the plan and closes its ticks when idle. */
export type ControlRecord =
  | { readonly kind: 'clock' }
  | {
      readonly kind: 'stage-opened';
      readonly releaseId: string;
      readonly family: string;
      readonly stage: number;
      readonly salt: string;
      readonly contentVersion: number;
      readonly rollbackVersion: number;
      readonly thresholds: Readonly<Record<SegmentKey, number>>;
      readonly policy: RolloutPolicy;
      /** Start of tick 0 (ms): the same in every record and partition of a release. */
      readonly startedAt: number;
    }
  | { readonly kind: 'release-ended'; readonly releaseId: string };

/** The value of a record: exactly one of both. */
export type TelemetryRecord = { readonly report: DeviceReport } | { readonly control: ControlRecord };

/** Counts of one tick for one metric in one segment: events and exposure of treated and control devices. */
export type LeafCounts = readonly [x: number, y: number, treated: number, control: number];

/** One tick of one release in one partition. The judge folds a tick when every partition has delivered its part. */
export type Window = {
  readonly releaseId: string;
  readonly tick: number;
  readonly partition: number;
  readonly partitions: number;
  /** Stage in force at the start of the tick. */
  readonly stage: number;
  /** segment -> metric -> counts; absent means [0, 0, 0, 0]. */
  readonly leaves: Readonly<Record<SegmentKey, Readonly<Partial<Record<MetricId, LeafCounts>>>>>;
  /** Running totals at the end of the tick, of this partition. */
  readonly counts: Readonly<Record<SegmentKey, SegmentCounts>>;
  /** Known devices whose bucket is inside the exposure in force at the end of the tick, per segment. */
  readonly exposed: Readonly<Record<SegmentKey, number>>;
  /** First silence trials still open at the end of the tick, per segment. */
  readonly openTrials: Readonly<Record<SegmentKey, number>>;
  /** Append time (ms) of the first harmful report of a treated device so far; null when none. */
  readonly firstHarmAt: number | null;
  /** Log range: the window covers records in [firstOffset, lastOffset]. */
  readonly firstOffset: string;
  readonly lastOffset: string;
  /** In tick 0 only: what the judge needs beside the counts, so that the windows alone recompute every decision. */
  readonly plan: WindowPlan | null;
};

export type WindowPlan = { readonly policy: RolloutPolicy; readonly startedAt: number };

/**
 * A record of the telemetry log. null: not written by sigrel. The gateway checked what it wrote; this only keeps a stranger's
 * record from ending the fold.
 */
export const decodeTelemetry = (value: Uint8Array | null): TelemetryRecord | null => {
  try {
    const record: unknown = JSON.parse(new TextDecoder().decode(value ?? undefined));
    return isTelemetryRecord(record) ? record : null;
  } catch {
    return null;
  }
};

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null;

const isTelemetryRecord = (record: unknown): record is TelemetryRecord => {
  if (!isObject(record)) return false;
  if ('report' in record) {
    const { report } = record;
    return (
      isObject(report) &&
      typeof report.deviceId === 'string' &&
      ['string', 'undefined'].includes(typeof report.site) &&
      typeof report.sequence === 'number' &&
      isObject(report.body) &&
      typeof report.body.kind === 'string' &&
      (report.body.kind !== 'poll' || isObject(report.body.engine))
    );
  }
  const { control } = record;
  if (!isObject(control)) return false;
  if (control.kind === 'stage-opened') return isObject(control.policy) && isObject(control.thresholds);
  return control.kind === 'clock' || control.kind === 'release-ended';
};
