/**
 * Records to windows: the fold of one partition of `telemetry.reports.v1` (halt-judge, section 2). Time is the append time of
 * the records, so that whoever folds the same log gets the same windows.
 *
 * One rule for entering a risk set inside a tick, in both arms: a device that is served, joins, or is heard again after
 * silence during tick k is at risk from that moment on, but tick k's exposure was fixed at its start; so its exposure and
 * its events since then are counted in tick k+1 (2.4). Nothing is dropped and no event ever lacks its exposure (2.9).
 */
import {
  type Arm,
  type Device,
  emptyState,
  type Member,
  metricIndex,
  newDevice,
  newMember,
  newSegment,
  type OpenRelease,
  type PartitionState,
  type SegmentSums,
} from './at-risk-state.ts';
import { type BucketOf, isExposed } from './exposure.ts';
import { type MetricId, metrics } from './policy.ts';
import { engineId, type SegmentCounts, type SegmentKey, segmentKey } from './release.ts';
import { markSeen } from './sequence.ts';
import type { ControlRecord, DeviceReport, LeafCounts, TelemetryRecord, Window } from './telemetry.ts';
import { emptyQueue, openTrial, type TrialQueue, takeDue, wentSilent } from './trials.ts';

export { emptyState };

type StageOpened = Extract<ControlRecord, { kind: 'stage-opened' }>;
type Body = DeviceReport['body'];

const perHour = metrics.filter((metric) => metric.trial === 'device-hour').map((metric) => metricIndex[metric.id]);
const silenceFirst = metricIndex['silence-first'];
const silenceLater = metricIndex['silence-later'];

/** Column of a leaf: events and exposure of both arms. */
const eventColumn = (metric: number, arm: Exclude<Arm, 'none'>): number => metric * 4 + (arm === 'treated' ? 0 : 1);
const exposureColumn = (metric: number, arm: Exclude<Arm, 'none'>): number => metric * 4 + (arm === 'treated' ? 2 : 3);

/**
 * Folds one record (append time in ms, offset in the partition; null: not written by sigrel, only its place is noted) and
 * returns the windows of the ticks it closed. `state` is changed in place and returned. A record below `state.nextOffset` was folded before and changes nothing.
 */
export const foldRecord = (
  state: PartitionState,
  record: TelemetryRecord | null,
  appendedAt: number,
  offset: number,
  bucketOf: BucketOf,
): { readonly state: PartitionState; readonly windows: readonly Window[] } => {
  if (offset < state.nextOffset) return { state, windows: [] };
  state.nextOffset = offset + 1;
  if (record === null) return { state, windows: [] };
  state.now = Math.max(state.now, appendedAt);
  const windows: Window[] = [];
  for (const release of state.releases.values()) advance(state, release, offset, windows);
  if ('report' in record) foldReport(state, record.report, bucketOf);
  else if (record.control.kind === 'stage-opened') foldStage(state, record.control, offset, bucketOf, windows);
  else if (record.control.kind === 'release-ended') endRelease(state, record.control.releaseId);
  return { state, windows };
};

// ---- time

const tickEnd = (release: OpenRelease): number => release.startedAt + (release.tick + 1) * release.policy.tickMs;

/** Closes every tick that ended by `state.now` and settles the trials that fell due, in order of time. */
const advance = (state: PartitionState, release: OpenRelease, offset: number, windows: Window[]): void => {
  for (let end = tickEnd(release); end <= state.now; end = tickEnd(release)) {
    settleTrials(release, end - 1); // whole ms: everything before the end
    windows.push(closeTick(state, release, offset));
    startTick(release, end, offset);
  }
  settleTrials(release, state.now);
};

const settleTrials = (release: OpenRelease, until: number): void => {
  settleQueue(release, release.first, silenceFirst, until);
  settleQueue(release, release.later, silenceLater, until);
};

