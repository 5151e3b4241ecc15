/** What a device may send: checked here and nowhere behind the gateway. */
import { z } from 'zod';
import { type DeviceReport, reportsPerRequest } from '../domain/telemetry.ts';

const count = z.number().int().min(0);
/** As large as the inventory's column: what one device reports must not stop the others from being written. */
const version = count.max(2 ** 31 - 1);
const identifier = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9._:+~-]{0,127}$/, 'expected 1 to 128 of A-Z a-z 0-9 . _ : + ~ -');
/** Part of an engine id, which becomes a path and a key. */
const pathPart = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._+~-]{0,63}$/, 'expected 1 to 64 of A-Z a-z 0-9 . _ + ~ -');

const engine = z.strictObject({
  name: pathPart,
  version: pathPart,
  packageVersion: identifier,
  digest: z.string().regex(/^[0-9a-f]{64}$/, 'expected 64 hex digits'),
});
// Half a surrogate pair has no bytes that a MAC could be of.
const words = z
  .string()
  .max(500)
  .refine((text) => text.isWellFormed(), 'expected well-formed Unicode');
const progress = <K extends string>(kind: K) => z.strictObject({ kind: z.literal(kind), contentVersion: version });
const trouble = <K extends string>(kind: K) =>
  z.strictObject({ kind: z.literal(kind), contentVersion: version, words });

export const signedReportSchema = z.strictObject({
  deviceId: identifier,
  site: identifier.exactOptional(),
  sequence: count,
  body: z.discriminatedUnion('kind', [
    z.strictObject({
      kind: z.literal('poll'),
      engine,
      failMode: z.enum(['fail-open', 'fail-closed']),
      contentVersion: version,
      directorVersion: version,
      offer: z.strictObject({ releaseId: identifier, contentVersion: version }).nullable(),
    }),
    progress('installed'),
    progress('healthy'),
    progress('reverted'),
    trouble('crash'),
    trouble('load-failure'),
    trouble('blocked-traffic'),
    trouble('update-failure'),
  ]),
  /** Of the fleet key that the device's key was derived from; devices from before key rotation do not say it. */
  keyEpoch: count.min(1).default(1),
  mac: z.string().regex(/^[0-9a-f]{64}$/, 'expected 64 hex digits'),
}) satisfies z.ZodType<DeviceReport & { mac: string }>;

export const requestSchema = z.strictObject({ reports: z.array(z.unknown()).min(1).max(reportsPerRequest) });

/** The first thing that is wrong, with its place and what was expected; short, whatever came. */
export const firstIssue = (error: z.ZodError): string => {
  const issue = error.issues[0];
  if (issue === undefined) return 'unreadable';
  return `${issue.path.map(String).join('.') || 'report'}: ${issue.message}`.slice(0, reasonLimit);
};

const reasonLimit = 300;
