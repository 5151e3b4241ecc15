/**
 * What the aggregator remembers of one partition: every device that was heard lately, and per open release who takes part in
 * it. Mutable for speed and owned by the fold alone. Devices are rows of a table; a device is named by its row everywhere
 * but in `Devices.rows`. A site is a row of the same tables: where a release updates sites as units, what devices are in other
 * releases (at risk, in an arm, counted) its sites are in this one.
 */
import { pick, withRoom } from './columns.ts';
import { defaultPolicy, type MetricId, metrics, type RolloutPolicy } from './policy.ts';
import {
  type EngineBuild,
  engineId,
  type FailMode,
  type SegmentCounts,
  type SegmentKey,
  segmentKey,
} from './release.ts';
import { moveOpenings, noOpenings, type Openings } from './trials.ts';

/** Arm of a comparison; `none`: inside the exposure but not served, served outside it, or moved to another segment. */
export type Arm = 'treated' | 'control' | 'none';

export type DeviceTable = {
  /** Row of `PartitionState.kinds`, from its last poll; 0 while it never polled. */
  readonly kind: Uint32Array;
  /** From its last report, and from its last poll. */
  readonly contentVersion: Uint32Array;
  readonly polledVersion: Uint32Array;
  /** Heard time (see `PartitionState.unheardMs`) of its last report: every report is a heartbeat. */
  readonly lastAt: Float64Array;
  /** Reports so far: a trial opened at the n-th is answered when there is an n+1-th. */
  readonly beats: Uint32Array;
  /** Which of its reports were seen (domain/sequence.ts). */
  readonly highest: Float64Array;
  readonly mask: Int32Array;
  /** 1: a site. Its kind is that of one of its devices, and it is heard when one of them is. */
  readonly isSite: Uint8Array;
  /** Of a device its site, of a site the device whose kind it has: the row + 1; 0: none. */
  readonly link: Uint32Array;
};

export type Devices = {
  /** Device id, or `siteKey`, -> row. Rows are given in order, so that the keys stand in the order of the rows. */
  readonly rows: Map<string, number>;
  table: DeviceTable;
};

/** What a device said that it is. */
export type DeviceKind = { readonly engine: EngineBuild; readonly failMode: FailMode; readonly segment: SegmentKey };

/** The append time of a poll that said something new, and the device's site. */
export type Described = { readonly describedAt: number; readonly site: string | undefined };

/** A device in a release; the row is the device's. */
export type MemberTable = {
  /** Row of `OpenRelease.segments`, fixed when it joined: segments are never chosen from what happens later. */
  readonly segment: Uint16Array;
  readonly bucket: Uint32Array;
  /** Bits of `is`. */
  readonly flags: Uint16Array;
  /** Metrics (bits) counted for it in this release, in either arm: it is out of their risk set for good. */
  readonly counted: Uint8Array;
  /** Metrics (bits) that occurred since `entryAt`; counted in the next tick. */
  readonly pending: Uint8Array;
  /** When `entered`: append time at which it entered the risk set within the current tick (halt-judge, 2.4). */
  readonly entryAt: Float64Array;
};

export const is = {
  joined: 1,
  served: 2,
  installed: 4,
  /** It said so, and neither trouble nor silence spoke against it since: what a stage passes on. */
  healthy: 8,
  /** A healthy device that fell silent: not counted as healthy until it is heard again. */
  silent: 16,
  /** Crashed, failed to load, or blocked traffic with the release: it never counts as healthy again. */
  troubled: 32,
  harmed: 64,
  recovered: 128,
  /** It has an `entryAt`. */
  entered: 256,
  /** Its exposure may differ in the next tick: it is in `OpenRelease.changed`. */
  changed: 512,
  /** Arm whose exposure of the current tick contains it; fixed at the start of the tick. Neither: none. */
  atRiskTreated: 1024,
  atRiskControl: 2048,
} as const;

export const has = (members: MemberTable, row: number, flag: number): boolean =>
  ((members.flags[row] ?? 0) & flag) !== 0;
export const mark = (members: MemberTable, row: number, flag: number): void => {
  members.flags[row] = (members.flags[row] ?? 0) | flag;
};
export const unmark = (members: MemberTable, row: number, flag: number): void => {
  members.flags[row] = (members.flags[row] ?? 0) & ~flag;
};
export const isCounted = (members: MemberTable, row: number, metric: number): boolean =>
  ((members.counted[row] ?? 0) & (1 << metric)) !== 0;

