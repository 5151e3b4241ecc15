/** Devices whose reports are refused: table `device_revocations`. */
import type { Revocation } from '../../domain/ports.ts';
import type { Pool, Queryable } from './pool.ts';

type Stored = {
  readonly device_id: string;
  readonly reason: string;
  readonly revoked_by: string;
  readonly revoked_at: Date;
  readonly restored_reason: string | null;
  readonly restored_by: string | null;
  readonly restored_at: Date | null;
};

const columns = 'device_id, reason, revoked_by, revoked_at, restored_reason, restored_by, restored_at';

const fromRow = (row: Stored): Revocation => ({
  deviceId: row.device_id,
  reason: row.reason,
  by: row.revoked_by,
  at: row.revoked_at.toISOString(),
  restored:
    row.restored_at === null
      ? null
      : { reason: row.restored_reason ?? '', by: row.restored_by ?? '', at: row.restored_at.toISOString() },
});

/** Those in force: device -> reason. Read whole every time: people revoke devices one by one, and no change can be missed. */
export const readRevoked = async (db: Queryable): Promise<ReadonlyMap<string, string>> => {
  const { rows } = await db.query<Pick<Stored, 'device_id' | 'reason'>>(
    'select device_id, reason from device_revocations where restored_at is null',
  );
  return new Map(rows.map((row) => [row.device_id, row.reason]));
};

/** All there ever were, newest first. */
export const listRevocations = async (db: Queryable): Promise<readonly Revocation[]> => {
  const { rows } = await db.query<Stored>(`select ${columns} from device_revocations order by revocation_id desc`);
  return rows.map(fromRow);
};

/** null: it is revoked already. */
export const revokeDevice = async (
  pool: Pool,
  deviceId: string,
  said: { readonly by: string; readonly reason: string },
): Promise<Revocation | null> => {
  const { rows } = await pool.query<Stored>(
    `insert into device_revocations (device_id, reason, revoked_by) values ($1, $2, $3)
     on conflict (device_id) where restored_at is null do nothing returning ${columns}`,
    [deviceId, said.reason, said.by],
  );
  return rows[0] === undefined ? null : fromRow(rows[0]);
};

/**
 * null: it is not revoked. Its site is free again, so that a device that was moved can say its new one.
 */
export const restoreDevice = async (
  pool: Pool,
  deviceId: string,
  said: { readonly by: string; readonly reason: string },
): Promise<Revocation | null> => {
  const { rows } = await pool.query<Stored>(
    `with restored as (
       update device_revocations set restored_at = now(), restored_by = $3, restored_reason = $2
       where device_id = $1 and restored_at is null returning ${columns}
     ), unpinned as (
       delete from device_sites where device_id in (select device_id from restored)
     )
     select ${columns} from restored`,
    [deviceId, said.reason, said.by],
  );
  return rows[0] === undefined ? null : fromRow(rows[0]);
};
