/**
 * What somebody has to look at: evidence that is late, a lease that has run out, a freeze that has grown old. Pure: from
 * what stands in the store and what the judge has written, so that whoever asks gets the same answer, also while no process
 * records alarms.
 */
import type { Alarm } from './alarm.ts';
import { type DirectorDocument, type FamilyFreeze, grantsExposure, openRelease } from './director.ts';
import type { ReleaseState } from './release-state.ts';
import { type JudgeStatus, refuseRenewal } from './stage-rule.ts';
import { describeFreeze } from './timeline.ts';

/** Everything that is known of a family at one moment. */
export type FamilyFacts = {
  readonly document: DirectorDocument;
  readonly expiresAt: number;
  readonly signedAt: number;
  readonly stopped: boolean;
  readonly freeze: FamilyFreeze | null;
  /** null: what the judge and the watches have written cannot be read. */
  readonly evidence: {
    readonly status: JudgeStatus | null;
    readonly watchedAt: number | null;
    /** Partitions whose window of the next tick is there already. */
    readonly arrived: readonly number[];
  } | null;
  /** How many partitions deliver windows. */
  readonly partitions: number;
};

/** What the store says of a family cannot be read since then (ms): nothing more is known of it. */
export type UnreadableFamily = { readonly family: string; readonly unreadable: string; readonly since: number };

/** A freeze that nobody has lifted for a day is looked at again. */
export const freezeOldMs = 24 * 3_600_000;

export const alarmsOf = (facts: FamilyFacts | UnreadableFamily, now: number): readonly Alarm[] =>
  'unreadable' in facts
    ? [unreadableStore(facts, now)]
    : [...lateWindows(facts, now), ...lapsedLease(facts, now), ...oldFreeze(facts, now)];

const unreadableStore = ({ family, unreadable, since }: UnreadableFamily, now: number): Alarm => {
  const kind = 'store-unreadable';
  const words = `what the store says of ${family} cannot be read (${unreadable}): nothing of it is granted or renewed`;
  const about = { family, releaseId: null, operator: '>', partitions: [] } as const;
  return { ...about, alarmId: `${kind}/${family}`, kind, since, observed: now - since, limit: 0, words };
};

const lateWindows = ({ document, evidence, partitions }: FamilyFacts, now: number): readonly Alarm[] => {
  const { family, rollout } = document;
  const releaseId = openRelease(document);
  if (releaseId === null || rollout === null) return [];
  const about = { family, releaseId, operator: '>' } as const;
  if (evidence === null) {
    const words = `what the judge has found about ${releaseId} cannot be read: its stage holds and its lease runs out`;
    const kind = 'evidence-unreadable';
    return [{ ...about, alarmId: `${kind}/${family}`, kind, since: now, observed: 0, limit: 0, partitions: [], words }];
  }
  const { freshMs, startedAt } = rollout.lease;
  const last = Math.max(evidence.status?.lastWindowClosedAt ?? 0, startedAt);
  if (now - last <= freshMs) return [];
  const missing = Array.from({ length: partitions }, (_, partition) => partition).filter(
    (partition) => !evidence.arrived.includes(partition),
  );
  const tick = (evidence.status?.lastTick ?? -1) + 1;
  const which = missing.length === partitions ? 'any partition' : `partition ${missing.join(', ')}`;
  const refused = evidence.status?.refused ?? null;
  const words =
    refused === null
      ? `tick ${tick} of ${releaseId} has no window of ${which}: its stage holds and its lease runs out`
      : `the judge takes no window of ${releaseId} any more (${refused}): its stage holds and its lease runs out`;
  const late = { since: last + freshMs, observed: now - last, limit: freshMs, partitions: missing, words };
  return [{ ...about, ...late, alarmId: `windows-late/${releaseId}`, kind: 'windows-late' }];
};

