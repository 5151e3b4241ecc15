import { SigrelError } from './errors.ts';
import type { Content, SegmentKey } from './release.ts';

/**
 * The director document: the custom data of the TUF target `director/<family>.json`. It is the lease: what a device may
 * take, until the role's expiry. Signed JSON carries no floats: every number here is an integer.
 */
export type DirectorDocument = {
  readonly family: string;
  /** Grows by one with every change (not with a renewal); compare-and-swap token. */
  readonly directorVersion: number;
  readonly mode: 'steady' | 'rolling' | 'frozen' | 'rollback';
  /** What devices outside every cohort run. Needs no acknowledgement. */
  readonly steady: Content;
  /** The content that is rolling out (`rolling`, `frozen`) or was halted (`rollback`). */
  readonly rollout: {
    readonly content: Content;
    readonly salt: string;
    /** Whose hash the bucket is; left out: the device's. */
    readonly unit?: 'site';
    readonly stage: number;
    /** A device is in when its bucket is below its segment's threshold. In `frozen` nobody newly takes the content. */
    readonly thresholds: Readonly<Record<SegmentKey, number>>;
    readonly lease: LeaseTerms;
  } | null;
  /**
   * A person froze the family: whatever the mode says, nobody newly takes what rolls out. It is set and taken away with the
   * freeze in the store, by nothing else; a way back and steady content are not touched by it.
   */
  readonly freezeId?: string;
  /** In `rollback`: what exactly the halted cohort fetches, without acknowledgement, under the long expiry. */
  readonly rollback: Content | null;
};

/** Who stopped a whole family, and why. It stands in the store, apart from the stop of a release, until it is thawed. */
export type FamilyFreeze = {
  readonly freezeId: string;
  readonly reason: string;
  readonly by: string;
  /** ISO 8601 in UTC. */
  readonly at: string;
  /** When its workflow thaws it; null: only a person does. */
  readonly until: string | null;
};

/** Whoever is asked to thaw it. */
export const notFrozen = (family: string): SigrelError =>
  new SigrelError('SRP_RULE_NOT_FROZEN', `family "${family}" is not frozen: there is nothing to thaw`);

/** The document lets devices newly take content, as long as it has not expired. */
export const grantsExposure = ({
  mode,
  rollout,
  freezeId,
}: Pick<DirectorDocument, 'mode' | 'rollout' | 'freezeId'>): boolean =>
  mode === 'rolling' && rollout !== null && freezeId === undefined;

/** The release that the family is rolling out, stopped or not; null when none is open. */
export const openRelease = ({ mode, rollout }: DirectorDocument): string | null =>
  mode === 'rolling' || mode === 'frozen' ? (rollout?.content.releaseId ?? null) : null;

/** What the fleet is on or goes back to. After a halt it is the rollback, with the bytes of the steady content before. */
export const goodContent = ({ rollback, steady }: Pick<DirectorDocument, 'rollback' | 'steady'>): Content =>
  rollback ?? steady;

/** Expiry of documents that grant nothing new: a device that comes back after a weekend still verifies them. */
export const steadyExpiryMs = 7 * 24 * 3_600_000;

/** What the renewal of a rolling document depends on, in the document itself: renewing needs no other source (ms). */
export type LeaseTerms = {
  /** Start of tick 0: before `startedAt + freshMs` no window can be overdue. */
  readonly startedAt: number;
  /** Expiry of the document; renewed at a third of it. */
  readonly leaseMs: number;
  /** A judge whose last window is older renews nothing. */
  readonly freshMs: number;
  /** Cells whose HOLD a person cleared: they no longer stop the renewal. Other cells and HALT do. */
  readonly clearedCells: readonly string[];
};

/** What a device does about a document it has verified; content null: keep what runs. */
export type DeviceDecision =
  | { readonly action: 'keep'; readonly why: 'no-artefact' | 'up-to-date' | 'frozen' | 'holdout' }
  | { readonly action: 'install'; readonly content: Content; readonly needsAcknowledgement: boolean };
