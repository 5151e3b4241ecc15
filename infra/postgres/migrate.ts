/**
 * Schema migrations: numbered SQL files, forward only, one transaction each, under an advisory lock, with the SHA-256 of
 * each applied file kept and compared at every start.
 */
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SigrelError } from '../../domain/errors.ts';
import type { Log } from '../kafka/client.ts';
import type { Pool } from './pool.ts';

const folder = join(import.meta.dirname, 'migrations');
const lockKey = 0x5167_7265; // any constant; the same for every process that migrates

type Migration = { readonly id: number; readonly name: string; readonly sql: string; readonly sha256: string };

/**
 * Applies what is missing, in order of the files' numbers; returns the names applied. Processes that start together wait
 * for each other. Throws SRP_INTEGRITY_MIGRATION when an applied file changed or the database knows one that is not here.
 */
export const migrate = async (pool: Pool, log: Log, from = folder): Promise<readonly string[]> => {
  const migrations = await readMigrations(from);
  const client = await pool.connect();
  client.on('error', () => {}); // the statement that finds the connection broken fails by itself
  try {
    await client.query('select pg_advisory_lock($1)', [lockKey]);
    await client.query(`create table if not exists schema_migrations (
      id integer primary key, name text not null, sha256 text not null, applied_at timestamptz not null default now())`);
    const { rows } = await client.query<{ id: number; name: string; sha256: string }>(
      'select id, name, sha256 from schema_migrations order by id',
    );
    for (const row of rows) refuseForeign(row, migrations);
    const applied = new Set(rows.map((row) => row.id));
    const missing = migrations.filter((migration) => !applied.has(migration.id));
    for (const migration of missing) {
      await client.query('begin');
      try {
        await client.query('insert into schema_migrations (id, name, sha256) values ($1, $2, $3)', [
          migration.id,
          migration.name,
          migration.sha256,
        ]);
        await client.query(migration.sql);
        await client.query('commit');
      } catch (error) {
        await client.query('rollback');
        throw new SigrelError('SRP_DEP_MIGRATION', `migration ${migration.name} failed: ${String(error)}`, {
          details: { migration: migration.name },
          cause: error,
        });
      }
      log('info', { migration: migration.name }, 'database migrated');
    }
    return missing.map((migration) => migration.name);
  } finally {
    await client.query('select pg_advisory_unlock($1)', [lockKey]).catch(() => {});
    client.release();
  }
};

const readMigrations = async (from: string): Promise<readonly Migration[]> => {
  const names = (await readdir(from)).filter((name) => /^\d{6}_[a-z0-9_]+\.sql$/.test(name)).sort();
  return Promise.all(
    names.map(async (name) => {
      const sql = await readFile(join(from, name), 'utf8');
      return { id: Number(name.slice(0, 6)), name, sql, sha256: createHash('sha256').update(sql).digest('hex') };
    }),
  );
};

const refuseForeign = (
  row: { readonly id: number; readonly name: string; readonly sha256: string },
  migrations: readonly Migration[],
): void => {
  const file = migrations.find((migration) => migration.id === row.id);
  if (file?.sha256 === row.sha256) return;
  throw new SigrelError(
    'SRP_INTEGRITY_MIGRATION',
    file === undefined
      ? `the database has migration ${row.name}, which this program does not know: it was written by a newer sigrel. Run that version`
      : `migration ${file.name} was changed after it had been applied (as ${row.name}): restore the file and write a new migration instead`,
    { details: { migration: row.name } },
  );
};
