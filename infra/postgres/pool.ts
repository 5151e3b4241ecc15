/** Connections to PostgreSQL. Repositories take a `Queryable`, so that the caller decides about the transaction. */
import pg from 'pg';
import type { Log } from '../kafka/client.ts';

export type Pool = pg.Pool;
export type Queryable = Pick<pg.ClientBase, 'query'>;

/** `application` shows in pg_stat_activity. Statements that hang are ended by the server after 30 s. */
export const createPool = (url: string, application: string, log: Log): Pool => {
  const pool = new pg.Pool({
    connectionString: url,
    application_name: `sigrel-${application}`,
    max: 8,
    connectionTimeoutMillis: 5_000,
    statement_timeout: 30_000,
    query_timeout: 35_000, // a server that vanished without a word answers no statement timeout
    keepAlive: true,
    idle_in_transaction_session_timeout: 30_000,
  });
  // An idle connection that breaks (server restarted) is replaced on next use; unhandled it would end the process.
  pool.on('error', (error) => log('warn', { error: error.message }, 'an idle database connection broke'));
  return pool;
};

/** PostgreSQL refused the data itself (SQLSTATE class 22: text with NUL, a number out of range): it will at every attempt. */
export const isDataError = (error: unknown): error is Error =>
  error instanceof pg.DatabaseError && error.code?.startsWith('22') === true;

/** SQLSTATE: the connection broke, the server ends or starts, or ended a statement that took too long. */
const awayStates = /^(08|57P|57014$)/;
const awayErrors = ['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'EHOSTUNREACH', 'ENOTFOUND', 'EAI_AGAIN'];
/** What the client says without a code of its own. */
const awayWords = /^(Connection terminated|Query read timeout|timeout e|Client .* is not queryable)/;

/** PostgreSQL does not answer, or not now: the same may be asked again. */
export const isAway = (error: Error & { readonly code?: string }): boolean => {
  const { code = '', message } = error;
  return error instanceof pg.DatabaseError
    ? awayStates.test(code)
    : awayErrors.includes(code) || awayWords.test(message);
};

/** Runs `work` in one transaction: committed when it resolves, rolled back when it rejects. */
export const withTransaction = async <T>(pool: Pool, work: (tx: Queryable) => Promise<T>): Promise<T> => {
  const client = await pool.connect();
  let broken: Error | undefined;
  // A server that dies between two statements says so by an event: nobody listening, it would end the process.
  const onError = (error: Error): void => {
    broken = error;
  };
  client.on('error', onError);
  try {
    await client.query('begin');
    const result = await work(client);
    await client.query('commit');
    return result;
  } catch (error) {
    await client.query('rollback').catch((failure: Error) => {
      broken = failure;
    });
    throw error;
  } finally {
    client.off('error', onError);
    client.release(broken);
  }
};
