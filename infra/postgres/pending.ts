/** Windows that wait for those of other partitions. */
import type { Queryable } from './pool.ts';

/** Partitions whose window of this tick is there, while the tick is not complete. */
export const readArrivedPartitions = async (
  db: Queryable,
  releaseId: string,
  tick: number,
): Promise<readonly number[]> => {
  const { rows } = await db.query<{ partition: number }>(
    'select partition from judge_pending where release_id = $1 and tick = $2 order by partition',
    [releaseId, tick],
  );
  return rows.map(({ partition }) => partition);
};