const settleQueue = (release: OpenRelease, queue: TrialQueue<Member>, metric: number, until: number): void => {
  for (let trial = takeDue(queue, until); trial !== undefined; trial = takeDue(queue, until)) {
    const { member } = trial;
    const sums = sumsOf(release, member.segment);
    const silent = wentSilent(trial);
    if (trial.treated && metric === silenceFirst) sums.openTrials -= 1;
    if (trial.treated && silent) {
      harm(release, member, trial.deadline);
      fallSilent(release, member);
    }
    // A control that the exposure has reached since leaves its trials, whatever they would have shown.
    if (!trial.judged || (!trial.treated && (member.served || isInside(release, member)))) continue;
    const arm = trial.treated ? 'treated' : 'control';
    add(sums, exposureColumn(metric, arm), 1);
    if (silent) count(sums, member, metric, arm);
  }
};

const closeTick = (state: PartitionState, release: OpenRelease, offset: number): Window => {
  const leaves: Record<SegmentKey, Partial<Record<MetricId, LeafCounts>>> = {};
  const counts: Record<SegmentKey, SegmentCounts> = {};
  const exposed: Record<SegmentKey, number> = {};
  const openTrials: Record<SegmentKey, number> = {};
  for (const [segment, sums] of Object.entries(release.segments)) {
    const leaf = takeLeaves(sums);
    if (Object.keys(leaf).length > 0) leaves[segment] = leaf;
    counts[segment] = { ...sums.counts };
    exposed[segment] = sums.exposed;
    openTrials[segment] = sums.openTrials;
  }
  return {
    releaseId: release.releaseId,
    tick: release.tick,
    partition: state.partition,
    partitions: state.partitions,
    stage: release.stageAtStart,
    leaves,
    counts,
    exposed,
    openTrials,
    firstHarmAt: release.firstHarmAt,
    firstOffset: String(release.firstOffset),
    lastOffset: String(offset - 1),
    plan: release.tick === 0 ? { policy: release.policy, startedAt: release.startedAt } : null,
  };
};

/** The leaves of the tick that ends, as the window states them; the sums start again at zero. */
const takeLeaves = (sums: SegmentSums): Partial<Record<MetricId, LeafCounts>> => {
  const found: Partial<Record<MetricId, LeafCounts>> = {};
  metrics.forEach((metric, index) => {
    const [x = 0, y = 0, treated = 0, control = 0] = sums.leaves.slice(index * 4, index * 4 + 4);
    const unit = metric.trial === 'device-hour' ? 3_600_000 : 1;
    if (treated > 0 || control > 0) found[metric.id] = [x, y, treated / unit, control / unit];
  });
  sums.leaves.fill(0);
  return found;
};

/** Fixes the exposure of the tick that begins at `start`, before anything that happens in it is known. */
const startTick = (release: OpenRelease, start: number, offset: number): void => {
  const { tickMs, silenceMs } = release.policy;
  for (const member of release.members.values()) {
    const arm = armOf(release, member);
    const reachable = member.device.lastAt + silenceMs > start;
    const before = member.entryAt === null ? 0 : start - member.entryAt;
    const pending = member.pending;
    member.entryAt = null;
    member.pending = 0;
    member.riskArm = reachable ? arm : 'none';
    const exposure = before + (reachable ? tickMs : 0);
    if (arm === 'none' || exposure === 0) continue;
    const sums = sumsOf(release, member.segment);
    for (const metric of perHour) {
      if (member.counted & (1 << metric)) continue;
      add(sums, exposureColumn(metric, arm), exposure);
      if (pending & (1 << metric)) count(sums, member, metric, arm);
    }
  }
  release.tick += 1;
  release.firstOffset = offset;
  release.stageAtStart = release.stage;
};

// ---- reports

const foldReport = (state: PartitionState, report: DeviceReport, bucketOf: BucketOf): void => {
  let device = state.devices.get(report.deviceId);
  if (device === undefined) {
    device = newDevice(report.deviceId);
    state.devices.set(report.deviceId, device);
  }
  if (!markSeen(device.seen, report.sequence)) return;
  const { body } = report;
  if (body.kind === 'poll') device.segment = segmentKey(engineId(body.engine), body.failMode);
  device.contentVersion = body.contentVersion;
  device.lastAt = state.now;
  device.beats += 1;
  for (const release of state.releases.values()) {
    const member = release.members.get(device.id) ?? join(release, device, bucketOf);
    if (member) foldMember(release, member, body, state.now);
  }
};

