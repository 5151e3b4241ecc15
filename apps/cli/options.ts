/** Options that several commands have, and what may stand in them: refused under the option's own name, before anybody is asked. */
import { userInfo } from 'node:os';
import { InvalidArgumentError } from 'commander';
import type { z } from 'zod';
import { endSchema, noteSchema, personSchema, reasonSchema, releaseIdSchema } from '../../services/api/contract.ts';

/** Who decides, when it is not said. */
export const defaultBy = (): string => process.env.SIGREL_USER ?? userInfo().username;

/** What the api would refuse is refused here, in the same words. */
const as =
  (schema: z.ZodType<string>) =>
  (written: string): string => {
    const parsed = schema.safeParse(written);
    if (parsed.success) return parsed.data;
    throw new InvalidArgumentError(parsed.error.issues.map(({ message }) => message).join('; '));
  };

export const parsePerson = as(personSchema);
export const parseReason = as(reasonSchema);
export const parseNote = as(noteSchema);
export const parseReleaseId = as(releaseIdSchema);
/** A day or a moment. */
export const parseEnd = as(endSchema);

const units = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
/** ms of `90s`, with one of these units; null: it is no such time. */
const lengthOf = (text: string, allowed: string): number | null => {
  const [, count, unit] = /^(\d{1,6})([smhd])$/.exec(text) ?? [];
  return unit !== undefined && allowed.includes(unit) ? Number(count) * units[unit as keyof typeof units] : null;
};

/** ms. */
export const parseTimeout = (text: string): number => {
  const length = lengthOf(text, 'smh');
  if (length === null) throw new InvalidArgumentError('expected a time like 90s, 10m or 2h');
  return length;
};

/** `24h`, or a moment: ISO 8601 in UTC, in the future. */
export const parseUntil = (text: string): string => {
  const length = lengthOf(text, 'mhd');
  const written = /^\d{4}-\d\d-\d\d/.test(text) ? Date.parse(text) : Number.NaN;
  const moment = length === null ? written : Date.now() + length;
  if (Number.isNaN(moment)) throw new InvalidArgumentError('expected 30m, 24h, 7d, or a moment: 2027-01-31T08:00:00Z');
  const until = new Date(moment).toISOString();
  if (moment > Date.now()) return until;
  throw new InvalidArgumentError(`${until} is over already; expected an end in the future: 30m, 24h, 7d, or a moment`);
};

/** A whole number from 1 to `most`. */
export const parseCount =
  (most: number) =>
  (text: string): number => {
    const count = Number(text);
    if (/^\d+$/.test(text) && count >= 1 && count <= most) return count;
    throw new InvalidArgumentError(`expected a whole number from 1 to ${most}`);
  };
