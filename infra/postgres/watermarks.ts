/** Where a consumer goes on in a partition: committed together with what it made of the records before. */
import { SigrelError } from '../../domain/errors.ts';
import type { Queryable } from './pool.ts';

/** 0 at first. */
export const readWatermark = async (
  db: Queryable,
  consumer: string,
  topic: string,
  partition: number,
): Promise<number> => {
  const { rows } = await db.query<{ next_offset: string }>(
    'select next_offset from consumer_watermarks where consumer = $1 and topic = $2 and partition = $3',
    [consumer, topic, partition],
  );
  return Number(rows[0]?.next_offset ?? 0);
};

/** Throws SRP_INTEGRITY_WATERMARK, so that the transaction writes nothing, when another process went on meanwhile. */
export const moveWatermark = async (
  tx: Queryable,
  place: {
    readonly consumer: string;
    readonly topic: string;
    readonly partition: number;
    readonly from: number;
    readonly to: number;
  },
): Promise<void> => {
  const { consumer, topic, partition, from, to } = place;
  const { rowCount } = await tx.query(
    `insert into consumer_watermarks (consumer, topic, partition, next_offset) values ($1, $2, $3, $5)
     on conflict (consumer, topic, partition) do update set next_offset = excluded.next_offset
     where consumer_watermarks.next_offset = $4`,
    [consumer, topic, partition, from, to],
  );
  if (rowCount === 1) return;
  throw new SigrelError(
    'SRP_INTEGRITY_WATERMARK',
    `another ${consumer} has gone on from offset ${from} of ${topic}, partition ${partition}; this one reads its state again`,
    { details: { topic, partition, offset: from } },
  );
};
