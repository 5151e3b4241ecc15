/**
 * When a stage passes. Pure: the judge's status and the time in, an outcome out. Only `passed` moves forward, and it
 * needs evidence for every segment: no data, no devices and a segment without a canary never pass.
 */
import type { DirectorDocument, FamilyFreeze, LeaseTerms } from './director.ts';
import type { RolloutPolicy } from './policy.ts';
import type { Counts, Finding, HeldFor, SegmentKey, StageEvidence, StageOutcome, Verdict } from './release.ts';
import { describeFreeze, duration } from './timeline.ts';

/** The judge's summary after its last complete tick. */
export type JudgeStatus = {
  readonly releaseId: string;
  readonly lastTick: number;
  /** End of the last tick (ms, broker's clock). */
  readonly lastWindowClosedAt: number;
  /** Stage in force at the start of the last tick. */
  readonly stage: number;
  readonly statA: number;
  readonly statB: number;
  readonly leading: string;
  readonly counts: Counts;
  readonly exposed: Readonly<Record<SegmentKey, number>>;
  readonly openTrials: Readonly<Record<SegmentKey, number>>;
  readonly firstHarmAt: number | null;
  /** Of the critical cells the one with the least evidence, since this stage began, that it got no worse. */
  readonly promote: { readonly cell: string; readonly value: number; readonly limit: number };
  /** In the order in which they were raised. */
  readonly holds: readonly Hold[];
  readonly halt: Verdict | null;
  /** Why the judge takes no window of the release any more; null while all is well. No evidence: the stage holds. */
  readonly refused: string | null;
};

/** A HOLD of one cell. `clearedAt`: the tick in which evidence gathered since then cleared it; null: it did not. */
export type Hold = { readonly verdict: Verdict; readonly clearedAt: number | null };

/** HOLDs that neither evidence nor a person has cleared: each of them stops enrolment. `cleared`: ids of cells. */
export const openHolds = (status: JudgeStatus | null, cleared: readonly string[]): readonly Verdict[] =>
  (status?.holds ?? []).flatMap(({ verdict, clearedAt }) =>
    clearedAt !== null || cleared.includes(verdict.cell) ? [] : [verdict],
  );

export type StageAssessment = StageOutcome | { readonly outcome: 'watching'; readonly evidence: StageEvidence };

export type StageQuestion = {
  readonly policy: RolloutPolicy;
  readonly stage: number;
  /** When the stage opened (ms). */
  readonly openedAt: number;
  readonly now: number;
  /** A person asked to go on: the minimum time and the wait for more evidence are waived, everything else stands. */
  readonly promote: boolean;
  /** Cells whose HOLD a person cleared with a reason: they hold no stage any more. Other cells and HALT stay armed. */
  readonly clearedCells: readonly string[];
};

/**
 * True when the last window is too old to renew a lease or to pass a stage on. One that closed as much later than now is no
 * better: a clock is wrong, and nothing is known about its age.
 */
export const isStale = (policy: RolloutPolicy, status: JudgeStatus | null, now: number): boolean =>
  isOlder(status, now, policy.freshTicks * policy.tickMs);

/**
 * True while a stage that is held for want of fresh evidence stays held: until that is a tick younger than its limit. Windows
 * come once a tick: of an aggregator that is late by about the limit every one would hold the stage, and release it.
 */
export const isNearlyStale = (
  { freshTicks, tickMs }: RolloutPolicy,
  status: JudgeStatus | null,
  now: number,
): boolean => isOlder(status, now, Math.max(freshTicks / 2, freshTicks - 1) * tickMs);

const isOlder = (status: JudgeStatus | null, now: number, limit: number): boolean =>
  // Written so that what is no number is stale, here and below: nothing passes on it.
  status === null || !(Math.abs(now - status.lastWindowClosedAt) <= limit);

/**
 * Whether the lease of this document may be renewed; null when it may, else why not. Fresh windows without a verdict are
 * the only reason to go on granting exposure, and a workflow that looks (`watchedAt`, ms) is needed to act on one. Before
 * the first window can be due there is nothing to wait for.
 */
