/** The read side: releases as the projector folded them. */
import type { ReleaseHistory } from '../../domain/ports.ts';
import type { ReleaseState } from '../../domain/release-state.ts';
import type { StoredEvent } from '../../events/catalogue.ts';
import type { Queryable } from './pool.ts';

export type ReleaseRow = { readonly state: ReleaseState; readonly headHash: string };

type Stored = { readonly state: ReleaseState; readonly head_hash: string };

/** null: the projector knows no such release (yet). */
export const readRelease = async (db: Queryable, releaseId: string): Promise<ReleaseRow | null> => {
  const { rows } = await db.query<Stored>('select state, head_hash from releases where release_id = $1', [releaseId]);
  const row = rows[0];
  return row === undefined ? null : { state: row.state, headHash: row.head_hash };
};

export type ReleaseFilter = {
  readonly family?: string | undefined;
  readonly phases?: readonly string[] | undefined;
  readonly limit: number;
};

/** Newest first. */
export const listReleases = async (db: Queryable, filter: ReleaseFilter): Promise<readonly ReleaseState[]> => {
  const { rows } = await db.query<{ state: ReleaseState }>(
    `select state from releases
     where ($1::text is null or family = $1) and ($2::text[] is null or phase = any($2))
     order by started_at desc, release_id limit $3`,
    [filter.family ?? null, filter.phases ?? null, filter.limit],
  );
  return rows.map((row) => row.state);
};

export const createReleaseHistory = (db: Queryable): ReleaseHistory => ({
  firstUses: async (family) => {
    const { rows } = await db.query<{ first_use: ReleaseState['firstUse'] }>(
      `select state->'firstUse' as first_use from releases
       where family = $1 and phase = 'completed' and json_array_length(state->'firstUse') > 0`,
      [family],
    );
    return rows.flatMap((row) => row.first_use);
  },
  sourceAt: async (family, time) => {
    const { rows } = await db.query<{ source: string }>(
      `select state->>'sourceDigest' as source from releases
       where family = $1 and phase = 'completed' and changed_at <= $2 order by changed_at desc, release_id limit 1`,
      [family, new Date(time)],
    );
    return rows[0]?.source ?? null;
  },
});

export const saveRelease = async (db: Queryable, { state, headHash }: ReleaseRow): Promise<void> => {
  await db.query(
    `insert into releases (release_id, family, phase, seq, started_at, changed_at, state, head_hash)
     values ($1, $2, $3, $4, $5, $6, $7, $8)
     on conflict (release_id) do update set phase = excluded.phase, seq = excluded.seq,
       changed_at = excluded.changed_at, state = excluded.state, head_hash = excluded.head_hash`,
    [
      state.releaseId,
      state.family,
      state.phase,
      state.seq,
      state.startedAt,
      state.changedAt,
      JSON.stringify(state),
      headHash,
    ],
  );
};

export type Place = { readonly partition: number; readonly offset: string };

/** Hash of the event that was folded under this number; null when none was. */
export const readEventHash = async (db: Queryable, releaseId: string, seq: number): Promise<string | null> => {
  const { rows } = await db.query<{ hash: string }>(
    'select hash from release_events where release_id = $1 and seq = $2',
    [releaseId, seq],
  );
  return rows[0]?.hash ?? null;
};

export const saveEvent = async (db: Queryable, event: StoredEvent, place: Place): Promise<void> => {
  await db.query(
    `insert into release_events (release_id, seq, type, occurred_at, hash, partition, log_offset)
     values ($1, $2, $3, $4, $5, $6, $7)`,
    [event.streamId, event.seq, event.type, event.occurredAt, event.hash, place.partition, place.offset],
  );
};

export type Quarantined = {
  readonly releaseId: string;
  readonly seq: number | null;
  readonly kind: 'undecodable' | 'stream' | 'hash' | 'fork' | 'gap' | 'chain';
  readonly words: string;
};

/** Takes any text: PostgreSQL has no NUL, and what is set aside must not stop who sets it aside. */
export const quarantine = async (db: Queryable, found: Quarantined, place: Place): Promise<void> => {
  const shown = (text: string) => text.replaceAll('\0', '\ufffd');
  await db.query(
    `insert into quarantined_events (partition, log_offset, release_id, seq, kind, words) values ($1, $2, $3, $4, $5, $6)
     on conflict do nothing`,
    [place.partition, place.offset, shown(found.releaseId), found.seq, found.kind, shown(found.words)],
  );
};

export const readQuarantine = async (db: Queryable, releaseId: string): Promise<readonly (Quarantined & Place)[]> => {
  const { rows } = await db.query<{
    seq: string | null;
    kind: Quarantined['kind'];
    words: string;
    partition: number;
    log_offset: string;
  }>(
    `select seq, kind, words, partition, log_offset from quarantined_events where release_id = $1
     order by partition, log_offset`,
    [releaseId],
  );
  return rows.map(({ seq, log_offset, ...row }) => ({
    ...{ releaseId, seq: seq === null ? null : Number(seq) },
    ...row,
    offset: log_offset,
  }));
};
