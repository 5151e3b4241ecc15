/**
 * Records to windows: the fold of one partition of `telemetry.reports.v1` (halt-judge, section 2). Time is the append time of
 * the records, so that whoever folds the same log gets the same windows.
 *
 * One rule for entering a risk set inside a tick, in both arms: a device that is served, joins, or is heard again after
 * silence during tick k is at risk from that moment on, but tick k's exposure was fixed at its start; so its exposure and
 * its events since then are counted in tick k+1 (2.4). Nothing is dropped and no event ever lacks its exposure (2.9).
 *
 * A gap, in which nothing at all was appended to the partition (no gateway reached it, or the broker's clock jumped), says
 * nothing about any device: the clocks of silence stand still, and nobody is at risk until it is heard again.
 *
 * Where sites are updated as units (section 11) the site is at risk, in an arm and counted, at most once per metric, and its
 * exposure is that of one; what people are told is counted per device all the same. A site has an event when one of its
 * devices has; so it falls silent when one of its devices does. Its trials of one kind that fall due in one tick are one.
 * It belongs to the segment of one of its devices; those of other segments are no evidence.
 */
import {
  type Arm,
  emptyState,
  forgetDevices,
  has,
  hearSite,
  is,
  isAlike,
  isCounted,
  isForgotten,
  isUnit,
  kindOf,
  type MemberTable,
  mark,
  metricIndex,
  newRelease,
  type OpenRelease,
  type PartitionState,
  riskArmOf,
  rowOf,
  type SegmentSums,
  segmentOfKind,
  siteOfKey,
  unitOf,
  unmark,
} from './at-risk-state.ts';
import { withRoom } from './columns.ts';
import { type BucketOf, isExposed, unitIdOf } from './exposure.ts';
import { type MetricId, metrics } from './policy.ts';
import type { SegmentCounts, SegmentKey } from './release.ts';
import { markSeen } from './sequence.ts';
import type { ControlRecord, DeviceReport, LeafCounts, TelemetryRecord, Window } from './telemetry.ts';
import { addOpening, opens, takeOpened } from './trials.ts';

export { emptyState };

type StageOpened = Extract<ControlRecord, { kind: 'stage-opened' }>;
type Body = DeviceReport['body'];
type Compared = Exclude<Arm, 'none'>;

/** Longer without any record is a gap. Gateways write a clock record into every partition far more often. */
export const longestQuietMs = 60_000;

const perHour = metrics.filter((metric) => metric.trial === 'device-hour').map((metric) => metricIndex[metric.id]);
const silenceFirst = metricIndex['silence-first'];
const silenceLater = metricIndex['silence-later'];

/** Column of a leaf: events and exposure of both arms. */
const eventColumn = (metric: number, arm: Compared): number => metric * 4 + (arm === 'treated' ? 0 : 1);
const exposureColumn = (metric: number, arm: Compared): number => metric * 4 + (arm === 'treated' ? 2 : 3);
const atRiskColumn = (metric: number, arm: Compared): number => metric * 2 + (arm === 'treated' ? 0 : 1);

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
  if (state.now > 0 && appendedAt - state.now > longestQuietMs) passGap(state, appendedAt);
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

const heardTime = (state: PartitionState, at: number): number => at - state.unheardMs;

/** Of a gap one millisecond remains in heard time, to tell what was heard before from what was heard after. */
const passGap = (state: PartitionState, until: number): void => {
  state.heardFrom = heardTime(state, state.now) + 1;
  state.unheardMs += until - state.now - 1;
  for (const release of state.releases.values()) {
    release.members.flags.forEach((flags, row) => {
      if (flags & (is.atRiskTreated | is.atRiskControl)) noteChange(release, row);
    });
  }
};

/** Whether the device was heard lately enough to have been able to say what happened to it. */
const isReachable = (state: PartitionState, release: OpenRelease, row: number, at: number): boolean => {
  const lastAt = state.devices.table.lastAt[row] ?? 0;
  return lastAt >= state.heardFrom && lastAt + release.policy.silenceMs > heardTime(state, at);
};