export const riskArmOf = (members: MemberTable, row: number): Arm => {
  if (has(members, row, is.atRiskTreated)) return 'treated';
  return has(members, row, is.atRiskControl) ? 'control' : 'none';
};

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** Sums of one segment: per metric x, y, treated, control; exposure per device-hour is held in whole ms. */
export type SegmentSums = {
  readonly key: SegmentKey;
  readonly leaves: number[];
  /** Per metric treated, control: members in the risk set since the start of the tick. */
  readonly atRisk: number[];
  readonly counts: Mutable<SegmentCounts>;
  threshold: number;
  exposed: number;
  openTrials: number;
};

export type OpenRelease = {
  readonly releaseId: string;
  readonly contentVersion: number;
  readonly salt: string;
  readonly policy: RolloutPolicy;
  readonly startedAt: number;
  stage: number;
  stageAtStart: number;
  tick: number;
  /** First record that belongs to the current tick. */
  firstOffset: number;
  firstHarmAt: number | null;
  /** Those of the plan. */
  readonly segments: readonly SegmentSums[];
  /** Row of `kinds` -> row of `segments`; -1: the segment is not in the plan. Filled when asked for. */
  readonly segmentOfKind: number[];
  members: MemberTable;
  /** Members whose exposure may differ in the next tick, each once; the others are added as `atRisk` of their segment. */
  changed: number[];
  readonly openings: Openings;
  /** Units with a trial that was counted in this tick, as row * 2, and + 1 for later trials: one per unit, kind and tick. */
  readonly unitsDue: Set<number>;
};

export type PartitionState = {
  readonly partition: number;
  readonly partitions: number;
  /** Largest append time so far: a broker clock that steps back does not reopen a tick. */
  now: number;
  /**
   * Sum of the gaps in which nothing at all was appended, so that nobody could be heard. Heard time is append time without
   * them: the clocks of silence run on it.
   */
  unheardMs: number;
  /** Heard time at which the last gap ended: who was not heard since is not known to be reachable. */
  heardFrom: number;
  /** The next record to fold. */
  nextOffset: number;
  readonly devices: Devices;
  /** Row 0 is nobody's. */
  readonly kinds: (DeviceKind | null)[];
  readonly kindRows: Map<string, number>;
  readonly releases: Map<string, OpenRelease>;
  /** Releases that ended lately: a late repetition of a marker must not open them again. */
  ended: string[];
  /**
   * Devices whose polls said something new, until the inventory has it. No part of a snapshot: it is written with the snapshot,
   * in one transaction.
   */
  readonly described: Map<string, Described>;
};

export const noDevices = (): DeviceTable => ({
  kind: new Uint32Array(),
  contentVersion: new Uint32Array(),
  polledVersion: new Uint32Array(),
  lastAt: new Float64Array(),
  beats: new Uint32Array(),
  highest: new Float64Array(),
  mask: new Int32Array(),
  isSite: new Uint8Array(),
  link: new Uint32Array(),
});

export const noMembers = (): MemberTable => ({
  segment: new Uint16Array(),
  bucket: new Uint32Array(),
  flags: new Uint16Array(),
  counted: new Uint8Array(),
  pending: new Uint8Array(),
  entryAt: new Float64Array(),
});

export const emptyState = (partition: number, partitions: number): PartitionState => ({
  partition,
  partitions,
  now: 0,
  unheardMs: 0,
  heardFrom: 0,
  nextOffset: 0,
  devices: { rows: new Map(), table: noDevices() },
  kinds: [null],
  kindRows: new Map(),
  releases: new Map(),
  ended: [],
  described: new Map(),
});

/** The row of a device, a new one when it was never heard. */
export const rowOf = ({ devices }: PartitionState, id: string): number => {
  const known = devices.rows.get(id);
  if (known !== undefined) return known;
  const row = devices.rows.size;
  devices.rows.set(id, row);
  devices.table = withRoom(devices.table, row + 1);
  devices.table.highest[row] = -1;
  return row;
};

/** No device can have this as its id. */
export const siteKey = (site: string): string => `\n${site}`;
export const siteOfKey = (key: string): string => key.slice(1);

