/**
 * Which report crossed the threshold: the first one after which the fold of its tick is a HALT. Computed once more from the
 * telemetry log and the windows that the judge folded, by the judge's own functions.
 */
import {
  acceptWindow,
  type DigestOf,
  foldTicks,
  newSession,
  restoreSession,
  storeSession,
} from '../../../domain/judge/session.ts';
import type { MetricId } from '../../../domain/policy.ts';
import { engineId, type SegmentKey, segmentKey } from '../../../domain/release.ts';
import type { LeafCounts, TelemetryRecord, Window } from '../../../domain/telemetry.ts';

/** A report of harm by a device that was served the release, the first of its metric. */
export type Harm = {
  readonly deviceId: string;
  readonly segment: SegmentKey;
  readonly metric: MetricId;
  readonly partition: number;
  readonly offset: number;
  /** Broker's clock, ms. */
  readonly appendedAt: number;
  /** The tick that counts it. */
  readonly tick: number;
};

export type Started = {
  readonly releaseId: string;
  readonly contentVersion: number;
  readonly startedAt: number;
  readonly tickMs: number;
};

const troubles = ['crash', 'load-failure', 'blocked-traffic', 'update-failure'] as const satisfies readonly MetricId[];
const isTrouble = (kind: string): kind is (typeof troubles)[number] => troubles.some((one) => one === kind);

/** Collects the harm of several releases from the records of the telemetry log, each partition in its order. */
export const createHarmReader = (releases: readonly Started[]) => {
  const clocks = new Map<number, number>();
  const segments = new Map<string, SegmentKey>();
  const open = releases.map((release) => ({
    release,
    servedIn: new Map<string, number>(),
    seen: new Set<string>(),
    harm: [] as Harm[],
  }));
  return {
    take: (partition: number, offset: number, at: number, record: TelemetryRecord | null): void => {
      // A broker clock that steps back reopens no tick.
      const now = Math.max(clocks.get(partition) ?? 0, at);
      clocks.set(partition, now);
      if (record === null || !('report' in record)) return;
      const { deviceId, body } = record.report;
      if (body.kind === 'poll') {
        const { offer } = body;
        if (offer === null) return;
        segments.set(deviceId, segmentKey(engineId(body.engine), body.failMode));
        for (const { release, servedIn } of open) {
          if (offer.releaseId !== release.releaseId || servedIn.has(deviceId)) continue;
          servedIn.set(deviceId, tickAt(release, now));
        }
        return;
      }
      if (!isTrouble(body.kind)) return;
      const metric = body.kind;
      for (const { release, servedIn, seen, harm } of open) {
        const served = servedIn.get(deviceId);
        const name = `${deviceId} ${metric}`;
        const segment = segments.get(deviceId);
        if (served === undefined || segment === undefined || body.contentVersion !== release.contentVersion) continue;
        if (seen.has(name)) continue;
        seen.add(name);
        const tick = tickAt(release, now);
        // What a device suffers in the tick in which it was served is counted in the next one (halt specification, 2.4).
        const counted = tick === served ? tick + 1 : tick;
        harm.push({ deviceId, segment, metric, partition, offset, appendedAt: at, tick: counted });
      }
    },
    harmOf: (releaseId: string): readonly Harm[] =>
      open.find(({ release }) => release.releaseId === releaseId)?.harm ?? [],
  };
};

const tickAt = ({ startedAt, tickMs }: Started, at: number): number => Math.floor((at - startedAt) / tickMs);

export type Crossing = { readonly tick: number; readonly tickEnd: number; readonly report: Harm };

/**
 * `windows`: of one release, as the judge read them. Throws when the harm that was found is not what the windows count, or when
 * no report makes the difference between HALT and no HALT.
 */
export const findCrossing = (
  { releaseId, startedAt, tickMs }: Started,
  windows: readonly Window[],
  harm: readonly Harm[],
  digestOf: DigestOf,
): Crossing => {
  const context = { digestOf, codeVersion: 'bench' };
  const byTick = Map.groupBy(
    new Map(windows.map((one) => [`${one.tick} ${one.partition}`, one])).values(),
    ({ tick }) => tick,
  );
  let session = newSession(releaseId);
  for (let tick = 0; ; tick++) {
    const ofTick = byTick.get(tick);
    if (ofTick === undefined) throw new Error(`${releaseId}: no window of tick ${tick}, and no HALT before it`);
    const counted = harm.filter((one) => one.tick === tick).sort(byTime);
    checkCounts(releaseId, tick, ofTick, counted);
    const before = structuredClone(storeSession(session));
    /** The tick as it would be had only the first `kept` reports of harm come. */
    const folded = (kept: number) => {
      const trial = restoreSession(structuredClone(before), []);
      const later = counted.slice(kept);
      for (const window of ofTick) acceptWindow(trial, without(window, later), digestOf(window));
      if (foldTicks(trial, context).length !== 1) {
        throw new Error(`${releaseId}: tick ${tick} cannot be folded: ${trial.refused ?? 'a partition is missing'}`);
      }
      return trial;
    };
    session = folded(counted.length);
    if (session.halt === null) continue;
    const index = counted.findIndex((_, place) => folded(place + 1).halt !== null);
    const report = counted[index];
    if (report === undefined || folded(0).halt !== null) {
      throw new Error(`${releaseId}: the HALT of tick ${tick} came of no report of that tick`);
    }
    return { tick, tickEnd: startedAt + (tick + 1) * tickMs, report };
  }
};

const byTime = (a: Harm, b: Harm): number =>
  a.appendedAt - b.appendedAt || a.partition - b.partition || a.offset - b.offset;

const without = (window: Window, harm: readonly Harm[]): Window => {
  const leaves = structuredClone(window.leaves) as Record<SegmentKey, Partial<Record<MetricId, LeafCounts>>>;
  for (const { segment, metric, partition } of harm) {
    const counts = leaves[segment]?.[metric];
    if (partition !== window.partition || counts === undefined || leaves[segment] === undefined) continue;
    leaves[segment][metric] = [counts[0] - 1, counts[1], counts[2], counts[3]];
  }
  return { ...window, leaves };
};

const checkCounts = (releaseId: string, tick: number, windows: readonly Window[], harm: readonly Harm[]): void => {
  for (const { partition, leaves } of windows) {
    for (const [segment, ofSegment] of Object.entries(leaves)) {
      for (const metric of troubles) {
        const found = harm.filter(
          (one) => one.partition === partition && one.segment === segment && one.metric === metric,
        ).length;
        const recorded = ofSegment[metric]?.[0] ?? 0;
        if (found === recorded) continue;
        const where = `tick ${tick}, partition ${partition}, ${metric} in ${segment}`;
        throw new Error(`${releaseId}: ${where}: ${found} reports in the log, the window counts ${recorded}`);
      }
    }
  }
};
