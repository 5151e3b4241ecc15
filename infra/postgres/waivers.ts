/** Exclusions and overrides: table `waivers`. */
import type { Waivers } from '../../domain/ports.ts';
import type { Waiver } from '../../domain/release.ts';
import type { KnownWaiver } from '../../domain/waiver.ts';
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
  readonly asked_until: Date[];
  readonly withdrawn_at: Date | null;
  readonly withdrawn_by: string | null;
  readonly withdrawn_reason: string | null;
};

const select = `select waiver_id, family, kind, target, source_digest, reason, expires_at, decided_by, failures, asked_until,
  withdrawn_at, withdrawn_by, withdrawn_reason from waivers where family = $1`;
const inOrder = 'order by changed_at, waiver_id';

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

const knownFromRow = (row: Stored): KnownWaiver => ({
  ...fromRow(row),
  askedUntil: row.asked_until.map((end) => end.toISOString()),
  withdrawn: row.withdrawn_at && {
    ...{ by: row.withdrawn_by ?? '', reason: row.withdrawn_reason ?? '', at: row.withdrawn_at.toISOString() },
  },
});

export const createWaivers = (db: Queryable): Waivers => ({
  list: async (family) =>
    (await db.query<Stored>(`${select} and withdrawn_at is null ${inOrder}`, [family])).rows.map(fromRow),
});

/** All of a family, those that were taken back too. */
export const readWaivers = async (db: Queryable, family: string): Promise<readonly KnownWaiver[]> =>
  (await db.query<Stored>(`${select} ${inOrder}`, [family])).rows.map(knownFromRow);

/**
 * Runs `decide` on the family's waivers with nobody else deciding meanwhile, and stores what it returns. Two people who grant
 * at once are two people; one who asks twice at once is one.
 */
export const changeWaivers = <T extends { readonly waivers: readonly KnownWaiver[] }>(
  pool: Pool,
  family: string,
  decide: (known: readonly KnownWaiver[]) => T,
): Promise<T> =>
  withTransaction(pool, async (tx) => {
    await tx.query('select pg_advisory_xact_lock(hashtext($1))', [`waivers/${family}`]);
    const decided = decide(await readWaivers(tx, family));
    for (const waiver of decided.waivers) {
      const { askedUntil, withdrawn } = waiver;
      await tx.query(
        `insert into waivers (waiver_id, family, kind, target, source_digest, reason, expires_at, decided_by, failures, asked_until,
           withdrawn_at, withdrawn_by, withdrawn_reason)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
         on conflict (waiver_id) do update set decided_by = excluded.decided_by, reason = excluded.reason,
           expires_at = excluded.expires_at, asked_until = excluded.asked_until, changed_at = now(),
           withdrawn_at = excluded.withdrawn_at, withdrawn_by = excluded.withdrawn_by,
           withdrawn_reason = excluded.withdrawn_reason`,
        [
          ...[waiver.waiverId, waiver.family, waiver.kind, waiver.target, waiver.sourceDigest, waiver.reason],
          ...[waiver.expiresAt, waiver.by, waiver.failures ?? [], askedUntil],
          ...[withdrawn?.at ?? null, withdrawn?.by ?? null, withdrawn?.reason ?? null],
        ],
      );
    }
    return decided;
  });
