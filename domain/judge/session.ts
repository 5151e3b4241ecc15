/**
 * The judge of one release: windows of all partitions in, ticks, status and decisions out. What it finds is a function of the
 * windows alone; the order in which partitions deliver changes nothing. No I/O and no hashing: digests are handed in.
 */
import type { SegmentCounts, SegmentKey, Verdict } from '../release.ts';
import type { JudgeStatus } from '../stage-rule.ts';
import type { Window } from '../telemetry.ts';
import { attribute } from './attribution.ts';
import { cellTotals, type JudgeState, leading, sumOfLeaves, type TickLeaves } from './fold.ts';
import { foldHolds, type HeldCell, newHolds, raiseHold } from './holds.ts';
import { foldLiveTick, type LiveJudge, liveJudge, validateLiveJudge } from './live.ts';
import { type JudgePolicy, type PromotePolicy, segmentOf } from './policy.ts';
import { foldPromote, initialPromoteState, type PromoteState, promoteValues } from './promote.ts';

/** Text that is the same for equal data (a hash of its canonical form). */
export type DigestOf = (value: unknown) => string;

export type SessionContext = { readonly digestOf: DigestOf; readonly codeVersion: string };

/** Fixed in tick 0, before anything is known; cells of the stage without control join when that one opens. */
type SessionPlan = {
  readonly live: LiveJudge;
  readonly policyDigest: string;
  readonly startedAt: number;
  readonly tickMs: number;
};

export type PendingWindow = { readonly window: Window; readonly digest: string };

/** Plain data but for `pending`; changed in place, owned by its caller. */
export type Session = {
  readonly releaseId: string;
  plan: SessionPlan | null;
  judge: JudgeState | null;
  /** Of the stage in force: evidence of an earlier one says nothing about a fault that this one brings out. */
  promote: PromoteState | null;
  /** Stage in force at the start of the last tick. */
  stage: number;
  holds: readonly HeldCell[];
  halt: Verdict | null;
  /** Why no window is taken any more; null while all is well. No evidence: the stage holds. */
  refused: string | null;
  /** tick -> partition -> window, of ticks that still lack a partition. */
  readonly pending: Map<number, Map<number, PendingWindow>>;
};

export type StoredSession = Omit<Session, 'pending'> & { readonly version: number };

/** Of what is stored: a session that means something else must not be folded on. */
const version = 3;

/** What became of one tick. */
export type TickEvidence = {
  readonly releaseId: string;
  readonly tick: number;
  readonly stage: number;
  /** segment -> metric -> [x, y, T, C], summed over the partitions. */
  readonly leaves: Window['leaves'];
  readonly counts: Window['counts'];
  readonly exposed: Window['exposed'];
  readonly openTrials: Window['openTrials'];
  /** The log ranges and digests of the windows that were summed, in partition order. */
  readonly offsets: readonly WindowOrigin[];
  readonly statA: number;
  readonly statB: number;
  readonly leading: string;
};

export type WindowOrigin = {
  readonly partition: number;
  readonly firstOffset: string;
  readonly lastOffset: string;
  readonly digest: string;
};

export type TickResult = {
  readonly evidence: TickEvidence;
  readonly status: JudgeStatus;
  /** Decisions that fell in this tick, HALT first. */
  readonly verdicts: readonly Verdict[];
};

export const newSession = (releaseId: string): Session => ({
  releaseId,
  plan: null,
  judge: null,
  promote: null,
  stage: 0,
  holds: [],
  halt: null,
  refused: null,
  pending: new Map(),
});

export const restoreSession = (stored: StoredSession, pending: readonly PendingWindow[]): Session => {
  const { version: written, ...kept } = stored;
  if (written !== version) {
    const refused =
      'its statistics were kept by another version of sigrel, which cannot be gone on with: halt the release';
    return { ...newSession(stored.releaseId), refused };
  }
  const session: Session = { ...kept, pending: new Map() };
  for (const one of pending) keep(session, one);
  return session;
};

export const storeSession = ({ pending: _pending, ...kept }: Session): StoredSession => ({ version, ...kept });

export const nextTick = (session: Session): number => session.judge?.nextTick ?? 0;

/**
 * Places one window. `repeat`: the same one waits already. `folded`: its tick was folded before; the caller compares
 * digests. Another body for the same place is a fork of the evidence: the session refuses it and everything after it.
 */
export const acceptWindow = (
  session: Session,
  window: Window,
  digest: string,
): 'kept' | 'repeat' | 'folded' | 'refused' => {
  if (session.refused !== null) return 'refused';
  if (window.tick < nextTick(session)) return 'folded';
  const known = session.pending.get(window.tick)?.get(window.partition);
  if (known === undefined) {
    keep(session, { window, digest });
    return 'kept';
  }
  if (known.digest === digest) return 'repeat';
  session.refused = forkOf(window);
  return 'refused';
};

