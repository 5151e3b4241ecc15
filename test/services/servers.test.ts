import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Kafka, logLevel } from 'kafkajs';
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { discardServers, type LocalServers, readServers, startServers } from '../../infra/servers/local.ts';
import { identify, isSame } from '../../infra/servers/processes.ts';
import { patient } from '../support/patience.ts';

let stateDir: string;
let servers: LocalServers;
const bring = () => startServers({ stateDir, progress: () => {} });

beforeAll(async () => {
  stateDir = await mkdtemp(join(tmpdir(), 'sigrel-servers-'));
  servers = await bring();
});
afterAll(async () => {
  await discardServers(stateDir);
  await rm(stateDir, { recursive: true, force: true });
});

test('a second start finds the running ones and starts nothing', async () => {
  const before = readServers(stateDir);
  const again = await bring();
  expect([...again.found].sort()).toEqual(['kafka', 'postgres', 'temporal']);
  expect(readServers(stateDir)).toEqual(before);
});

test('PostgreSQL killed and started again keeps what was committed', async () => {
  const query = async (sql: string) => {
    const client = new pg.Client({ connectionString: servers.postgres.url });
    await client.connect();
    const result = await client.query(sql);
    await client.end();
    return result.rows;
  };
  await query('create table kept (n int)');
  await query('insert into kept values (42)');
  await servers.kill('postgres');
  await servers.start('postgres');
  expect(await query('select n from kept')).toEqual([{ n: 42 }]);
});

test('Kafka killed and started again keeps its address and what was acknowledged', async () => {
  const kafka = new Kafka({ brokers: [...servers.kafka.brokers], logLevel: logLevel.NOTHING });
  const admin = kafka.admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic: 'kept', numPartitions: 1 }], waitForLeaders: false });
  const producer = kafka.producer({ allowAutoTopicCreation: false });
  await producer.connect();
  await expect
    .poll(
      () =>
        producer.send({ topic: 'kept', acks: -1, messages: [{ value: 'a' }] }).then(
          () => true,
          () => false,
        ),
      patient,
    )
    .toBe(true);
  await producer.disconnect();
  await admin.disconnect();
  await servers.kill('kafka');
  await servers.start('kafka');
  await admin.connect();
  expect(await admin.fetchTopicOffsets('kept')).toMatchObject([{ partition: 0, high: '1' }]);
  await admin.disconnect();
});

test('a recorded pid that belongs to another process now is neither used nor killed', async () => {
  const stranger = spawn('sleep', ['60']);
  const pid = stranger.pid ?? 0;
  const other = await mkdtemp(join(tmpdir(), 'sigrel-stale-'));
  const stale = { address: '127.0.0.1:1', ports: [1, 2], process: { pid, started: 1 } };
  await writeFile(join(other, 'servers.json'), JSON.stringify({ kafka: stale, temporal: stale, postgres: stale }));
  expect(readServers(other)).toEqual({});
  await discardServers(other);
  expect(isSame(identify(pid))).toBe(true);
  stranger.kill('SIGKILL');
  await rm(other, { recursive: true });
});

test('the record names every server with its process and ports', async () => {
  const record = JSON.parse(await readFile(join(stateDir, 'servers.json'), 'utf8'));
  for (const name of ['temporal', 'kafka', 'postgres']) expect(isSame(record[name].process)).toBe(true);
});