/** Not renewed for a third more than its length: one that is renewed late, or that a thaw has left over, is nobody's business. */
const lapsedLease = (
  { document, expiresAt, signedAt, stopped, evidence }: FamilyFacts,
  now: number,
): readonly Alarm[] => {
  const { family, rollout } = document;
  if (!grantsExposure(document) || rollout === null) return [];
  const { leaseMs } = rollout.lease;
  const limit = Math.round((leaseMs * 4) / 3);
  // What a thaw leaves is over since ever: it counts from when it was signed.
  const begun = Math.max(expiresAt - leaseMs, signedAt);
  const observed = now - begun;
  if (observed <= limit) return [];
  const { releaseId } = rollout.content;
  const refused = evidence
    ? refuseRenewal(document, evidence.status, evidence.watchedAt, now)
    : 'what the judge has found cannot be read';
  const why = stopped
    ? 'the release was stopped'
    : (refused ?? 'the event log does not take it, or nobody renews leases');
  const words = `the lease of ${releaseId} has run out: ${why}`;
  const late = { since: begun + limit, observed, operator: '>', limit, partitions: [], words } as const;
  return [{ alarmId: `lease-lapsed/${releaseId}`, kind: 'lease-lapsed', family, releaseId, ...late }];
};

const oldFreeze = ({ document, freeze }: FamilyFacts, now: number): readonly Alarm[] => {
  if (freeze === null) return [];
  const at = Date.parse(freeze.at);
  const limit = freeze.until === null ? freezeOldMs : Math.min(freezeOldMs, Date.parse(freeze.until) - at);
  const observed = now - at;
  if (observed <= limit) return [];
  const { family } = document;
  const words = `${family} is frozen ${describeFreeze(freeze)}`;
  const old = { since: at + limit, observed, operator: '>', limit, partitions: [], words } as const;
  return [{ alarmId: `freeze-old/${family}`, kind: 'freeze-old', family, releaseId: null, ...old }];
};

/** What stands on somebody's decision, and is no trouble: nobody newly takes what is stopped. */
export type Stop = {
  readonly kind: 'frozen' | 'held' | 'paused';
  readonly family: string;
  /** null: whatever rolls out of the family. */
  readonly releaseId: string | null;
  /** When it was frozen, or when the last event of the release occurred (ms since 1970), and how long ago that is. */
  readonly unchangedSince: number;
  readonly observed: number;
  /** ISO 8601: when it ends by itself; null: when a person or evidence ends it. */
  readonly until: string | null;
  readonly words: string;
};

const unchangedFrom = (time: string, now: number): Pick<Stop, 'unchangedSince' | 'observed'> => {
  const unchangedSince = Date.parse(time);
  return { unchangedSince, observed: now - unchangedSince };
};

/** Freezes that are no alarm yet, then stages that are held or paused. */
export const stopsOf = (
  facts: readonly (FamilyFacts | UnreadableFamily)[],
  releases: readonly ReleaseState[],
  now: number,
): readonly Stop[] => [
  ...facts.flatMap((one): readonly Stop[] => {
    if ('unreadable' in one) return [];
    const { document, freeze } = one;
    if (freeze === null || oldFreeze(one, now).length > 0) return [];
    const { family } = document;
    const { at, until, by, reason } = freeze;
    const about = { kind: 'frozen', family, releaseId: null, ...unchangedFrom(at, now) } as const;
    return [{ ...about, until, words: `${family}, by ${by}: ${reason}` }];
  }),
  ...releases.flatMap(({ phase, family, releaseId, changedAt, hold }): readonly Stop[] => {
    if (phase !== 'held' && phase !== 'paused') return [];
    const why = phase === 'held' && hold ? `: ${hold.reason}` : '';
    const about = { kind: phase, family, releaseId, ...unchangedFrom(changedAt, now), until: null };
    return [{ ...about, words: `${releaseId} of ${family}${why}` }];
  }),
];

/**
 * What is new and what is over, against the alarms that stand. One that goes on is not raised again, and none is over of a
 * family of which nothing is known.
 */
export const changesOf = (
  open: ReadonlyMap<string, Alarm>,
  found: readonly Alarm[],
): { readonly raised: readonly Alarm[]; readonly cleared: readonly Alarm[] } => {
  const ids = new Set(found.map(({ alarmId }) => alarmId));
  const unknown = new Set(found.flatMap(({ kind, family }) => (kind === 'store-unreadable' ? [family] : [])));
  return {
    raised: found.filter(({ alarmId }) => !open.has(alarmId)),
    cleared: [...open.values()].filter(({ alarmId, family }) => !ids.has(alarmId) && !unknown.has(family)),
  };
};
