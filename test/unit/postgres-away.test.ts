/** What the api answers while PostgreSQL is away or starts again: whoever follows a release asks again, and nobody is told of a bug. */
import { createServer, type Server, type Socket } from 'node:net';
import pg from 'pg';
import { afterEach, expect, test } from 'vitest';
import { problemOf } from '../../services/api/server.ts';

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

/** What a client says of a server that does this to whoever connects. */
const errorOf = async (onConnection: (socket: Socket) => void): Promise<Error> => {
  const server = createServer((socket) => {
    socket.on('error', () => {});
    onConnection(socket);
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the server has no port');
  const pool = new pg.Pool({ host: '127.0.0.1', port: address.port, user: 'u', query_timeout: 50 });
  try {
    return await pool.query('select 1').then(
      () => new Error('the query was answered'),
      (error: Error) => error,
    );
  } finally {
    await pool.end();
  }
};

/** A message of PostgreSQL's protocol. */
const message = (type: string, body: Buffer): Buffer => {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(4 + body.length);
  return Buffer.concat([Buffer.from(type), length, body]);
};
const refusal = (sqlState: string): Buffer =>
  message('E', Buffer.from(`SFATAL\0C${sqlState}\0Mit cannot be done now\0\0`));
const welcome = Buffer.concat([message('R', Buffer.alloc(4)), message('Z', Buffer.from('I'))]);

const refusing = (sqlState: string) => (socket: Socket) =>
  void socket.once('data', () => socket.end(refusal(sqlState)));

test.each([
  ['ends', refusing('57P01')],
  ['starts', refusing('57P03')],
  ['ended a statement that took too long', refusing('57014')],
  ['lost the connection', refusing('08006')],
  ['hangs up', (socket: Socket) => void socket.once('data', () => socket.end())],
  ['vanishes', (socket: Socket) => void socket.once('data', () => socket.resetAndDestroy())],
  ['says nothing any more', (socket: Socket) => void socket.once('data', () => socket.write(welcome))],
])('a database that %s does not answer', async (_name, onConnection) => {
  expect(problemOf(await errorOf(onConnection))).toMatchObject({
    ...{ status: 503, code: 'SRP_DEP_POSTGRES' },
    detail: expect.stringMatching(/^PostgreSQL does not answer: .+/),
  });
});

test('nor does one that is not there, under each of the addresses of its name', () => {
  const refused = Object.assign(new AggregateError([new Error('connect ECONNREFUSED ::1:5432')]), {
    code: 'ECONNREFUSED',
  });
  expect(problemOf(refused)).toMatchObject({ status: 503, code: 'SRP_DEP_POSTGRES' });
});

test('a statement that the database does not understand is a bug', async () => {
  expect(problemOf(await errorOf(refusing('42P01')))).toMatchObject({ status: 500, code: 'SRP_BUG_INTERNAL' });
});
