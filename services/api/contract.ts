/** What the api takes and gives, under /v1: shared with the programs that call it. */
import { z } from 'zod';
import type { Alarm } from '../../domain/alarm.ts';
import type { Stop } from '../../domain/alarms.ts';
import type { FamilyFreeze } from '../../domain/director.ts';
import type { TickEvidence } from '../../domain/judge/session.ts';
import type { RolloutPolicy } from '../../domain/policy.ts';
import type { Revocation } from '../../domain/ports.ts';
import type { FailMode, Verdict } from '../../domain/release.ts';
import type { ReleaseState } from '../../domain/release-state.ts';
import type { Hold, JudgeStatus } from '../../domain/stage-rule.ts';
import type { KnownWaiver, WaiverState } from '../../domain/waiver.ts';

export const releaseIdSchema = z
  .string()
  .regex(
    /^[a-z0-9][a-z0-9._-]{2,79}$/,
    'expected 3 to 80 of a-z 0-9 . _ - with a letter or digit first, e.g. ips-20261124-101500',
  );
/** What JSON can carry: half a surrogate pair could not be hashed. */
const text = z.string().transform((value) => value.toWellFormed());
const lengthOf = (least: number, most: number, expected: string) =>
  text.pipe(z.string().trim().min(least, expected).max(most, expected));
export const personSchema = lengthOf(1, 100, 'expected a name of 1 to 100 characters, e.g. ann');
export const reasonSchema = lengthOf(1, 500, 'expected the reason in 1 to 500 characters, e.g. "customers call"');
export const noteSchema = text.pipe(z.string().max(500, 'expected at most 500 characters'));
const bundle = z.base64();

/** POST /families: creates the family with this content as its baseline, content version 1. */
export const familyRequest = z.strictObject({ bundle });
export type FamilyAnswer = { readonly family: string; readonly contentVersion: number; readonly engines: string[] };

/** POST /releases. The id is the idempotency key; without one it is made from the family and the time. */
export const releaseRequest = z.strictObject({
  releaseId: releaseIdSchema.optional(),
  /** Must be the family that the content says it is of. */
  family: z.string().min(1).max(80).optional(),
  bundle,
  requestedBy: personSchema,
  note: noteSchema.default(''),
});
export type ReleaseRequest = z.input<typeof releaseRequest>;
export type ReleaseStarted = { readonly releaseId: string; readonly family: string; readonly workflowId: string };

const wholeNumber = (least: number, most: number) => {
  const expected = `expected a whole number from ${least} to ${most}`;
  return z.coerce.number(expected).int(expected).min(least, expected).max(most, expected);
};

/** GET /releases?family=&phase=&limit= */
export const releaseQuery = z.strictObject({
  family: z.string().optional(),
  phase: z.string().optional(),
  limit: wholeNumber(1, 1_000).default(50),
});

/** POST /releases/:id/approve and POST /releases/:id/{pause,resume,promote,halt,cancel} */
export const approveRequest = z.strictObject({ by: personSchema, note: noteSchema.default('') });
export const commandRequest = z.strictObject({ by: personSchema, reason: reasonSchema });
export const commandKinds = ['approve', 'pause', 'resume', 'promote', 'halt', 'cancel'] as const;
export type CommandAnswer = { readonly releaseId: string; readonly phase: string; readonly seq: number };

export const endSchema = z.union(
  [z.iso.date(), z.iso.datetime()],
  'expected a day or a moment in UTC, e.g. 2027-01-31 or 2027-01-31T12:00:00Z',
);

/** POST /families/:family/exclusions and POST /releases/:id/overrides: the second person's request puts it in force. */
export const excludeRequest = z.strictObject({
  engine: text.pipe(z.string().min(1).max(200)),
  by: personSchema,
  reason: reasonSchema,
  until: endSchema,
});
export const overrideRequest = excludeRequest.omit({ engine: true }).extend({
  cell: text.pipe(z.string().min(1).max(200)),
});
export type WaiverAnswer = { readonly waiver: KnownWaiver; readonly inForce: boolean };

/** GET /families/:family/waivers */
export type WaiversAnswer = { readonly waivers: readonly (KnownWaiver & { readonly state: WaiverState })[] };

/** POST /families/:family/waivers/withdraw: `target` is an engine or a cell, whose waivers one person takes back. */
export const withdrawRequest = commandRequest.extend({ target: text.pipe(z.string().min(1).max(200)) });
export type WithdrawalAnswer = { readonly withdrawn: readonly KnownWaiver[] };

