/** Between the log's bytes and events. Reading never throws: what cannot be read is a finding, not the end of a reader. */
import { canonicalJson } from './canonical-json.ts';
import type { StoredEvent } from './catalogue.ts';
import { dataSchemas, envelopeSchema } from './schemas.ts';

export type Decoded =
  | { readonly ok: true; readonly event: StoredEvent }
  | { readonly ok: false; readonly reason: string };

/** The canonical bytes: what is hashed, plus the hash. */
export const encodeEvent = (event: StoredEvent): Uint8Array => new TextEncoder().encode(canonicalJson(event));

export const decodeEvent = (bytes: Uint8Array): Decoded => {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    return { ok: false, reason: `not JSON: ${error instanceof Error ? error.message : String(error)}` };
  }
  const envelope = envelopeSchema.safeParse(json);
  if (!envelope.success) return { ok: false, reason: firstIssue('envelope', envelope.error.issues) };
  const data = dataSchemas[envelope.data.type].safeParse(envelope.data.data);
  if (!data.success) return { ok: false, reason: firstIssue(envelope.data.type, data.error.issues) };
  // Checked against the schema of its own type just above: type and data belong together.
  return { ok: true, event: { ...envelope.data, data: data.data } as StoredEvent };
};

const firstIssue = (what: string, issues: readonly { path: PropertyKey[]; message: string }[]): string =>
  `${what}: ${issues
    .slice(0, 3)
    .map((issue) => `${issue.path.map(String).join('.') || '(whole)'}: ${issue.message}`)
    .join('; ')}`;
