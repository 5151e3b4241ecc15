/** A database of a test's own on the run's PostgreSQL. */
import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { inject } from 'vitest';
import { silent } from '../../infra/kafka/client.ts';
import { migrate } from '../../infra/postgres/migrate.ts';
import { createPool, type Pool } from '../../infra/postgres/pool.ts';

export type TestDatabase = {
  readonly pool: Pool;
  readonly url: string;
  /** Another process's connections to it; closed with the database. */
  readonly openPool: () => Pool;
  /** Drops it, whoever is still connected. */
  close(): Promise<void>;
};

const asAdmin = async (sql: string): Promise<void> => {
  const admin = new pg.Client({ connectionString: inject('postgresUrl') });
  await admin.connect();
  await admin.query(sql);
  await admin.end();
};

/** Without any table. */
export const createEmptyDatabase = async (): Promise<TestDatabase> => {
  const name = `test_${randomUUID().replaceAll('-', '')}`;
  await asAdmin(`create database ${name}`);
  const url = new URL(inject('postgresUrl'));
  url.pathname = `/${name}`;
  const pools: Pool[] = [];
  const openPool = (): Pool => {
    const pool = createPool(url.href, 'test', silent);
    pools.push(pool);
    return pool;
  };
  return {
    pool: openPool(),
    url: url.href,
    openPool,
    close: async () => {
      await Promise.all(pools.map((pool) => pool.end()));
      await asAdmin(`drop database ${name} with (force)`);
    },
  };
};

/** With the schema of today. */
export const createDatabase = async (): Promise<TestDatabase> => {
  const database = await createEmptyDatabase();
  await migrate(database.pool, silent);
  return database;
};