export const refuseRenewal = (
  document: DirectorDocument,
  status: JudgeStatus | null,
  watchedAt: number | null,
  now: number,
): string | null => {
  const { mode, rollout } = document;
  if (mode !== 'rolling' || rollout === null) return `the document is ${mode}`;
  const unwatchedMs = now - (watchedAt ?? 0);
  if (unwatchedMs > rollout.lease.freshMs) {
    return watchedAt === null
      ? 'no workflow has looked at the stage yet'
      : `no workflow has looked at the stage for ${unwatchedMs} ms`;
  }
  if (-unwatchedMs > rollout.lease.freshMs) {
    return `a workflow looked at the stage in ${-unwatchedMs} ms from now: the clock of the worker or of this process is wrong`;
  }
  return refuseGrant(rollout.lease, status, now)?.why ?? null;
};

/**
 * Whether exposure may be granted, again or more of it: `verdict` says that the judge is against it, `stale` that there is
 * nothing to judge by at the moment.
 */
export const refuseGrant = (
  lease: LeaseTerms,
  status: JudgeStatus | null,
  now: number,
): { readonly kind: 'verdict' | 'stale'; readonly why: string } | null => {
  if (status?.halt) return { kind: 'verdict', why: 'the judge halted the release' };
  if (openHolds(status, lease.clearedCells).length > 0) return { kind: 'verdict', why: 'the judge holds the release' };
  const age = now - Math.max(status?.lastWindowClosedAt ?? 0, lease.startedAt);
  if (Math.abs(age) <= lease.freshMs) return null;
  const why =
    age > 0
      ? `the last window is ${age} ms old`
      : `the last window closes in ${-age} ms from now: the broker's clock or the clock of this process is wrong`;
  return { kind: 'stale', why };
};

/** Decides about one stage. Throws nothing; a stage that the policy does not have waits for ever, with that finding. */
export const assessStage = (question: StageQuestion, status: JudgeStatus | null): StageAssessment => {
  const { policy, stage, now } = question;
  const evidence = (waitingFor: readonly Finding[]): StageEvidence => ({
    stage,
    lastTick: status?.lastTick ?? -1,
    counts: status?.counts ?? {},
    statA: status?.statA ?? 0,
    statB: status?.statB ?? 0,
    leading: status?.leading ?? '',
    waitingFor,
  });
  if (status?.halt) return { outcome: 'regression', verdict: status.halt, evidence: evidence([]) };
  const holds = openHolds(status, question.clearedCells);
  const [first] = holds;
  if (first !== undefined) {
    const cells = holds.map(({ cell }) => cell);
    return { outcome: 'held', reason: 'hold', verdict: first, cells, evidence: evidence([]) };
  }
  if (isStale(policy, status, now)) {
    const lastSeen = Math.max(status?.lastWindowClosedAt ?? 0, question.openedAt);
    const limit = policy.freshTicks * policy.tickMs;
    const late = finding('window-age-ms', 'no fresh evidence', now - lastSeen, '<=', limit);
    const why = status?.refused ? `the judge takes no window any more: ${status.refused}` : null;
    const waitingFor = why === null ? [late] : [{ code: 'judge-refuses', message: why }, late];
    // The lease has lapsed by itself after one limit; after the second the stage says so.
    return now - lastSeen > 2 * limit
      ? { outcome: 'held', reason: 'no-data', verdict: null, cells: [], evidence: evidence(waitingFor) }
      : { outcome: 'watching', evidence: evidence(waitingFor) };
  }
  const waitingFor = status === null ? [] : unmet(question, status);
  return status !== null && waitingFor.length === 0
    ? { outcome: 'passed', evidence: evidence([]) }
    : { outcome: 'watching', evidence: evidence(waitingFor) };
};

/**
 * What a watch over a stage ends with now; null: it goes on. `heldFor`: what holds the stage already: it is released when
 * that is over and the evidence is fresh, and held anew for what came since. `stale`: of `isStale`. `freeze`: of the family:
 * nothing passes under it, and its end is waited for like that of any other hold. `unknown`: it could not be read yet, so that
 * no end of it was seen.
 */