export const forkOf = (window: Window): string =>
  `two different windows of tick ${window.tick}, partition ${window.partition}: the telemetry log does not give the same numbers twice`;

const keep = (session: Session, one: PendingWindow): void => {
  const { tick, partition } = one.window;
  const waiting = session.pending.get(tick) ?? new Map<number, PendingWindow>();
  session.pending.set(tick, waiting.set(partition, one));
};

/** Folds every tick that all partitions have delivered, up to the first one that lacks some, or until the session refuses. */
export const foldTicks = (session: Session, context: SessionContext): TickResult[] => {
  const results: TickResult[] = [];
  for (let result = foldNextTick(session, context); result !== null; result = foldNextTick(session, context))
    results.push(result);
  return results;
};

/** null when a partition is missing or the session refuses. */
const foldNextTick = (session: Session, context: SessionContext): TickResult | null => {
  if (session.refused !== null) return null;
  const tick = nextTick(session);
  const waiting = session.pending.get(tick);
  const parts = [...(waiting?.values() ?? [])].sort((a, b) => a.window.partition - b.window.partition);
  const first = parts[0];
  if (first === undefined || parts.length < first.window.partitions) return null;
  const windows = parts.map((part) => part.window);

  const planned = session.plan ?? planOf(windows, context.digestOf);
  if (typeof planned === 'string') return refuse(session, planned);
  const tickLeaves = sumLeaves(planned.live.policy, windows);
  if (typeof tickLeaves === 'string') return refuse(session, tickLeaves);
  // A stage is in force when every partition knows it.
  const stage = Math.min(...windows.map((window) => window.stage));
  const opens = stage > session.stage ? stage : 0;
  const folded = foldLiveTick(planned.live, session.judge, { tick, opens, leaves: tickLeaves });
  if ('refused' in folded) return refuse(session, folded.refused);

  session.pending.delete(tick);
  const { live, state: judge } = folded;
  const plan = live === planned.live ? planned : { ...planned, live, policyDigest: digest(live, context.digestOf) };
  const { policy, promote } = live;
  const before =
    session.promote === null || opens > 0 ? initialPromoteState({ ...promote, from: tick }) : session.promote;
  session.plan = plan;
  session.judge = judge;
  session.promote = foldPromote(policy, promote, before, { tick, leaves: tickLeaves });
  session.stage = stage;
  const firstHarmAt = earliest(windows);
  const verdicts: Verdict[] = [];
  const verdict = (kind: Verdict['kind'], cell: string) => {
    const found = verdictOf(plan, judge, kind, cell, { tickLeaves, codeVersion: context.codeVersion, firstHarmAt });
    verdicts.push(found);
    return found;
  };
  // After a HALT nothing is enrolled any more: the HOLDs that its fault goes on to raise say nothing new.
  const raised = session.halt === null ? newHolds(policy, judge, session.holds) : [];
  if (session.halt === null && judge.halt !== null) session.halt = verdict('halt', judge.halt.cell);
  session.holds = [
    ...foldHolds(policy, promote, session.holds, { tick, leaves: tickLeaves }),
    ...raised.map((cell) => raiseHold(promote, verdict('hold', cell))),
  ];

  const leadingA = leading(policy, judge.statistics.A);
  const summary = {
    releaseId: session.releaseId,
    stage,
    counts: sumCounts(windows),
    exposed: sumNumbers(windows.map((window) => window.exposed)),
    openTrials: sumNumbers(windows.map((window) => window.openTrials)),
    statA: leadingA.value,
    statB: leading(policy, judge.statistics.B).value,
    leading: leadingA.cell,
  };
  return {
    evidence: {
      ...summary,
      tick,
      leaves: namedLeaves(policy, tickLeaves),
      offsets: parts.map(({ window: { partition, firstOffset, lastOffset }, digest }) => ({
        partition,
        firstOffset,
        lastOffset,
        digest,
      })),
    },
    status: {
      ...summary,
      lastTick: tick,
      lastWindowClosedAt: plan.startedAt + (tick + 1) * plan.tickMs,
      firstHarmAt,
      promote: leastEvidence(promote, session.promote),
      holds: session.holds.map((one) => ({ verdict: one.verdict, clearedAt: one.clearedAt })),
      halt: session.halt,
      refused: null,
    },
    verdicts,
  };
};

const refuse = (session: Session, why: string): null => {
  session.refused = why;
  return null;
};

// ---- the plan

/** The critical cell that is furthest from its limit. */
const leastEvidence = (promote: PromotePolicy, { logs }: PromoteState): JudgeStatus['promote'] => {
  const values = promoteValues(promote, logs);
  const least = values.indexOf(Math.min(...values));
  return { cell: promote.cells[least] ?? '', value: values[least] ?? 0, limit: 1 / promote.beta };
};

