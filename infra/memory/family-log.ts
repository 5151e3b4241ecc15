/** The log of families in memory: the twin of infra/kafka/family-log.ts. */
import type { FamilyLog } from '../../domain/ports.ts';
import type { FamilyEvent } from '../../events/catalogue.ts';
import { decodeFamilyEvent, encodeFamilyEvent } from '../../events/family-events.ts';

export type MemoryFamilyLog = FamilyLog & { readonly events: readonly FamilyEvent[] };

/** Keeps what the bytes say: an event that the schema refuses is refused here too. */
export const createMemoryFamilyLog = (): MemoryFamilyLog => {
  const events: FamilyEvent[] = [];
  return {
    events,
    append: async (event) => {
      const decoded = decodeFamilyEvent(encodeFamilyEvent(event));
      if (!decoded.ok) throw new Error(decoded.reason);
      events.push(decoded.event);
    },
  };
};
