/** The events of a family beside its releases: their shapes, and between bytes and events. Reading never throws. */
import { z } from 'zod';
import { canonicalJson } from './canonical-json.ts';
import type { FamilyEvent, FamilyEvents, FamilyEventType } from './catalogue.ts';

const text = z.string();
const count = z.number().int().min(0);
const time = z.iso.datetime();
const alarm = z.strictObject({
  alarmId: text.min(1),
  kind: z.enum(['store-unreadable', 'windows-late', 'evidence-unreadable', 'lease-lapsed', 'freeze-old']),
  family: text,
  releaseId: text.nullable(),
  since: z.number(),
  observed: z.number(),
  operator: z.literal('>'),
  limit: z.number(),
  partitions: z.array(count),
  words: text,
});

export const familyDataSchemas = {
  FamilyFrozen: z.strictObject({
    ...{ freezeId: text, by: text, reason: text, until: time.nullable() },
    ...{ directorVersion: count, frozenAt: z.number() },
  }),
  FamilyThawed: z.strictObject({ freezeId: text, by: text, reason: text }),
  LeaseRenewed: z.strictObject({ releaseId: text, stage: count, directorVersion: count, until: time }),
  AlarmRaised: alarm,
  AlarmCleared: alarm.pick({ alarmId: true, kind: true, releaseId: true, since: true }),
} satisfies { [T in FamilyEventType]: z.ZodType };

export const familyEventTypes = Object.keys(familyDataSchemas) as FamilyEventType[];

export const familyEventVersion = 1;

const envelope = z.strictObject({
  eventId: text.min(1),
  family: text.min(1),
  type: z.enum(familyEventTypes as [FamilyEventType, ...FamilyEventType[]]),
  schemaVersion: z.literal(familyEventVersion),
  occurredAt: time,
  actor: z.strictObject({ kind: z.enum(['person', 'workflow', 'judge', 'service']), id: text }),
  data: z.unknown(),
});

export const encodeFamilyEvent = (event: FamilyEvent): Uint8Array => new TextEncoder().encode(canonicalJson(event));

export type DecodedFamilyEvent =
  | { readonly ok: true; readonly event: FamilyEvent }
  | { readonly ok: false; readonly reason: string };

export const decodeFamilyEvent = (bytes: Uint8Array): DecodedFamilyEvent => {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    return { ok: false, reason: `not JSON: ${String(error)}` };
  }
  const read = envelope.safeParse(json);
  if (!read.success) return { ok: false, reason: z.prettifyError(read.error) };
  const data = familyDataSchemas[read.data.type].safeParse(read.data.data);
  if (!data.success) return { ok: false, reason: `${read.data.type}: ${z.prettifyError(data.error)}` };
  // Checked against the schema of its own type just above: type and data belong together.
  return { ok: true, event: { ...read.data, data: data.data } as FamilyEvent };
};

// The schemas and the catalogue say the same, in both directions, or this does not compile.
type Writable<T> = T extends object ? { -readonly [K in keyof T]: Writable<T[K]> } : T;
type Same<A, B> = [A] extends [B] ? ([B] extends [A] ? true : false) : false;
type Disagreement = {
  [T in FamilyEventType]: Same<z.infer<(typeof familyDataSchemas)[T]>, Writable<FamilyEvents[T]>> extends true
    ? never
    : T;
}[FamilyEventType];
true satisfies [Disagreement] extends [never] ? true : Disagreement;