const foldMember = (release: OpenRelease, member: Member, body: Body, now: number): void => {
  const servedNow = !member.served && isOfferOf(release, body);
  if (servedNow) serve(release, member, now);
  if (member.silent) {
    member.silent = false;
    sumsOf(release, member.segment).counts.healthy += 1;
  }
  const arm = armOf(release, member);
  if (!servedNow) openHeartbeatTrials(release, member, arm, now);
  if (member.riskArm === 'none' && member.entryAt === null && arm !== 'none') member.entryAt = now;
  const metric = metricOf(body);
  if (metric !== null) {
    if (member.riskArm === 'none') member.pending |= member.entryAt === null ? 0 : 1 << metric;
    else if (!(member.counted & (1 << metric))) {
      count(sumsOf(release, member.segment), member, metric, member.riskArm);
    }
  }
  if (member.served) foldProgress(release, member, body, now);
};

const isOfferOf = (release: OpenRelease, body: Body): boolean =>
  body.kind === 'poll' &&
  body.offer !== null &&
  body.offer.releaseId === release.releaseId &&
  body.offer.contentVersion === release.contentVersion;

/** The server knows that it offered the content: from here the silence clock runs, and the device belongs to no control. */
const serve = (release: OpenRelease, member: Member, now: number): void => {
  member.served = true;
  member.riskArm = 'none';
  member.entryAt = null;
  member.pending = 0;
  const sums = sumsOf(release, member.segment);
  sums.counts.offered += 1;
  sums.openTrials += 1;
  openTrial(release.first, {
    member,
    deadline: now + release.policy.firstSilenceMs,
    beat: member.device.beats,
    treated: true,
    judged: !(member.counted & (1 << silenceFirst)),
  });
};

/** Every heartbeat opens a trial: a control's of both kinds, so that each treated trial has its like; a treated one's a later trial. */
const openHeartbeatTrials = (release: OpenRelease, member: Member, arm: Arm, now: number): void => {
  if (arm === 'none') return;
  const treated = arm === 'treated';
  const beat = member.device.beats;
  if (!treated && !(member.counted & (1 << silenceFirst))) {
    const deadline = now + release.policy.firstSilenceMs;
    openTrial(release.first, { member, deadline, beat, treated, judged: true });
  }
  // A treated device that was counted silent is still watched: what it suffers belongs into the device counts.
  const judged = !(member.counted & (1 << silenceLater));
  if (judged || treated) {
    openTrial(release.later, { member, deadline: now + release.policy.silenceMs, beat, treated, judged });
  }
};

const metricOf = (body: Body): number | null => {
  switch (body.kind) {
    case 'crash':
    case 'load-failure':
    case 'blocked-traffic':
    case 'update-failure':
      return metricIndex[body.kind];
    default:
      return null;
  }
};

/** Device counts: what people are told. They take no part in the statistics. */
const foldProgress = (release: OpenRelease, member: Member, body: Body, now: number): void => {
  const { counts } = sumsOf(release, member.segment);
  const runsRelease = body.contentVersion === release.contentVersion;
  if (body.kind === 'installed' && runsRelease && !member.installed) {
    member.installed = true;
    counts.installed += 1;
  } else if (body.kind === 'healthy' && runsRelease && !member.healthy && !member.troubled) {
    member.healthy = true;
    counts.healthy += 1;
  } else if (body.kind === 'healthy' && member.harmed && !member.recovered) {
    if (body.contentVersion <= release.contentVersion) return;
    member.recovered = true;
    counts.recovered += 1;
  } else if (body.kind === 'crash' || body.kind === 'load-failure' || body.kind === 'blocked-traffic') {
    harm(release, member, now);
    if (runsRelease) member.troubled = true;
    if (member.healthy && runsRelease) {
      member.healthy = false;
      counts.healthy -= 1;
    }
  }
};

/** It may come back: an outage of the way here silences healthy devices too. */
const fallSilent = (release: OpenRelease, member: Member): void => {
  if (!member.healthy || member.silent) return;
  member.silent = true;
  sumsOf(release, member.segment).counts.healthy -= 1;
};