/** Closes every tick that ended by `state.now` and settles the trials that fell due, in order of time. */
const advance = (state: PartitionState, release: OpenRelease, offset: number, windows: Window[]): void => {
  for (let end = tickEnd(release); end <= state.now; end = tickEnd(release)) {
    settleTrials(state, release, heardTime(state, end - 1)); // whole ms: everything before the end
    windows.push(closeTick(state, release, offset));
    startTick(state, release, end, offset);
  }
  settleTrials(state, release, heardTime(state, state.now));
};

type TrialKind = {
  readonly reader: 'first' | 'later';
  readonly metric: number;
  readonly opened: number;
  readonly judged: number;
};
const firstTrials: TrialKind = {
  reader: 'first',
  metric: silenceFirst,
  opened: opens.first,
  judged: opens.firstJudged,
};
const laterTrials: TrialKind = {
  reader: 'later',
  metric: silenceLater,
  opened: opens.later,
  judged: opens.laterJudged,
};

const settleTrials = (state: PartitionState, release: OpenRelease, until: number): void => {
  settleKind(state, release, firstTrials, release.policy.firstSilenceMs, until);
  settleKind(state, release, laterTrials, release.policy.silenceMs, until);
};

const settleKind = (
  state: PartitionState,
  release: OpenRelease,
  kind: TrialKind,
  lengthMs: number,
  until: number,
): void => {
  const { members } = release;
  const { beats } = state.devices.table;
  const next = () => takeOpened(release.openings, kind.reader, until - lengthMs);
  for (let opening = next(); opening !== undefined; opening = next()) {
    if (!(opening.bits & kind.opened)) continue;
    const row = opening.device;
    const sums = sumsOf(release, row);
    const treated = (opening.bits & opens.treated) !== 0;
    // A heartbeat at the very deadline is too late: "before the deadline".
    const silent = beats[row] === opening.beat;
    if (treated && kind.metric === silenceFirst) sums.openTrials -= 1;
    if (treated && silent) {
      harm(state, release, row, opening.openedAt + lengthMs + state.unheardMs);
      fallSilent(release, row);
    }
    // A control that the exposure has reached since leaves its trials, whatever they would have shown.
    const unit = unitOf(state, release, row);
    const judged = (opening.bits & kind.judged) !== 0 && !isCounted(members, unit, kind.metric);
    if (!judged || (!treated && (has(members, unit, is.served) || isInside(release, row)))) continue;
    const arm = treated ? 'treated' : 'control';
    if (isFirstDue(release, unit, kind)) add(sums, exposureColumn(kind.metric, arm), 1);
    if (silent) count(release, unit, kind.metric, arm);
  }
};

/**
 * Whether no trial of this kind of the unit was counted in this tick: a unit that says ten things in a moment has not shown
 * ten times that it is alive, and one gone wild must not drown the silence of others in trials of its own.
 */
const isFirstDue = (release: OpenRelease, unit: number, { reader }: TrialKind): boolean => {
  const before = release.unitsDue.size;
  return release.unitsDue.add(unit * 2 + (reader === 'later' ? 1 : 0)).size > before;
};

