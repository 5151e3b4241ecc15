/**
 * What the gateway may acknowledge: only what the director's document in the store grants to that device at this moment. A
 * store that cannot be read grants nothing; of one family only, nothing of that family.
 */
import { type InForce, offerLasts } from '../domain/offer.ts';
import { bucketOf } from '../infra/cohort.ts';
import type { Log } from '../infra/kafka/client.ts';
import type { DirectorView } from '../infra/tuf/director-view.ts';
import type { OfferCheck } from './gateway.ts';

export const createOfferCheck = (view: DirectorView, now: () => number, log: Log): OfferCheck => {
  let working = true;
  let silenced: ReadonlyMap<string, string> = new Map();
  const look = async (): Promise<readonly InForce[]> => {
    try {
      const { inForce, unreadable } = await view();
      for (const [family, error] of unreadable) {
        if (silenced.has(family)) continue;
        log(
          'error',
          { family, error },
          'no offer of the family is acknowledged: what the store says of it cannot be read',
        );
      }
      silenced = unreadable;
      working = true;
      return inForce;
    } catch (error) {
      if (working) log('error', { error: String(error) }, 'no offer is acknowledged: the store cannot be read');
      working = false;
      return [];
    }
  };
  return async () => {
    const inForce = await look();
    return (device, poll) => offerLasts(inForce, device, poll, bucketOf, now());
  };
};
