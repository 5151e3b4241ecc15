/**
 * The judge's tables. What was made of a partition's windows and the offset after them are committed together: a window
 * that was folded twice would inflate the evidence.
 */
import {
  type PendingWindow,
  restoreSession,
  type Session,
  type StoredSession,
  storeSession,
  type TickResult,
} from '../../domain/judge/session.ts';
import type { Verdict } from '../../domain/release.ts';
import { type Pool, type Queryable, withTransaction } from './pool.ts';
import { moveWatermark } from './watermarks.ts';

const consumer = 'judge';

/** null: nothing was committed of this release. `digestOf` names the windows that still wait. */
export const readSession = async (
  db: Queryable,
  releaseId: string,
  digestOf: (window: unknown) => string,
): Promise<Session | null> => {
  const { rows } = await db.query<{ state: string }>('select state from judge_states where release_id = $1', [
    releaseId,
  ]);
  const state = rows[0]?.state;
  if (state === undefined) return null;
  const pending = await db.query<{ body: string }>('select body from judge_pending where release_id = $1', [releaseId]);
  const stored: StoredSession = JSON.parse(state);
  return restoreSession(
    stored,
    pending.rows.map(({ body }): PendingWindow => {
      const window = JSON.parse(body);
      return { window, digest: digestOf(window) };
    }),
  );
};

/** Digest of a window that was folded earlier; null when that tick has none of this partition. */
export const readFoldedDigest = async (
  db: Queryable,
  releaseId: string,
  tick: number,
  partition: number,
): Promise<string | null> => {
  const { rows } = await db.query<{ offsets: readonly { readonly partition: number; readonly digest: string }[] }>(
    'select offsets from evidence where release_id = $1 and tick = $2',
    [releaseId, tick],
  );
  return rows[0]?.offsets.find((origin) => origin.partition === partition)?.digest ?? null;
};

/** What one batch of windows changed in one release. */
export type SessionChange = {
  readonly session: Session;
  /** Windows of this batch that still wait. */
  readonly waiting: readonly PendingWindow[];
  readonly results: readonly TickResult[];
  /** The session itself changed: a tick was folded, or it refuses. */
  readonly changed: boolean;
};

/**
 * Commits a batch: from `from` to `to` in this partition. Throws SRP_INTEGRITY_WATERMARK, with nothing written, when another
 * judge went on meanwhile.
 */
export const commitBatch = (
  pool: Pool,
  place: { readonly topic: string; readonly partition: number; readonly from: number; readonly to: number },
  changes: readonly SessionChange[],
): Promise<void> =>
  withTransaction(pool, async (tx) => {
    await moveWatermark(tx, { consumer, ...place });
    for (const change of changes) await writeChange(tx, change);
  });

const writeChange = async (tx: Queryable, { session, waiting, results, changed }: SessionChange): Promise<void> => {
  const { releaseId } = session;
  if (waiting.length > 0) {
    const rows = waiting.map(({ window }) => ({
      tick: window.tick,
      partition: window.partition,
      body: JSON.stringify(window),
    }));
    await tx.query(
      `insert into judge_pending (release_id, tick, partition, body)
       select $1, tick, partition, body from json_to_recordset($2::json) as w(tick integer, partition integer, body text)`,
      [releaseId, JSON.stringify(rows)],
    );
  }
  if (changed || waiting.length > 0) {
    await tx.query(
      `insert into judge_states (release_id, state) values ($1, $2)
       on conflict (release_id) do ${changed ? 'update set state = excluded.state' : 'nothing'}`,
      [releaseId, JSON.stringify(storeSession(session))],
    );
  }
  for (const result of results) await writeEvidence(tx, result);
  if (session.refused !== null) await writeRefusal(tx, releaseId, session.refused);
  const last = results.at(-1);
  if (last === undefined) return;
  await tx.query('delete from judge_pending where release_id = $1 and tick <= $2', [releaseId, last.evidence.tick]);
  await writeStatus(tx, last);
  for (const { verdicts } of results) {
    for (const verdict of verdicts) {
      await tx.query('insert into decisions (release_id, kind, cell, tick, verdict) values ($1, $2, $3, $4, $5)', [
        releaseId,
        verdict.kind,
        verdict.cell,
        verdict.tick,
        JSON.stringify(verdict),
      ]);
    }
  }
};

const writeEvidence = async (tx: Queryable, { evidence }: TickResult): Promise<void> => {
  await tx.query(
    `insert into evidence (release_id, tick, stage, leaves, counts, exposed, open_trials, offsets, stat_a, stat_b,
       leading_cell)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
    [
      evidence.releaseId,
      evidence.tick,
      evidence.stage,
      JSON.stringify(evidence.leaves),
      JSON.stringify(evidence.counts),
      JSON.stringify(evidence.exposed),
      JSON.stringify(evidence.openTrials),
      JSON.stringify(evidence.offsets),
      evidence.statA,
      evidence.statB,
      evidence.leading,
    ],
  );
};

/** Also of a release of which no tick was ever folded. */
const writeRefusal = (tx: Queryable, releaseId: string, why: string) =>
  tx.query(
    `insert into judge_status (release_id, last_tick, last_window_closed_at, stage, stat_a, stat_b, leading_cell, counts,
       exposed, open_trials, promote, holds, refused)
     values ($1, -1, 0, 0, 0, 0, '', '{}', '{}', '{}', '{"cell": "", "value": 0, "limit": 20}', '[]', $2)
     on conflict (release_id) do update set refused = excluded.refused`,
    [releaseId, why],
  );

const writeStatus = async (tx: Queryable, { status }: TickResult): Promise<void> => {
  await tx.query(
    `insert into judge_status (release_id, last_tick, last_window_closed_at, stage, stat_a, stat_b, leading_cell, counts,
       exposed, open_trials, first_harm_at, promote, holds, halt)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
     on conflict (release_id) do update set last_tick = excluded.last_tick,
       last_window_closed_at = excluded.last_window_closed_at, stage = excluded.stage, stat_a = excluded.stat_a,
       stat_b = excluded.stat_b, leading_cell = excluded.leading_cell, counts = excluded.counts, exposed = excluded.exposed,
       open_trials = excluded.open_trials, first_harm_at = excluded.first_harm_at, promote = excluded.promote,
       holds = excluded.holds, halt = excluded.halt`,
    [
      status.releaseId,
      status.lastTick,
      status.lastWindowClosedAt,
      status.stage,
      status.statA,
      status.statB,
      status.leading,
      JSON.stringify(status.counts),
      JSON.stringify(status.exposed),
      JSON.stringify(status.openTrials),
      status.firstHarmAt,
      JSON.stringify(status.promote),
      JSON.stringify(status.holds),
      status.halt === null ? null : JSON.stringify(status.halt),
    ],
  );
};

export type Decision = { readonly releaseId: string; readonly verdict: Verdict };

/** Decisions that nobody has taken yet, oldest first. */
export const readDecisionsToNotify = async (db: Queryable): Promise<readonly Decision[]> => {
  const { rows } = await db.query<{ release_id: string; verdict: Verdict }>(
    'select release_id, verdict from decisions where notified_at is null order by decided_at, kind, cell',
  );
  return rows.map((row) => ({ releaseId: row.release_id, verdict: row.verdict }));
};

export const markNotified = async (db: Queryable, { releaseId, verdict }: Decision): Promise<void> => {
  await db.query('update decisions set notified_at = now() where release_id = $1 and kind = $2 and cell = $3', [
    releaseId,
    verdict.kind,
    verdict.cell,
  ]);
};