const closeTick = (state: PartitionState, release: OpenRelease, offset: number): Window => {
  const leaves: Record<SegmentKey, Partial<Record<MetricId, LeafCounts>>> = {};
  const counts: Record<SegmentKey, SegmentCounts> = {};
  const exposed: Record<SegmentKey, number> = {};
  const openTrials: Record<SegmentKey, number> = {};
  for (const sums of release.segments) {
    const leaf = takeLeaves(sums);
    if (Object.keys(leaf).length > 0) leaves[sums.key] = leaf;
    counts[sums.key] = { ...sums.counts };
    exposed[sums.key] = sums.exposed;
    openTrials[sums.key] = sums.openTrials;
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

/**
 * Fixes the exposure of the tick that begins at `start`, before anything that happens in it is known. Members to whom nothing
 * happened since the last start add what they added then, all at once; the others are looked at one by one.
 */
const startTick = (state: PartitionState, release: OpenRelease, start: number, offset: number): void => {
  noteUnreachable(state, release, start);
  const { changed } = release;
  release.changed = [];
  for (const row of changed) setRiskArm(release, row, 'none');
  for (const sums of release.segments) {
    for (const metric of perHour) {
      for (const arm of ['treated', 'control'] as const) {
        const atRisk = sums.atRisk[atRiskColumn(metric, arm)] ?? 0;
        add(sums, exposureColumn(metric, arm), atRisk * release.policy.tickMs);
      }
    }
  }
  for (const row of changed) startTickOf(state, release, row, start);
  release.unitsDue.clear();
  release.tick += 1;
  release.firstOffset = offset;
  release.stageAtStart = release.stage;
};

/** Who was heard last with an opening that is as old as a silence now: a site, with one of a device of its segment. */
const noteUnreachable = (state: PartitionState, release: OpenRelease, start: number): void => {
  const until = heardTime(state, start) - release.policy.silenceMs;
  const next = () => takeOpened(release.openings, 'reach', until);
  for (let opening = next(); opening !== undefined; opening = next()) {
    const unit = unitOf(state, release, opening.device);
    if ((state.devices.table.lastAt[unit] ?? 0) <= until && isMember(release, unit)) noteChange(release, unit);
  }
};

const startTickOf = (state: PartitionState, release: OpenRelease, row: number, start: number): void => {
  const { members } = release;
  const arm = armOf(state, release, row);
  const reachable = isReachable(state, release, row, start);
  const before = has(members, row, is.entered) ? start - (members.entryAt[row] ?? 0) : 0;
  const pending = members.pending[row] ?? 0;
  unmark(members, row, is.changed);
  const exposure = before + (reachable ? release.policy.tickMs : 0);
  if (arm !== 'none' && exposure > 0) {
    const sums = sumsOf(release, row);
    for (const metric of perHour) {
      if (isCounted(members, row, metric)) continue;
      add(sums, exposureColumn(metric, arm), exposure);
      if (pending & (1 << metric)) count(release, row, metric, arm);
    }
  }
  leaveTick(members, row);
  if (arm !== 'none' && reachable) setRiskArm(release, row, arm);
};

/**
 * What a member did since it entered is counted, or belongs to nobody: it left that arm meanwhile. Then it is out of the risk
 * set all the same: only in the arm that it came to would it have a second chance (2.3).
 */
const leaveTick = (members: MemberTable, row: number): void => {
  members.counted[row] = (members.counted[row] ?? 0) | (members.pending[row] ?? 0);
  unmark(members, row, is.entered);
  members.entryAt[row] = 0;
  members.pending[row] = 0;
};

/** The exposure of this member may be another one in the next tick. */
const noteChange = (release: OpenRelease, row: number): void => {
  if (has(release.members, row, is.changed)) return;
  mark(release.members, row, is.changed);
  release.changed.push(row);
};

const setRiskArm = (release: OpenRelease, row: number, arm: Arm): void => {
  const { members } = release;
  const before = riskArmOf(members, row);
  const sums = sumsOf(release, row);
  for (const metric of perHour) {
    if (isCounted(members, row, metric)) continue;
    if (before !== 'none') addAtRisk(sums, metric, before, -1);
    if (arm !== 'none') addAtRisk(sums, metric, arm, 1);
  }
  unmark(members, row, is.atRiskTreated | is.atRiskControl);
  if (arm !== 'none') mark(members, row, arm === 'treated' ? is.atRiskTreated : is.atRiskControl);
};

// ---- reports

/** Loaded from the table and stored back for each report. */
const seen = { highest: 0, mask: 0 };

const foldReport = (state: PartitionState, report: DeviceReport, bucketOf: BucketOf): void => {
  const row = rowOf(state, report.deviceId);
  const { table } = state.devices;
  seen.highest = table.highest[row] ?? -1;
  seen.mask = table.mask[row] ?? 0;
  if (!markSeen(seen, report.sequence)) return;
  table.highest[row] = seen.highest;
  table.mask[row] = seen.mask;
  const { body } = report;
  if (body.kind === 'poll') describe(state, row, report, body);
  table.contentVersion[row] = body.contentVersion;
  table.lastAt[row] = heardTime(state, state.now);
  table.beats[row] = (table.beats[row] ?? 0) + 1;
  if (report.site !== undefined) hearSite(state, row, report.site);
  for (const release of state.releases.values()) {
    const unit = unitOf(state, release, row);
    const bucket = () =>
      isMember(release, unit)
        ? (release.members.bucket[unit] ?? 0)
        : bucketOf(release.salt, unitIdOf(release.policy.unit, report));
    if (unit !== row && !isMember(release, unit)) join(state, release, unit, bucket);
    if (isMember(release, row) || join(state, release, row, bucket)) foldMember(state, release, row, unit, body);
  }
};

const describe = (
  state: PartitionState,
  row: number,
  { deviceId, site }: DeviceReport,
  poll: Extract<Body, { kind: 'poll' }>,
): void => {
  const { table } = state.devices;
  const last = table.kind[row] ?? 0;
  const kind = kindOf(state, poll.engine, poll.failMode, last);
  if (kind === last && table.polledVersion[row] === poll.contentVersion) return;
  table.kind[row] = kind;
  table.polledVersion[row] = poll.contentVersion;
  state.described.set(deviceId, { describedAt: state.now, site });
};

/** `unit`: the row itself, or its site. */
const foldMember = (state: PartitionState, release: OpenRelease, row: number, unit: number, body: Body): void => {
  const { members } = release;
  const servedNow = !has(members, row, is.served) && isOfferOf(release, body);
  if (servedNow) serve(state, release, row, unit);
  if (has(members, row, is.silent)) {
    unmark(members, row, is.silent);
    sumsOf(release, row).counts.healthy += 1;
  }
  if (!servedNow) openHeartbeatTrials(state, release, row, unit);
  if (speaksFor(state, release, row, unit)) foldUnit(state, release, unit, body);
  if (has(members, row, is.served)) foldProgress(state, release, row, body);
};

/** Whether the unit is compared in the device's segment. */
const isOf = ({ members }: OpenRelease, row: number, unit: number): boolean =>
  has(members, unit, is.joined) && members.segment[unit] === members.segment[row];

/** A device of another segment than its site, or not served yet while its site was, is no evidence about the site. */
const speaksFor = (state: PartitionState, release: OpenRelease, row: number, unit: number): boolean =>
  isOf(release, row, unit) &&
  isAlike(state, row, unit) &&
  has(release.members, unit, is.served) === has(release.members, row, is.served);

const foldUnit = (state: PartitionState, release: OpenRelease, unit: number, body: Body): void => {
  const { members } = release;
  const arm = armOf(state, release, unit);
  const riskArm = riskArmOf(members, unit);
  if (riskArm === 'none' && !has(members, unit, is.entered) && arm !== 'none') enter(release, unit, state.now);
  if (riskArm !== arm) noteChange(release, unit);
  const metric = metricOf(body);
  if (metric === null) return;
  if (riskArm === 'none') {
    if (has(members, unit, is.entered)) members.pending[unit] = (members.pending[unit] ?? 0) | (1 << metric);
  } else if (!isCounted(members, unit, metric)) {
    count(release, unit, metric, riskArm);
    addAtRisk(sumsOf(release, unit), metric, riskArm, -1);
  }
};

const enter = (release: OpenRelease, row: number, at: number): void => {
  mark(release.members, row, is.entered);
  release.members.entryAt[row] = at;
};

const isOfferOf = (release: OpenRelease, body: Body): boolean =>
  body.kind === 'poll' &&
  body.offer !== null &&
  body.offer.releaseId === release.releaseId &&
  body.offer.contentVersion === release.contentVersion;

/** The server knows that it offered the content: from here the silence clock runs, and the device belongs to no control. */
const serve = (state: PartitionState, release: OpenRelease, row: number, unit: number): void => {
  const { members } = release;
  // A site is served with the first of its devices.
  if (isOf(release, row, unit) && !has(members, unit, is.served)) {
    setRiskArm(release, unit, 'none');
    leaveTick(members, unit);
    mark(members, unit, is.served);
  }
  mark(members, row, is.served);
  const sums = sumsOf(release, row);
  sums.counts.offered += 1;
  sums.openTrials += 1;
  const judged =
    speaksFor(state, release, row, unit) && !isCounted(members, unit, silenceFirst) ? opens.firstJudged : 0;
  open(state, release, row, opens.treated | opens.first | judged);
};

/** Every heartbeat opens a trial: a control's of both kinds, so that each treated trial has its like; a treated one's a later trial. */
const openHeartbeatTrials = (state: PartitionState, release: OpenRelease, row: number, unit: number): void => {
  const { members } = release;
  const arm = armOf(state, release, row);
  const speaks = speaksFor(state, release, row, unit);
  const later = speaks && !isCounted(members, unit, silenceLater) ? opens.later | opens.laterJudged : 0;
  const first = speaks && !isCounted(members, unit, silenceFirst) ? opens.first | opens.firstJudged : 0;
  // A treated device that is no evidence (any more) is still watched: what it suffers belongs into the device counts.
  if (arm === 'treated') open(state, release, row, opens.treated | opens.later | later);
  else open(state, release, row, arm === 'control' ? first | later : 0);
};

const open = (state: PartitionState, release: OpenRelease, row: number, bits: number): void => {
  const { beats, lastAt } = state.devices.table;
  addOpening(release.openings, { device: row, openedAt: lastAt[row] ?? 0, beat: beats[row] ?? 0, bits });
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
const foldProgress = (state: PartitionState, release: OpenRelease, row: number, body: Body): void => {
  const { members } = release;
  const { counts } = sumsOf(release, row);
  const runsRelease = body.contentVersion === release.contentVersion;
  if (body.kind === 'installed' && runsRelease && !has(members, row, is.installed)) {
    mark(members, row, is.installed);
    counts.installed += 1;
  } else if (body.kind === 'healthy' && runsRelease && !has(members, row, is.healthy | is.troubled)) {
    mark(members, row, is.healthy);
    counts.healthy += 1;
  } else if (body.kind === 'healthy' && has(members, row, is.harmed) && !has(members, row, is.recovered)) {
    if (body.contentVersion <= release.contentVersion) return;
    mark(members, row, is.recovered);
    counts.recovered += 1;
  } else if (body.kind === 'crash' || body.kind === 'load-failure' || body.kind === 'blocked-traffic') {
    harm(state, release, row, state.now);
    if (runsRelease) mark(members, row, is.troubled);
    if (runsRelease && has(members, row, is.healthy)) {
      unmark(members, row, is.healthy);
      counts.healthy -= 1;
    }
  }
};

/** It may come back: an outage of the way here silences healthy devices too. */
const fallSilent = (release: OpenRelease, row: number): void => {
  if (!has(release.members, row, is.healthy) || has(release.members, row, is.silent)) return;
  mark(release.members, row, is.silent);
  sumsOf(release, row).counts.healthy -= 1;
};

/** What happens to a device after it left the content (rollback, next release) is no harm of this release. */
const harm = (state: PartitionState, release: OpenRelease, row: number, at: number): void => {
  const runs = state.devices.table.contentVersion[row] ?? 0;
  if (has(release.members, row, is.harmed) || runs > release.contentVersion) return;
  mark(release.members, row, is.harmed);
  sumsOf(release, row).counts.harmed += 1;
  release.firstHarmAt = Math.min(release.firstHarmAt ?? at, at);
};

// ---- membership

const isInside = (release: OpenRelease, row: number): boolean =>
  isExposed(release.members.bucket[row] ?? 0, sumsOf(release, row).threshold);

const armOf = (state: PartitionState, release: OpenRelease, row: number): Arm => {
  const { members } = release;
  if (segmentOfKind(state, release, state.devices.table.kind[row] ?? 0) !== members.segment[row]) return 'none';
  const inside = isInside(release, row);
  if (has(members, row, is.served)) return inside ? 'treated' : 'none';
  return inside ? 'none' : 'control';
};

const isMember = (release: OpenRelease, row: number): boolean => has(release.members, row, is.joined);

/** false: it is in no segment of the plan. */
const join = (state: PartitionState, release: OpenRelease, row: number, bucket: () => number): boolean => {
  const { table } = state.devices;
  const segment = segmentOfKind(state, release, table.kind[row] ?? 0);
  if (segment === -1) return false;
  release.members = withRoom(release.members, row + 1);
  const { members } = release;
  members.segment[row] = segment;
  members.bucket[row] = bucket();
  mark(members, row, is.joined);
  if (table.isSite[row] === 1) return true;
  const sums = sumsOf(release, row);
  sums.counts.enrolled += 1;
  if (isInside(release, row)) sums.exposed += 1;
  return true;
};

const sumsOf = (release: OpenRelease, row: number): SegmentSums =>
  release.segments[release.members.segment[row] ?? 0] as SegmentSums; // a member's segment is one of the plan

const add = (sums: SegmentSums, column: number, amount: number): void => {
  sums.leaves[column] = (sums.leaves[column] ?? 0) + amount;
};

const addAtRisk = (sums: SegmentSums, metric: number, arm: Compared, amount: number): void => {
  const column = atRiskColumn(metric, arm);
  sums.atRisk[column] = (sums.atRisk[column] ?? 0) + amount;
};

/** Counts a device's first event of a metric and takes it out of that risk set for good. */
const count = (release: OpenRelease, row: number, metric: number, arm: Compared): void => {
  const { members } = release;
  add(sumsOf(release, row), eventColumn(metric, arm), 1);
  members.counted[row] = (members.counted[row] ?? 0) | (1 << metric);
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
    if (opened.stage > known.stage) raiseStage(state, known, opened);
    return;
  }
  if (state.ended.includes(opened.releaseId)) return;
  const { releaseId, contentVersion, salt, policy, startedAt, stage } = opened;
  const plan = { releaseId, contentVersion, salt, policy, startedAt, stage };
  const release = newRelease(plan, opened.thresholds, offset);
  forgetDevices(state);
  state.releases.set(releaseId, release);
  advance(state, release, offset, windows);
  joinKnown(state, release, bucketOf);
};

/** Devices known from earlier polls are the controls: they enter the risk set now, when they were heard of lately. */
const joinKnown = (state: PartitionState, release: OpenRelease, bucketOf: BucketOf): void => {
  const { rows, table } = state.devices;
  const bySite = release.policy.unit === 'site';
  const siteBuckets = new Map<number, number>();
  if (bySite) {
    for (const [key, row] of rows) {
      if (table.isSite[row] === 1) siteBuckets.set(row, bucketOf(release.salt, siteOfKey(key)));
    }
  }
  const reachable: number[] = [];
  for (const [id, row] of rows) {
    if ((table.isSite[row] === 1 && !bySite) || isForgotten(state, row)) continue;
    const bucket = () => siteBuckets.get(unitOf(state, release, row)) ?? bucketOf(release.salt, id);
    if (!join(state, release, row, bucket) || !isReachable(state, release, row, state.now)) continue;
    if (table.isSite[row] === 0) reachable.push(row);
    if (!isUnit(state, release, row) || armOf(state, release, row) !== 'control') continue;
    enter(release, row, state.now);
    noteChange(release, row);
  }
  // Until when they are reachable; none of them has a trial.
  reachable.sort((a, b) => (table.lastAt[a] ?? 0) - (table.lastAt[b] ?? 0));
  for (const row of reachable) open(state, release, row, 0);
};

/** A later stage: cohorts only grow, and the segments stay those of the plan. */
const raiseStage = (state: PartitionState, release: OpenRelease, opened: StageOpened): void => {
  release.stage = opened.stage;
  for (const sums of release.segments) {
    sums.threshold = Math.max(sums.threshold, opened.thresholds[sums.key] ?? 0);
    sums.exposed = 0;
  }
  release.members.flags.forEach((flags, row) => {
    if (!(flags & is.joined)) return;
    if (isInside(release, row) && state.devices.table.isSite[row] === 0) sumsOf(release, row).exposed += 1;
    if (isUnit(state, release, row) && armOf(state, release, row) !== riskArmOf(release.members, row))
      noteChange(release, row);
  });
};

const rememberedReleases = 64;

const endRelease = (state: PartitionState, releaseId: string): void => {
  state.releases.delete(releaseId);
  state.ended = [...state.ended.filter((id) => id !== releaseId), releaseId].slice(-rememberedReleases);
  forgetDevices(state);
};
