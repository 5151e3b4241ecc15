/**
 * What the aggregator remembers of one partition: every device that ever polled, and per open release who takes part in it.
 * Mutable for speed and owned by the fold alone; `toSnapshot` makes plain JSON of it, `fromSnapshot` the state again.
 */
import type { MetricId, RolloutPolicy } from './policy.ts';
import { metrics } from './policy.ts';
import type { SegmentCounts, SegmentKey } from './release.ts';
import { nothingSeen, type Seen } from './sequence.ts';
import { emptyQueue, type TrialQueue } from './trials.ts';

/** Arm of a comparison; `none`: inside the exposure but not served, served outside it, or moved to another segment. */
export type Arm = 'treated' | 'control' | 'none';

export type Device = {
  readonly id: string;
  readonly seen: Seen;
  /** From its last poll; null while it never polled. */
  segment: SegmentKey | null;
  /** From its last report. */
  contentVersion: number;
  /** Append time (ms) of its last report: every report is a heartbeat. */
  lastAt: number;
  /** Reports so far: a trial opened at the n-th is answered when there is an n+1-th. */
  beats: number;
};

/** A device in a release. */
export type Member = {
  readonly device: Device;
  /** Fixed when it joined: segments are never chosen from what happens later. */
  readonly segment: SegmentKey;
  readonly bucket: number;
  served: boolean;
  /** Arm whose exposure of the current tick contains it; fixed at the start of the tick. */
  riskArm: Arm;
  /** When it entered the risk set within the current tick: counted from there in the next one (halt-judge, 2.4). */
  entryAt: number | null;
  /** Metrics (bits) that occurred since `entryAt`; counted in the next tick. */
  pending: number;
  /** Metrics (bits) counted for it in this release, in either arm: it is out of their risk set for good. */
  counted: number;
  installed: boolean;
  /** It said so, and neither trouble nor silence spoke against it since: what a stage passes on. */
  healthy: boolean;
  /** A healthy device that fell silent: not counted as healthy until it is heard again. */
  silent: boolean;
  /** Crashed, failed to load, or blocked traffic with the release: it never counts as healthy again. */
  troubled: boolean;
  harmed: boolean;
  recovered: boolean;
};

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** Sums of one segment: per metric x, y, treated, control; exposure per device-hour is held in whole ms. */
export type SegmentSums = {
  readonly leaves: number[];
  readonly counts: Mutable<SegmentCounts>;
  exposed: number;
  openTrials: number;
};

export type OpenRelease = {
  readonly releaseId: string;
  readonly contentVersion: number;
  readonly salt: string;
  readonly policy: RolloutPolicy;
  readonly startedAt: number;
  thresholds: Record<SegmentKey, number>;
  stage: number;
  stageAtStart: number;
  tick: number;
  /** First record that belongs to the current tick. */
  firstOffset: number;
  firstHarmAt: number | null;
  readonly segments: Record<SegmentKey, SegmentSums>;
  readonly members: Map<string, Member>;
  readonly first: TrialQueue<Member>;
  readonly later: TrialQueue<Member>;
};

export type PartitionState = {
  readonly partition: number;
  readonly partitions: number;
  /** Largest append time so far: a broker clock that steps back does not reopen a tick. */
  now: number;
  /** The next record to fold. */
  nextOffset: number;
  readonly devices: Map<string, Device>;
  readonly releases: Map<string, OpenRelease>;
  /** Releases that ended lately: a late repetition of a marker must not open them again. */
  ended: string[];
};

export const emptyState = (partition: number, partitions: number): PartitionState => ({
  partition,
  partitions,
  now: 0,
  nextOffset: 0,
  devices: new Map(),
  releases: new Map(),
  ended: [],
});

export const newDevice = (id: string): Device => ({
  id,
  seen: nothingSeen(),
  segment: null,
  contentVersion: 0,
  lastAt: 0,
  beats: 0,
});

export const newMember = (device: Device, segment: SegmentKey, bucket: number): Member => ({
  device,
  segment,
  bucket,
  served: false,
  riskArm: 'none',
  entryAt: null,
  pending: 0,
  counted: 0,
  installed: false,
  healthy: false,
  silent: false,
  troubled: false,
  harmed: false,
  recovered: false,
});

export const newSegment = (): SegmentSums => ({
  leaves: new Array<number>(metrics.length * 4).fill(0),
  counts: { enrolled: 0, offered: 0, installed: 0, healthy: 0, harmed: 0, recovered: 0 },
  exposed: 0,
  openTrials: 0,
});

export const metricIndex = Object.fromEntries(metrics.map((metric, index) => [metric.id, index])) as Readonly<
  Record<MetricId, number>
>;

const version = 2;

type ReleaseSnapshot = Omit<OpenRelease, 'members' | 'first' | 'later'> & {
  readonly members: readonly (Omit<Member, 'device'> & { readonly id: string })[];
  readonly first: readonly TrialSnapshot[];
  readonly later: readonly TrialSnapshot[];
};
type TrialSnapshot = readonly [deviceId: string, deadline: number, beat: number, treated: boolean, judged: boolean];

/** Plain JSON data. */
export type Snapshot = Pick<PartitionState, 'partition' | 'partitions' | 'now' | 'nextOffset' | 'ended'> & {
  readonly version: number;
  readonly devices: readonly Device[];
  readonly releases: readonly ReleaseSnapshot[];
};

/** A view of the state for JSON.stringify: serialise it before the next record is folded. */
export const toSnapshot = (state: PartitionState): Snapshot => ({
  ...state,
  version,
  devices: [...state.devices.values()],
  releases: [...state.releases.values()].map((release) => ({
    ...release,
    members: [...release.members.values()].map(({ device, ...member }) => ({ ...member, id: device.id })),
    first: trialRows(release.first),
    later: trialRows(release.later),
  })),
});

const trialRows = (queue: TrialQueue<Member>): TrialSnapshot[] =>
  queue.items
    .slice(queue.head)
    .map((trial) => [trial.member.device.id, trial.deadline, trial.beat, trial.treated, trial.judged]);

/** Takes what JSON.parse made of a snapshot; null when another version of the fold wrote it (fold the log again). */
export const fromSnapshot = (snapshot: Snapshot): PartitionState | null => {
  if (snapshot.version !== version) return null;
  const devices = new Map(snapshot.devices.map((device) => [device.id, device]));
  const state: PartitionState = {
    ...emptyState(snapshot.partition, snapshot.partitions),
    now: snapshot.now,
    nextOffset: snapshot.nextOffset,
    devices,
    ended: snapshot.ended,
  };
  for (const row of snapshot.releases) {
    const members = new Map<string, Member>();
    for (const { id, ...member } of row.members) {
      const device = devices.get(id);
      if (device) members.set(id, { ...member, device });
    }
    const queue = (rows: readonly TrialSnapshot[]): TrialQueue<Member> => {
      const found = emptyQueue<Member>();
      for (const [id, deadline, beat, treated, judged] of rows) {
        const member = members.get(id);
        if (member) found.items.push({ member, deadline, beat, treated, judged });
      }
      return found;
    };
    state.releases.set(row.releaseId, { ...row, members, first: queue(row.first), later: queue(row.later) });
  }
  return state;
};
