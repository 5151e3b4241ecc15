/**
 * Where each device stands: table `device_sites`. The first word counts, also after a restart and between gateways that hear a
 * device at the same moment; a person frees it with revoke and restore (revocations.ts).
 */
import type { DeviceSites } from '../../domain/ports.ts';
import type { Queryable } from './pool.ts';

type Stored = { readonly device_id: string; readonly site: string | null };

// In the order of their ids, so that two gateways never wait for each other's rows. The update that changes nothing makes the row
// that another gateway wrote meanwhile come back: a plain select would not see it yet.
const statement = `
  insert into device_sites (device_id, site)
  select said.device_id, coalesce(imported.site, said.site)
  from json_to_recordset($1::json) as said(device_id text, site text)
  left join devices imported on imported.device_id = said.device_id and imported.described_at < 0
  order by said.device_id
  on conflict (device_id) do update set site = device_sites.site
  returning device_id, site`;

export const createDeviceSites = (db: Queryable): DeviceSites => ({
  pin: async (said) => {
    const first = new Map<string, Stored>();
    for (const { deviceId, site } of said) {
      if (!first.has(deviceId)) first.set(deviceId, { device_id: deviceId, site });
    }
    const { rows } = await db.query<Stored>(statement, [JSON.stringify([...first.values()])]);
    return rows.map((row) => ({ deviceId: row.device_id, site: row.site }));
  },
});
