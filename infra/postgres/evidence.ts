/** What the judge has written, for those who decide on it and for people. */
import type { TickEvidence } from '../../domain/judge/session.ts';
import type { EvidenceReader } from '../../domain/ports.ts';
import type { Verdict } from '../../domain/release.ts';
import type { JudgeStatus } from '../../domain/stage-rule.ts';
import type { Pool, Queryable } from './pool.ts';

type StatusRow = {
  readonly last_tick: number;
  readonly last_window_closed_at: string;
  readonly stage: number;
  readonly stat_a: number;
  readonly stat_b: number;
  readonly leading_cell: string;
  readonly counts: JudgeStatus['counts'];
  readonly exposed: JudgeStatus['exposed'];
  readonly open_trials: JudgeStatus['openTrials'];
  readonly first_harm_at: string | null;
  readonly promote: JudgeStatus['promote'];
  readonly holds: JudgeStatus['holds'];
  readonly halt: Verdict | null;
  readonly refused: string | null;
};

export const createEvidenceReader = (pool: Pool): EvidenceReader => ({
  judgeStatus: async (releaseId) => {
    const { rows } = await pool.query<StatusRow>(
      `select last_tick, last_window_closed_at, stage, stat_a, stat_b, leading_cell, counts, exposed, open_trials,
         first_harm_at, promote, holds, halt, refused
       from judge_status where release_id = $1`,
      [releaseId],
    );
    const row = rows[0];
    if (row === undefined) return null;
    return {
      releaseId,
      lastTick: row.last_tick,
      lastWindowClosedAt: Number(row.last_window_closed_at),
      stage: row.stage,
      statA: row.stat_a,
      statB: row.stat_b,
      leading: row.leading_cell,
      counts: row.counts,
      exposed: row.exposed,
      openTrials: row.open_trials,
      firstHarmAt: row.first_harm_at === null ? null : Number(row.first_harm_at),
      promote: row.promote,
      holds: row.holds,
      halt: row.halt,
      refused: row.refused,
    };
  },
});

type EvidenceRow = {
  readonly tick: number;
  readonly stage: number;
  readonly leaves: TickEvidence['leaves'];
  readonly counts: TickEvidence['counts'];
  readonly exposed: TickEvidence['exposed'];
  readonly open_trials: TickEvidence['openTrials'];
  readonly offsets: TickEvidence['offsets'];
  readonly stat_a: number;
  readonly stat_b: number;
  readonly leading_cell: string;
};

/** Ticks of a release in order, for people: `limit` of them from tick `from`, or all. */
export const readEvidence = async (
  db: Queryable,
  releaseId: string,
  { from, limit }: { readonly from: number; readonly limit: number | null } = { from: 0, limit: null },
): Promise<readonly TickEvidence[]> => {
  const { rows } = await db.query<EvidenceRow>(
    `select tick, stage, leaves, counts, exposed, open_trials, offsets, stat_a, stat_b, leading_cell
     from evidence where release_id = $1 and tick >= $2 order by tick limit $3`,
    [releaseId, from, limit],
  );
  return rows.map((row) => ({
    releaseId,
    tick: row.tick,
    stage: row.stage,
    leaves: row.leaves,
    counts: row.counts,
    exposed: row.exposed,
    openTrials: row.open_trials,
    offsets: row.offsets,
    statA: row.stat_a,
    statB: row.stat_b,
    leading: row.leading_cell,
  }));
};