/** From the windows of tick 0; a text says why there is none. */
const planOf = (windows: readonly Window[], digestOf: DigestOf): SessionPlan | string => {
  const plan = windows[0]?.plan ?? null;
  if (plan === null) return 'the windows of tick 0 carry no plan';
  const own = digestOf(plan);
  const other = windows.find((window) => digestOf(window.plan) !== own);
  if (other) return `partition ${other.partition} has another plan than partition ${windows[0]?.partition}`;
  const segments = [...new Set(windows.flatMap((window) => Object.keys(window.counts)))];
  const live = liveJudge(plan.policy, segments);
  const findings = validateLiveJudge(live);
  if (findings.length > 0) return `the judge's policy is not sound: ${findings.join('; ')}`;
  return { live, policyDigest: digest(live, digestOf), startedAt: plan.startedAt, tickMs: plan.policy.tickMs };
};

const digest = ({ policy, promote }: LiveJudge, digestOf: DigestOf): string => digestOf({ ...policy, promote });

// ---- sums, in partition order

const sumLeaves = (policy: JudgePolicy, windows: readonly Window[]): TickLeaves | string => {
  const columns = new Map(policy.leaves.map((leaf, index) => [`${leaf.metric}\n${leaf.segment}`, index]));
  const sums = policy.leaves.map((): [number, number, number, number] => [0, 0, 0, 0]);
  for (const window of windows) {
    for (const [segment, leaves] of Object.entries(window.leaves)) {
      for (const [metric, counts] of Object.entries(leaves)) {
        const sum = sums[columns.get(`${metric}\n${segment}`) ?? -1];
        if (sum === undefined)
          return `tick ${window.tick}, partition ${window.partition}: ${metric} in ${segment} is not part of the release`;
        for (const column of [0, 1, 2, 3] as const) sum[column] += counts[column];
      }
    }
  }
  return sums;
};

const namedLeaves = (policy: JudgePolicy, leaves: TickLeaves): Window['leaves'] => {
  const named: Record<SegmentKey, Record<string, TickLeaves[number]>> = {};
  policy.leaves.forEach(({ metric, segment }, index) => {
    const counts = leaves[index];
    if (counts === undefined || counts.every((count) => count === 0)) return;
    named[segment] = { ...named[segment], [metric]: counts };
  });
  return named;
};

const sumNumbers = (parts: readonly Readonly<Record<string, number>>[]): Record<string, number> => {
  const sums: Record<string, number> = {};
  for (const part of parts) for (const [key, value] of Object.entries(part)) sums[key] = (sums[key] ?? 0) + value;
  return sums;
};

const sumCounts = (windows: readonly Window[]): Record<SegmentKey, SegmentCounts> => {
  const sums: Record<SegmentKey, SegmentCounts> = {};
  for (const window of windows) {
    for (const [segment, counts] of Object.entries(window.counts)) {
      const sum = sums[segment];
      sums[segment] = sum === undefined ? counts : addCounts(sum, counts);
    }
  }
  return sums;
};

const addCounts = (a: SegmentCounts, b: SegmentCounts): SegmentCounts => ({
  enrolled: a.enrolled + b.enrolled,
  offered: a.offered + b.offered,
  installed: a.installed + b.installed,
  healthy: a.healthy + b.healthy,
  harmed: a.harmed + b.harmed,
  recovered: a.recovered + b.recovered,
});

const earliest = (windows: readonly Window[]): number | null => {
  const times = windows.flatMap((window) => (window.firstHarmAt === null ? [] : [window.firstHarmAt]));
  return times.length === 0 ? null : Math.min(...times);
};

// ---- decisions

const verdictOf = (
  plan: SessionPlan,
  judge: JudgeState,
  kind: Verdict['kind'],
  cellId: string,
  seen: { readonly tickLeaves: TickLeaves; readonly codeVersion: string; readonly firstHarmAt: number | null },
): Verdict => {
  const { policy } = plan.live;
  const index = policy.cells.findIndex((cell) => cell.id === cellId);
  const cell = policy.cells[index];
  const [x, y, treatedHours, controlHours] = cellTotals(policy, judge, cellId);
  const lastTick = judge.nextTick - 1;
  return {
    kind,
    tick: lastTick,
    cell: cellId,
    metric: cell?.metric ?? '',
    segment: cell === undefined ? null : segmentOf(cell),
    x,
    y,
    treatedHours,
    controlHours,
    statA: judge.statistics.A[index] ?? 0,
    statB: judge.statistics.B[index] ?? 0,
    thresholdA: 1 / (kind === 'hold' ? policy.hold.alpha : policy.keys.A.alpha),
    thresholdB: 1 / policy.keys.B.alpha,
    policyDigest: plan.policyDigest,
    firstTick: 0,
    lastTick,
    codeVersion: seen.codeVersion,
    firstHarmAt: seen.firstHarmAt,
    inTick: sumOfLeaves(policy, seen.tickLeaves, cellId),
    ...(kind === 'halt' ? { attribution: attribute(policy, judge) } : {}),
  };
};
