/** Between the log's bytes and events. Reading never throws: what cannot be read is a finding, not the end of a reader. */
import { canonicalJson } from './canonical-json.ts';
import type { StoredEvent } from './catalogue.ts';
import { currentVersion, dataSchemas, envelopeSchema, eventTypes } from './schemas.ts';

export type Decoded =
  | { readonly ok: true; readonly event: StoredEvent }
  | { readonly ok: false; readonly reason: string };

/** The canonical bytes: what is hashed, plus the hash. */
export const encodeEvent = (event: StoredEvent): Uint8Array => new TextEncoder().encode(canonicalJson(event));

export const decodeEvent = (bytes: Uint8Array): Decoded => {
  let text: string;
  let json: unknown;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    json = JSON.parse(text);
  } catch (error) {
    return { ok: false, reason: `not JSON: ${words(error)}` };
  }
  const unknown = unknownKind(json);
  if (unknown !== null) return { ok: false, reason: unknown };
  const envelope = envelopeSchema.safeParse(json);
  if (!envelope.success) return { ok: false, reason: firstIssue('envelope', envelope.error.issues) };
  const data = dataSchemas[envelope.data.type].safeParse(envelope.data.data);
  if (!data.success) return { ok: false, reason: firstIssue(envelope.data.type, data.error.issues) };
  // The hash is over the parsed value: only the canonical bytes say the same to every reader. A key written twice, for one,
  // means its first value to some parsers and its last to others, under the same valid hash.
  try {
    if (canonicalJson(json) !== text)
      return { ok: false, reason: 'not in canonical form (RFC 8785): the bytes were changed' };
  } catch (error) {
    return { ok: false, reason: words(error) };
  }
  // Checked against the schema of its own type just above: type and data belong together.
  return { ok: true, event: { ...envelope.data, data: data.data } as StoredEvent };
};

/** Says which type or version is not known here, before the schema lists everything that it would accept. */
const unknownKind = (json: unknown): string | null => {
  if (typeof json !== 'object' || json === null) return null;
  if ('type' in json && typeof json.type === 'string' && !eventTypes.some((type) => type === json.type)) {
    return `unknown event type ${JSON.stringify(json.type)}: written by a newer version, or not a release event`;
  }
  if ('schemaVersion' in json && typeof json.schemaVersion === 'number' && json.schemaVersion !== currentVersion) {
    return `unknown schemaVersion ${json.schemaVersion}, expected ${currentVersion}`;
  }
  return null;
};

const words = (error: unknown): string => (error instanceof Error ? error.message : String(error));

const firstIssue = (what: string, issues: readonly { path: PropertyKey[]; message: string }[]): string =>
  `${what}: ${issues
    .slice(0, 3)
    .map((issue) => `${issue.path.map(String).join('.') || '(whole)'}: ${issue.message}`)
    .join('; ')}`;
