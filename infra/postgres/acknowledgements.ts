/**
 * Which offers were acknowledged: table `acknowledgements`. One row per device, so that a poll that is sent again, to another
 * gateway or after a restart, is answered with the time of its first answer and never with a later one.
 */
import type { Acknowledgements, Granted } from '../../domain/ports.ts';
import type { Queryable } from './pool.ts';

type Stored = { readonly device_id: string; readonly sequence: string; readonly until_ms: string };

// A statement sees the table as it was before it: `granted` is what is new, the rest what stood there for the same poll.
// In the order of their ids, so that two gateways never wait for each other's rows.
const statement = `
  with asked as materialized (
    select * from json_to_recordset($1::json) as a(device_id text, sequence bigint, until_ms bigint) order by device_id
  ), granted as (
    insert into acknowledgements (device_id, sequence, until_ms) select device_id, sequence, until_ms from asked
    on conflict (device_id) do update set sequence = excluded.sequence, until_ms = excluded.until_ms
      where acknowledgements.sequence < excluded.sequence
    returning device_id, sequence, until_ms
  )
  select * from granted
  union all
  select known.* from acknowledgements known join asked using (device_id, sequence)`;

export const createAcknowledgements = (db: Queryable): Acknowledgements => ({
  grant: async (offers) => {
    const newest = new Map<string, Granted>();
    for (const offer of offers) {
      if (offer.sequence > (newest.get(offer.deviceId)?.sequence ?? -1)) newest.set(offer.deviceId, offer);
    }
    const asked = [...newest.values()].map((offer) => ({
      ...{ device_id: offer.deviceId, sequence: offer.sequence, until_ms: offer.until },
    }));
    const { rows } = await db.query<Stored>(statement, [JSON.stringify(asked)]);
    return rows.map((row) => ({
      ...{ deviceId: row.device_id, sequence: Number(row.sequence), until: Number(row.until_ms) },
    }));
  },
});
