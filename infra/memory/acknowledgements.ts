/** Acknowledged offers in memory: the twin of infra/postgres/acknowledgements.ts under the same contract suite. */
import type { Acknowledgements, Granted } from '../../domain/ports.ts';

export const createMemoryAcknowledgements = (): Acknowledgements => {
  const known = new Map<string, Granted>();
  return {
    grant: async (offers) => {
      for (const offer of offers) {
        if (offer.sequence > (known.get(offer.deviceId)?.sequence ?? -1)) known.set(offer.deviceId, offer);
      }
      const newest = offers.flatMap((offer) => {
        const granted = known.get(offer.deviceId);
        return granted?.sequence === offer.sequence ? [granted] : [];
      });
      return [...new Map(newest.map((granted) => [granted.deviceId, granted])).values()];
    },
  };
};