/** What happens to a device after it left the content (rollback, next release) is no harm of this release. */
const harm = (release: OpenRelease, member: Member, at: number): void => {
  if (member.harmed || member.device.contentVersion > release.contentVersion) return;
  member.harmed = true;
  sumsOf(release, member.segment).counts.harmed += 1;
  release.firstHarmAt = Math.min(release.firstHarmAt ?? at, at);
};

// ---- membership

const isInside = (release: OpenRelease, member: Member): boolean =>
  isExposed(member.bucket, release.thresholds[member.segment] ?? 0);

const armOf = (release: OpenRelease, member: Member): Arm => {
  if (member.device.segment !== member.segment) return 'none';
  const inside = isInside(release, member);
  if (member.served) return inside ? 'treated' : 'none';
  return inside ? 'none' : 'control';
};

const join = (release: OpenRelease, device: Device, bucketOf: BucketOf): Member | null => {
  const sums = device.segment === null ? undefined : release.segments[device.segment];
  if (device.segment === null || sums === undefined) return null;
  const member = newMember(device, device.segment, bucketOf(release.salt, device.id));
  release.members.set(device.id, member);
  sums.counts.enrolled += 1;
  if (isInside(release, member)) sums.exposed += 1;
  return member;
};

const sumsOf = (release: OpenRelease, segment: SegmentKey): SegmentSums => {
  release.segments[segment] ??= newSegment();
  return release.segments[segment];
};

const add = (sums: SegmentSums, column: number, amount: number): void => {
  sums.leaves[column] = (sums.leaves[column] ?? 0) + amount;
};

/** Counts a device's first event of a metric and takes it out of that risk set for good. */
const count = (sums: SegmentSums, member: Member, metric: number, arm: Exclude<Arm, 'none'>): void => {
  add(sums, eventColumn(metric, arm), 1);
  member.counted |= 1 << metric;
};

// ---- releases

const foldStage = (
  state: PartitionState,
  opened: StageOpened,
  offset: number,
  bucketOf: BucketOf,
  windows: Window[],
): void => {
  const known = state.releases.get(opened.releaseId);
  if (known) {
    if (opened.stage > known.stage) raiseStage(known, opened);
    return;
  }
  if (state.ended.includes(opened.releaseId)) return;
  const release: OpenRelease = {
    releaseId: opened.releaseId,
    contentVersion: opened.contentVersion,
    salt: opened.salt,
    policy: opened.policy,
    startedAt: opened.startedAt,
    thresholds: { ...opened.thresholds },
    stage: opened.stage,
    stageAtStart: opened.stage,
    tick: 0,
    firstOffset: offset,
    firstHarmAt: null,
    segments: Object.fromEntries(Object.keys(opened.thresholds).map((segment) => [segment, newSegment()])),
    members: new Map(),
    first: emptyQueue(),
    later: emptyQueue(),
  };
  state.releases.set(release.releaseId, release);
  advance(state, release, offset, windows);
  // Devices known from earlier polls are the controls: they enter the risk set now, when they were heard of lately.
  for (const device of state.devices.values()) {
    const member = join(release, device, bucketOf);
    if (member === null || armOf(release, member) !== 'control') continue;
    if (device.lastAt + release.policy.silenceMs > state.now) member.entryAt = state.now;
  }
};

/** A later stage: cohorts only grow, and the segments stay those of the plan. */
const raiseStage = (release: OpenRelease, opened: StageOpened): void => {
  release.stage = opened.stage;
  for (const [segment, sums] of Object.entries(release.segments)) {
    release.thresholds[segment] = Math.max(release.thresholds[segment] ?? 0, opened.thresholds[segment] ?? 0);
    sums.exposed = 0;
  }
  for (const member of release.members.values()) {
    if (isInside(release, member)) sumsOf(release, member.segment).exposed += 1;
  }
};

const rememberedReleases = 64;

const endRelease = (state: PartitionState, releaseId: string): void => {
  state.releases.delete(releaseId);
  state.ended = [...state.ended.filter((id) => id !== releaseId), releaseId].slice(-rememberedReleases);
};
