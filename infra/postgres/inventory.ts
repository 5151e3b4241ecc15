/** The fleet as its devices described themselves in their polls: table `devices`. */
import type { EnrolledDevice, FleetGroup, Inventory } from '../../domain/ports.ts';
import type { FailMode } from '../../domain/release.ts';
import type { Pool, Queryable } from './pool.ts';

/** What a poll says of its device, and its append time: unlike offsets it orders polls of different partitions. */
export type DeviceRow = EnrolledDevice & { readonly describedAt: number };

type Kind = {
  readonly engine_name: string;
  readonly engine_version: string;
  readonly engine_package_version: string;
  readonly engine_digest: string;
  readonly fail_mode: FailMode;
  readonly content_version: number;
};
type Stored = Kind & { readonly device_id: string; readonly site: string | null };

/** A fleet that is heard for the first time comes at once: as one statement it would stop the event loop while it is written. */
const rowsPerStatement = 5_000;

/** Inserts or updates; what a later poll said stays, whoever writes. */
export const saveDevices = async (db: Queryable, devices: readonly DeviceRow[]): Promise<void> => {
  for (let at = 0; at < devices.length; at += rowsPerStatement) {
    await saveRows(db, devices.slice(at, at + rowsPerStatement));
  }
};

const saveRows = async (db: Queryable, devices: readonly DeviceRow[]): Promise<void> => {
  const rows = devices.map(
    ({
      deviceId,
      site,
      engine,
      failMode,
      contentVersion,
      describedAt,
    }): Stored & { readonly described_at: number } => ({
      device_id: deviceId,
      site: site ?? null,
      engine_name: engine.name,
      engine_version: engine.version,
      engine_package_version: engine.packageVersion,
      engine_digest: engine.digest,
      fail_mode: failMode,
      content_version: contentVersion,
      described_at: describedAt,
    }),
  );
  await db.query(
    `insert into devices (device_id, site, engine_name, engine_version, engine_package_version, engine_digest, fail_mode,
       content_version, described_at)
     select * from json_to_recordset($1::json) as d(device_id text, site text, engine_name text, engine_version text,
       engine_package_version text, engine_digest text, fail_mode text, content_version integer, described_at bigint)
     on conflict (device_id) do update set site = excluded.site, engine_name = excluded.engine_name, engine_version = excluded.engine_version,
       engine_package_version = excluded.engine_package_version, engine_digest = excluded.engine_digest,
       fail_mode = excluded.fail_mode, content_version = excluded.content_version, described_at = excluded.described_at,
       changed_at = now()
     -- equal: imported again, with nothing said by the device itself, or said twice while the broker's clock stood
     where devices.described_at <= excluded.described_at`,
    [JSON.stringify(rows)],
  );
};

const rowsPerPage = 1_000;

// What a revoked device says it is must not hold up a release: an engine that it made up is an untested cell.
const notRevoked = `not exists
  (select 1 from device_revocations r where r.device_id = devices.device_id and r.restored_at is null)`;

export const createInventory = (pool: Pool): Inventory => ({
  groups: async () => {
    const { rows } = await pool.query<Kind & { readonly devices: number }>(
      `select engine_name, engine_version, engine_package_version, engine_digest, fail_mode, content_version,
         count(*)::integer as devices
       from devices where ${notRevoked}
       group by 1, 2, 3, 4, 5, 6 order by 1, 2, 3, 4, 5, 6`,
    );
    return rows.map((row): FleetGroup => ({ ...kindOf(row), devices: row.devices }));
  },
  devices: async function* () {
    for (let after = ''; ; ) {
      const { rows } = await pool.query<Stored>(
        `select device_id, site, engine_name, engine_version, engine_package_version, engine_digest, fail_mode, content_version
         from devices where device_id > $1 and ${notRevoked} order by device_id limit ${rowsPerPage}`,
        [after],
      );
      for (const row of rows) {
        yield { deviceId: row.device_id, ...(row.site !== null && { site: row.site }), ...kindOf(row) };
      }
      const last = rows.at(-1);
      if (last === undefined || rows.length < rowsPerPage) return;
      after = last.device_id;
    }
  },
});

const kindOf = (row: Kind): Pick<EnrolledDevice, 'engine' | 'failMode' | 'contentVersion'> => ({
  engine: {
    name: row.engine_name,
    version: row.engine_version,
    packageVersion: row.engine_package_version,
    digest: row.engine_digest,
  },
  failMode: row.fail_mode,
  contentVersion: row.content_version,
});

/** Whether it has polled or was imported. */
export const isEnrolled = async (db: Queryable, deviceId: string): Promise<boolean> =>
  (await db.query('select 1 from devices where device_id = $1', [deviceId])).rows.length > 0;