/**
 * A device that names this site was heard just now. The first site that a device names stays its own: one that names many would
 * be counted in each of them, and each would take memory.
 */
export const hearSite = (state: PartitionState, device: number, site: string): void => {
  const linked = state.devices.table.link[device] ?? 0;
  if (linked === 0 ? isAlone(state, device) : state.devices.rows.get(siteKey(site)) !== linked - 1) return;
  const row = rowOf(state, siteKey(site));
  const { table } = state.devices;
  table.isSite[row] = 1;
  table.link[device] = row + 1;
  if (table.link[row] === 0 || isLeft(state, row, device)) table.link[row] = device + 1;
  if (table.link[row] === device + 1) table.kind[row] = table.kind[device] ?? 0;
  // The others are no evidence: what they say does not keep the site at risk.
  if (isAlike(state, row, device)) table.lastAt[row] = table.lastAt[device] ?? 0;
};

/** Whether it stands for itself in a release whose units are sites: it must not be counted once more as a part of one. */
const isAlone = ({ releases }: PartitionState, device: number): boolean =>
  [...releases.values()].some(({ policy, members }) => policy.unit === 'site' && has(members, device, is.joined));

/** Whether the site's own segment has gone from it, so that it may have the one of this device: never while it is compared. */
const isLeft = (state: PartitionState, row: number, device: number): boolean => {
  const { lastAt } = state.devices.table;
  const silentMs = (lastAt[device] ?? 0) - (lastAt[row] ?? 0);
  return state.releases.size === 0 && silentMs > defaultPolicy.silenceMs && !isAlike(state, row, device);
};

/** Whether two rows are of one segment now; in a release it is that of when they joined. */
export const isAlike = ({ kinds, devices: { table } }: PartitionState, a: number, b: number): boolean =>
  a === b || kinds[table.kind[a] ?? 0]?.segment === kinds[table.kind[b] ?? 0]?.segment;

/** What stands in the risk sets of a release for a device: the device, or its site. */
export const unitOf = ({ devices: { table } }: PartitionState, release: OpenRelease, row: number): number =>
  release.policy.unit === 'site' && table.isSite[row] === 0 && table.link[row] !== 0 ? (table.link[row] ?? 0) - 1 : row;

/** Whether a row can stand in the risk sets of a release at all. */
export const isUnit = (state: PartitionState, release: OpenRelease, row: number): boolean =>
  unitOf(state, release, row) === row && (release.policy.unit === 'site' || state.devices.table.isSite[row] === 0);

const kindName = (engine: EngineBuild, failMode: FailMode): string =>
  JSON.stringify([engine.name, engine.version, engine.packageVersion, engine.digest, failMode]);

/** The row of a kind; `last` is the device's last one, which it nearly always still is. */
export const kindOf = (state: PartitionState, engine: EngineBuild, failMode: FailMode, last: number): number => {
  const kind = state.kinds[last];
  if (kind && kind.failMode === failMode && isSame(kind.engine, engine)) return last;
  const name = kindName(engine, failMode);
  const known = state.kindRows.get(name);
  if (known !== undefined) return known;
  const { name: engineName, version, packageVersion, digest } = engine;
  const build = { name: engineName, version, packageVersion, digest };
  state.kinds.push({ engine: build, failMode, segment: segmentKey(engineId(build), failMode) });
  state.kindRows.set(name, state.kinds.length - 1);
  return state.kinds.length - 1;
};

const isSame = (a: EngineBuild, b: EngineBuild): boolean =>
  a.digest === b.digest && a.packageVersion === b.packageVersion && a.version === b.version && a.name === b.name;

export const kindRowsOf = (kinds: PartitionState['kinds']): Map<string, number> =>
  new Map(kinds.flatMap((kind, row) => (kind === null ? [] : [[kindName(kind.engine, kind.failMode), row]])));

/** The segment row in which devices of a kind take part in a release; -1: in none. */
export const segmentOfKind = (state: PartitionState, release: OpenRelease, kind: number): number => {
  const known = release.segmentOfKind[kind];
  if (known !== undefined) return known;
  const key = state.kinds[kind]?.segment;
  const found = release.segments.findIndex((segment) => segment.key === key);
  release.segmentOfKind[kind] = found;
  return found;
};

