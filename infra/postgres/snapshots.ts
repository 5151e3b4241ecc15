/** The aggregator's state of a partition, with the offset where it goes on: table `aggregator_snapshots`. */
import type { Pool, Queryable } from './pool.ts';

/** `state` as it was written; null when there is none. */
export const readSnapshot = async (pool: Pool, topic: string, partition: number): Promise<Uint8Array | null> => {
  const { rows } = await pool.query<{ state: Buffer }>(
    'select state from aggregator_snapshots where topic = $1 and partition = $2',
    [topic, partition],
  );
  return rows[0]?.state ?? null;
};

/** An older state never replaces a newer one: a process that lost the partition may still be writing. */
export const writeSnapshot = async (
  db: Queryable,
  snapshot: {
    readonly topic: string;
    readonly partition: number;
    readonly nextOffset: number;
    readonly state: Uint8Array;
  },
): Promise<void> => {
  const { buffer, byteOffset, byteLength } = snapshot.state;
  await db.query(
    `insert into aggregator_snapshots (topic, partition, next_offset, state) values ($1, $2, $3, $4)
     on conflict (topic, partition) do update
       set next_offset = excluded.next_offset, state = excluded.state, written_at = now()
     where aggregator_snapshots.next_offset < excluded.next_offset`,
    [snapshot.topic, snapshot.partition, snapshot.nextOffset, Buffer.from(buffer, byteOffset, byteLength)],
  );
};