/** POST /families/:family/freeze: answers when it is in force. `until`: ISO 8601, in the future. */
export const freezeRequest = commandRequest.extend({
  until: z.iso.datetime('expected a moment in UTC, e.g. 2027-01-31T12:00:00Z').nullable().default(null),
});
export type FreezeAnswer = {
  readonly family: string;
  readonly freeze: FamilyFreeze;
  readonly directorVersion: number;
  readonly frozenAt: number;
  /** The freeze that stood before, of which this one takes the place. */
  readonly replaced: FamilyFreeze | null;
};

/** POST /families/:family/thaw */
export const thawRequest = commandRequest;
export type ThawAnswer = {
  readonly family: string;
  readonly thawed: boolean;
  /** Another freeze that stands. */
  readonly freeze: FamilyFreeze | null;
};

/** GET /alarms: those that stand now, and what stands without being one. */
export type AlarmsAnswer = { readonly alarms: readonly Alarm[]; readonly stops: readonly Stop[] };

/** GET /releases/:id */
export type ReleaseAnswer = {
  /** When this was answered, by the api's clock (ms since 1970). */
  readonly now: number;
  readonly release: ReleaseState;
  /** What the judge has seen so far: newer than what the events say while a stage is open. null: nothing yet. */
  readonly judge: JudgeStatus | null;
  /** Where its workflow is shown in Temporal's Web UI; null when there is none. */
  readonly workflowUrl: string | null;
  /** Records of the log that are no part of the stream (forks, gaps): look with `sigrel verify`. */
  readonly quarantined: number;
  /** The director document in force for the family; expiry in ms since 1970. */
  readonly director: {
    readonly mode: string;
    readonly directorVersion: number;
    readonly expiresAt: number;
    readonly stopped: boolean;
    readonly freeze: FamilyFreeze | null;
  } | null;
};
/** GET /releases/:id/evidence?from=&limit= : what the judge recorded, tick by tick. Who asks folds it. */
export const evidenceQuery = z.strictObject({
  from: wholeNumber(0, Number.MAX_SAFE_INTEGER).default(0),
  limit: wholeNumber(1, 1_000).default(1_000),
});
export type EvidenceAnswer = {
  readonly releaseId: string;
  readonly policy: RolloutPolicy;
  /** Names of the stages of the plan. */
  readonly stages: readonly string[];
  readonly ticks: readonly TickEvidence[];
  /** First tick of the next page; null: these were the last ones. */
  readonly next: number | null;
  readonly holds: readonly Hold[];
  /** Cells whose HOLD a person cleared. */
  readonly clearedCells: readonly string[];
  readonly halt: Verdict | null;
};
export type ReleasesAnswer = { readonly releases: readonly ReleaseState[] };

/**
 * POST /fleet: devices as a file has them, for a matrix that knows the field before its devices poll. What a device says of
 * itself is never overwritten.
 */
export const importRequest = z.strictObject({
  devices: z
    .array(
      z.strictObject({
        device: text.pipe(z.string().regex(/^[\w.:-]{1,100}$/, 'expected letters, digits, dash, dot, colon')),
        /** `suricata@6.0.1` */
        engine: text.pipe(
          z.string().regex(/^[a-z][a-z-]*@[\w.+~-]+$/, 'expected an engine and its version: suricata@6.0.1'),
        ),
        failMode: z.enum(['fail-open', 'fail-closed']),
      }),
    )
    .min(1)
    .max(100_000),
});
export type ImportRequest = z.input<typeof importRequest>;
/** `unknown`: versions that nobody has a pack of, with their devices: untested cells. */
export type ImportAnswer = {
  readonly imported: number;
  readonly unknown: readonly { readonly engine: string; readonly devices: number }[];
};

/** POST /devices/:id/{revoke,restore} */
export const deviceIdSchema = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9._:+~-]{0,127}$/, 'expected a device id: 1 to 128 of A-Z a-z 0-9 . _ : + ~ -');
export const revokeRequest = commandRequest;
/** `known`: it has polled or was imported. */
export type RevocationAnswer = { readonly revocation: Revocation; readonly known: boolean };

/** GET /devices/revocations: those in force and those that were, newest first. */
export type RevocationsAnswer = { readonly revocations: readonly Revocation[] };

/** GET /fleet */
export type FleetAnswer = {
  readonly devices: number;
  readonly segments: readonly {
    readonly segment: string;
    readonly engine: string;
    readonly failMode: FailMode;
    readonly devices: number;
    /** Devices by the content version that they run. */
    readonly contentVersions: Readonly<Record<string, number>>;
  }[];
};

/** Errors: RFC 9457, with the error's code; `findings` where content or a policy was refused. */
export type Problem = {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly code: string;
  readonly detail: string;
  readonly findings?: readonly {
    readonly code: string;
    readonly message: string;
    readonly file?: string;
    readonly line?: number;
  }[];
};
