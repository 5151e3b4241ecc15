/** The hash chain of a stream: every event binds the one before it, the first one the name of the stream. */
import { createHash } from 'node:crypto';
import { canonicalJson } from './canonical-json.ts';
import type { NumberedEvent, StoredEvent } from './catalogue.ts';

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');

/** What the first event of a stream names as its predecessor. */
export const genesisHash = (streamId: string): string => sha256(`sigrel/stream/v1\n${streamId}`);

/** SHA-256 over everything in the event but the hash itself. */
export const eventHash = (event: NumberedEvent & { readonly prevHash: string }): string => {
  const { hash: _hash, ...hashed } = { hash: '', ...event };
  return sha256(`sigrel/event/v1\n${canonicalJson(hashed)}`);
};

/** Chains events of one stream after `prevHash`; null: they are its beginning. Pure: the same input gives the same hashes. */
export const chainEvents = (prevHash: string | null, events: readonly NumberedEvent[]): StoredEvent[] => {
  let previous = prevHash;
  return events.map((event) => {
    const linked = { ...event, prevHash: previous ?? genesisHash(event.streamId) };
    const stored = { ...linked, hash: eventHash(linked) };
    previous = stored.hash;
    return stored;
  });
};
