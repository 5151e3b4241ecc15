/** Exclusions and overrides: table `waivers`. */
import type { Waivers } from '../../domain/ports.ts';
import type { Waiver } from '../../domain/release.ts';
import { type Pool, type Queryable, withTransaction } from './pool.ts';

type Stored = {
  readonly waiver_id: string;
  readonly family: string;
  readonly kind: Waiver['kind'];
  readonly target: string;
  readonly source_digest: string | null;
  readonly reason: string;
  readonly expires_at: Date;
  readonly decided_by: string[];
  readonly failures: string[];
};

const select =
  'select waiver_id, family, kind, target, source_digest, reason, expires_at, decided_by, failures from waivers where family = $1 order by changed_at, waiver_id';

const fromRow = (row: Stored): Waiver => ({
  waiverId: row.waiver_id,
  family: row.family,
  kind: row.kind,
  target: row.target,
  sourceDigest: row.source_digest,
  reason: row.reason,
  expiresAt: row.expires_at.toISOString(),
  by: row.decided_by,
  ...(row.kind === 'override' ? { failures: row.failures } : {}),
});

export const createWaivers = (db: Queryable): Waivers => ({
  list: async (family) => (await db.query<Stored>(select, [family])).rows.map(fromRow),
});

/**
 * Runs `decide` on the family's waivers with nobody else deciding meanwhile, and stores what it returns. Two people who grant
 * at once are two people; one who asks twice at once is one.
 */
export const changeWaivers = <T extends { readonly waiver: Waiver | null }>(
  pool: Pool,
  family: string,
  decide: (known: readonly Waiver[]) => T,
): Promise<T> =>
  withTransaction(pool, async (tx) => {
    await tx.query('select pg_advisory_xact_lock(hashtext($1))', [`waivers/${family}`]);
    const decided = decide(await createWaivers(tx).list(family));
    const { waiver } = decided;
    if (waiver) {
      await tx.query(
        `insert into waivers (waiver_id, family, kind, target, source_digest, reason, expires_at, decided_by, failures)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         on conflict (waiver_id) do update set decided_by = excluded.decided_by, reason = excluded.reason,
           expires_at = excluded.expires_at, changed_at = now()`,
        [
          ...[waiver.waiverId, waiver.family, waiver.kind, waiver.target, waiver.sourceDigest, waiver.reason],
          ...[waiver.expiresAt, waiver.by, waiver.failures ?? []],
        ],
      );
    }
    return decided;
  });
