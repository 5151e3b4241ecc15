import type { EventLog } from '../domain/ports.ts';
import { chainEvents } from '../events/chain.ts';
import { encodeEvent } from '../events/codec.ts';
import type { RecordActivities } from './contract.ts';

/** Gives the events their hashes and appends them. The same events on every attempt give the same bytes. */
export const createRecordActivities = (ports: { readonly log: EventLog }): RecordActivities => ({
  recordEvents: async ({ prevHash, events }) => {
    const stored = chainEvents(prevHash, events);
    const [first] = stored;
    const last = stored.at(-1);
    if (!first || !last) throw new Error('recordEvents was called without events');
    await ports.log.append(
      first.streamId,
      stored.map((event) => ({ eventId: event.eventId, type: event.type, value: encodeEvent(event) })),
    );
    return { headHash: last.hash };
  },
});