/** How a device described itself in its last poll; null when it never polled or is forgotten. */
export const descriptionOf = (
  { devices, kinds }: PartitionState,
  id: string,
): (Omit<DeviceKind, 'segment'> & { readonly contentVersion: number }) | null => {
  const row = devices.rows.get(id);
  const kind = kinds[devices.table.kind[row ?? -1] ?? 0] ?? null;
  if (row === undefined || kind === null) return null;
  const { engine, failMode } = kind;
  return { engine, failMode, contentVersion: devices.table.polledVersion[row] ?? 0 };
};

/** The topic keeps a report this long: whoever folds it from its beginning knows no device that was silent longer. */
const rememberedMs = 7 * 24 * 3_600_000;

/** It takes part in no release that opens from now on, until it is heard again. */
export const isForgotten = ({ devices: { table }, now, unheardMs }: PartitionState, row: number): boolean =>
  (table.lastAt[row] ?? 0) <= now - unheardMs - rememberedMs;

/**
 * Drops devices that were silent too long and are in no open release, so that they go although releases always overlap. The
 * site of a member stays with it, and the device whose kind that site has: a member is in its segment, and of its site, to the end.
 */
export const forgetDevices = (state: PartitionState): void => {
  const { devices, releases } = state;
  const { link } = devices.table;
  const keep = new Uint8Array(devices.rows.size);
  for (const row of devices.rows.values()) if (!isForgotten(state, row)) keep[row] = 1;
  for (const { members } of releases.values()) {
    members.flags.forEach((flags, row) => {
      if (!(flags & is.joined)) return;
      // A device, its site, and the device whose kind that has; or a site and that device.
      const linked = link[row] ?? 0;
      const further = linked === 0 ? 0 : (link[linked - 1] ?? 0);
      for (const one of [row + 1, linked, further]) if (one !== 0) keep[one - 1] = 1;
    });
  }
  const kept = [...devices.rows].filter(([, row]) => keep[row] === 1);
  if (kept.length === devices.rows.size) return;
  const rows = kept.map(([, row]) => row);
  const moved = new Uint32Array(keep.length);
  rows.forEach((before, row) => {
    moved[before] = row;
  });
  const movedTo = (before: number): number => moved[before] ?? 0;
  devices.table = pick(devices.table, rows);
  devices.table.link.forEach((before, row) => {
    devices.table.link[row] = before !== 0 && keep[before - 1] === 1 ? movedTo(before - 1) + 1 : 0;
  });
  devices.rows.clear();
  kept.forEach(([id], row) => {
    devices.rows.set(id, row);
  });
  for (const release of releases.values()) moveMembers(release, rows, movedTo);
};

/** Whatever a release says of rows that stay, about where they are now. */
const moveMembers = (release: OpenRelease, rows: readonly number[], movedTo: (before: number) => number): void => {
  release.members = pick(release.members, rows);
  release.changed = release.changed.map(movedTo);
  moveOpenings(release.openings, movedTo);
  const due = [...release.unitsDue].map((unit) => movedTo(Math.floor(unit / 2)) * 2 + (unit % 2));
  release.unitsDue.clear();
  for (const unit of due) release.unitsDue.add(unit);
};

export const newSegment = (key: SegmentKey, threshold: number): SegmentSums => ({
  key,
  leaves: new Array<number>(metrics.length * 4).fill(0),
  atRisk: new Array<number>(metrics.length * 2).fill(0),
  counts: { enrolled: 0, offered: 0, installed: 0, healthy: 0, harmed: 0, recovered: 0 },
  threshold,
  exposed: 0,
  openTrials: 0,
});

export const newRelease = (
  plan: Pick<OpenRelease, 'releaseId' | 'contentVersion' | 'salt' | 'policy' | 'startedAt' | 'stage'>,
  thresholds: Readonly<Record<SegmentKey, number>>,
  offset: number,
): OpenRelease => ({
  ...plan,
  stageAtStart: plan.stage,
  tick: 0,
  firstOffset: offset,
  firstHarmAt: null,
  segments: Object.entries(thresholds).map(([key, threshold]) => newSegment(key, threshold)),
  segmentOfKind: [],
  members: noMembers(),
  changed: [],
  openings: noOpenings(),
  unitsDue: new Set(),
});

export const metricIndex = Object.fromEntries(metrics.map((metric, index) => [metric.id, index])) as Readonly<
  Record<MetricId, number>
>;