export const endOfWatch = (
  assessment: StageAssessment,
  heldFor: HeldFor | null,
  stale: boolean,
  freeze: FamilyFreeze | null | 'unknown',
): StageOutcome | null => {
  if (assessment.outcome === 'regression') return assessment;
  if (freeze === 'unknown') return heldFor?.reason === 'frozen' ? null : endOfWatch(assessment, heldFor, stale, null);
  if (freeze !== null) {
    if (heldFor !== null) return null;
    const byJudge = assessment.outcome === 'held' && assessment.reason === 'hold';
    return byJudge ? assessment : heldFrozen(assessment.evidence, freeze);
  }
  if (heldFor === null) return assessment.outcome === 'watching' ? null : assessment;
  if (assessment.outcome !== 'held') return stale ? null : { outcome: 'released', evidence: assessment.evidence };
  return assessment.cells.some((cell) => !heldFor.cells.includes(cell)) ? assessment : null;
};

export const frozenBy = (freeze: FamilyFreeze): string => `the family is frozen ${describeFreeze(freeze)}`;

const heldFrozen = (evidence: StageEvidence, freeze: FamilyFreeze): StageOutcome => {
  const message = frozenBy(freeze);
  const waitingFor = [{ code: 'frozen', message }, ...evidence.waitingFor];
  return { outcome: 'held', reason: 'frozen', verdict: null, cells: [], evidence: { ...evidence, waitingFor } };
};

/** Share of a segment's devices whose first silence trial may still be open when the stage passes (halt-judge, section 9). */
const openTrialShare = 0.05;
const healthyShare = 0.5;

const unmet = (question: StageQuestion, status: JudgeStatus): Finding[] => {
  const { policy, stage, openedAt } = question;
  const plan = policy.stages[stage];
  if (plan === undefined) return [finding('stage', 'the policy has no such stage', stage, '<', policy.stages.length)];
  const found: Finding[] = [];
  if (!(status.stage >= stage)) {
    found.push(finding('stage-evidence', 'no window yet with this stage in force', status.stage, '>=', stage));
  }
  const covered = Math.max(0, status.lastWindowClosedAt - openedAt);
  if (!(covered >= plan.minMs) && !question.promote) {
    found.push(finding('min-time-ms', 'minimum time of the stage', covered, '>=', plan.minMs));
  }
  const { cell, value, limit } = status.promote;
  if (plan.promote && !(value >= limit) && !question.promote) {
    const rounded = Number(value.toPrecision(3));
    const observed = rounded < limit ? rounded : value;
    found.push(finding('promote-evidence', `evidence that ${cell} got no worse`, observed, '>=', limit));
  }
  const segments = Object.keys(status.counts).sort();
  let healthy = 0;
  for (const segment of segments) {
    const counts = status.counts[segment];
    if (counts === undefined || counts.enrolled === 0) continue;
    healthy += counts.healthy;
    const needed = Math.max(1, Math.ceil(healthyShare * (status.exposed[segment] ?? 0)));
    if (!(counts.healthy >= needed)) {
      found.push(finding('segment-healthy', `healthy devices in ${segment}`, counts.healthy, '>=', needed));
    }
    const open = status.openTrials[segment] ?? 0;
    const allowed = Math.floor(openTrialShare * counts.offered);
    if (!(open <= allowed)) {
      found.push(finding('open-trials', `first silence trials still open in ${segment}`, open, '<=', allowed));
    }
  }
  const minimum = Math.max(1, plan.minDevices);
  if (!(healthy >= minimum)) found.push(finding('min-devices', 'healthy devices', healthy, '>=', minimum));
  return found;
};

/** What misses its limit is rounded away from it, and never reads as if it were there already. */
const finding = (code: string, what: string, observed: number, operator: string, limit: number): Finding => {
  const away = operator === '>=' ? Math.floor : Math.ceil;
  const told = code.endsWith('-ms') ? [duration(observed, away), duration(limit)] : [observed, limit];
  const [seen, needed] = told[0] === told[1] ? [`${away(observed)} ms`, `${limit} ms`] : told;
  return { code, message: `${what}: ${seen}, needs ${operator} ${needed}`, observed, operator, limit };
};
