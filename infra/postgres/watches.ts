/** Who still looks at a stage: table `release_watches`. */
import type { Watches } from '../../domain/ports.ts';
import type { Pool } from './pool.ts';

export const createWatches = (pool: Pool): Watches => ({
  // The last one counts, also when it is earlier: what a clock that was ahead has said must not stand for an hour.
  note: async (releaseId, at) => {
    await pool.query(
      `insert into release_watches (release_id, seen_at) values ($1, $2)
       on conflict (release_id) do update set seen_at = excluded.seen_at`,
      [releaseId, at],
    );
  },
  lastSeen: async (releaseId) => {
    const { rows } = await pool.query<{ seen_at: string }>(
      'select seen_at from release_watches where release_id = $1',
      [releaseId],
    );
    return rows[0] === undefined ? null : Number(rows[0].seen_at);
  },
});
