import { randomUUID } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Kafka } from 'kafkajs';
import { afterAll, beforeAll, describe, expect, inject, test, vi } from 'vitest';
import { verifyStream } from '../../events/verify.ts';
import { createKafka, silent } from '../../infra/kafka/client.ts';
import { createKafkaEventLog, readReleaseEvents } from '../../infra/kafka/event-log.ts';
import { createProducer, type Producer } from '../../infra/kafka/produce.ts';
import { createTopics, topicName } from '../../infra/kafka/topics.ts';
import { createMemoryEventLog } from '../../infra/memory/event-log.ts';
import { discardServers, type LocalServers, readServers, startServers } from '../../infra/servers/local.ts';
import { eventLogContract, recordsOf, streamOf } from '../support/event-log-contract.ts';
import { patient } from '../support/patience.ts';

const prefix = `events-${randomUUID()}.`;
const producers: Producer[] = [];
let kafka: Kafka;
/** A new topic has a leader in the metadata a moment before that leader answers for it. */
const ready = async (client: Kafka, topicPrefix: string) => {
  await createTopics(client, topicPrefix, silent);
  await vi.waitFor(() => readReleaseEvents(client, topicPrefix), patient);
};
const openOn = (client: Kafka, topicPrefix: string, timeoutMs?: number) => {
  const producer = createProducer(client);
  producers.push(producer);
  return createKafkaEventLog({
    kafka: client,
    producer,
    topicPrefix,
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
  });
};
beforeAll(async () => {
  kafka = createKafka({ brokers: inject('kafkaBrokers'), clientId: 'test', log: silent });
  await ready(kafka, prefix);
});
afterAll(async () => {
  for (const producer of producers) await producer.close();
});

describe('release log in memory', () => {
  eventLogContract(async () => {
    const log = createMemoryEventLog();
    return { log, readAll: log.readAll };
  });
});

describe('release log on Kafka', () => {
  eventLogContract(async () => {
    const own = `events-${randomUUID()}.`;
    await ready(kafka, own);
    return { log: openOn(kafka, own), readAll: () => readReleaseEvents(kafka, own) };
  });
});

/** The first record of the topic as it stands on the broker, with its headers. */
const rawRecord = async (topic: string) => {
  const consumer = kafka.consumer({ groupId: `raw-${randomUUID()}`, maxWaitTimeInMs: 50 });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  const headers = await new Promise<Record<string, string>>((resolve, reject) => {
    consumer
      .run({
        autoCommit: false,
        eachMessage: async ({ message }) =>
          resolve(
            Object.fromEntries(Object.entries(message.headers ?? {}).map(([name, value]) => [name, String(value)])),
          ),
      })
      .catch(reject);
  });
  await consumer.disconnect();
  return headers;
};

test('the headers are CloudEvents in binary mode, so that other tools route without parsing', async () => {
  const own = `events-${randomUUID()}.`;
  await ready(kafka, own);
  const [event] = streamOf('r-headers');
  if (!event) throw new Error('the sample stream is empty');
  await openOn(kafka, own).append('r-headers', recordsOf([event]));
  const headers = await rawRecord(topicName(own, 'release.events.v1'));
  expect(headers).toMatchObject({
    'content-type': 'application/json',
    ce_specversion: '1.0',
    ce_id: event.eventId,
    ce_type: 'sigrel.ReleaseTriggered.v1',
    ce_subject: 'r-headers',
  });
  expect(headers.ce_source).not.toBe('');
  expect(Date.parse(headers['recorded-at'] ?? '')).toBeGreaterThan(0);
});

test('reading leaves no consumer group behind', async () => {
  const log = openOn(kafka, prefix);
  await log.append('r-groups', recordsOf(streamOf('r-groups').slice(0, 2)));
  const admin = kafka.admin();
  await admin.connect();
  const ours = async () =>
    (await admin.listGroups()).groups.map((group) => group.groupId).filter((id) => id.startsWith('sigrel-read-'));
  const before = await ours();
  expect(await log.read('r-groups')).toHaveLength(2);
  expect((await ours()).filter((id) => !before.includes(id))).toEqual([]);
  await admin.disconnect();
});

test('without a broker an append ends within its limit, and append and read with a clear error', async () => {
  const nowhere = createKafka({ brokers: ['127.0.0.1:1'], clientId: 'test', log: silent });
  const log = openOn(nowhere, prefix, 2_000);
  await expect(log.append('r-down', recordsOf(streamOf('r-down').slice(0, 1)))).rejects.toMatchObject({
    code: 'SRP_DEP_KAFKA',
    message: expect.stringContaining('within 2000 ms'),
  });
  await expect(log.read('r-down')).rejects.toMatchObject({ code: 'SRP_DEP_KAFKA' });
});

/** Threads of a process that are not stopped; 0 where the system does not tell. */
const threadsThatRun = (pid: number): number => {
  const dir = `/proc/${pid}/task`;
  if (!existsSync(dir)) return 0;
  const states = readdirSync(dir).map((thread) => readFileSync(join(dir, thread, 'status'), 'utf8'));
  return states.filter((status) => !/^State:\s+T/m.test(status)).length;
};

describe('a broker that is lost and comes back', () => {
  let stateDir: string;
  let servers: LocalServers;
  beforeAll(async () => {
    stateDir = await mkdtemp(join(tmpdir(), 'sigrel-event-log-'));
    // Only Kafka is started: nothing here asks the other two.
    const given = { temporal: '127.0.0.1:1', postgres: 'postgres://127.0.0.1:1/none' };
    servers = await startServers({ stateDir, given, progress: () => {} });
  });
  afterAll(async () => {
    await discardServers(stateDir);
    await rm(stateDir, { recursive: true, force: true });
  });

  test('frozen or killed: appends end within their limit, then go on by themselves, and the stream is whole', async () => {
    const client = createKafka({ brokers: servers.kafka.brokers, clientId: 'test', log: silent });
    await ready(client, '');
    const log = openOn(client, '', 1_500);
    const events = streamOf('r-lost');
    const append = (from: number, to: number) => log.append('r-lost', recordsOf(events.slice(from, to)));
    const refused = async (from: number, to: number) => {
      await expect(append(from, to)).rejects.toMatchObject({
        code: 'SRP_DEP_KAFKA',
        message: expect.stringContaining('within 1500 ms'),
      });
    };
    const retried = (from: number, to: number) => {
      const attempt = () =>
        append(from, to).then(
          () => true,
          () => false,
        );
      return expect.poll(attempt, patient).toBe(true);
    };
    await append(0, 3);

    const pid = readServers(stateDir).kafka?.process?.pid;
    if (pid === undefined) throw new Error('Kafka is not recorded');
    process.kill(pid, 'SIGSTOP');
    // A thread that runs on another core is stopped a moment later, and would answer.
    await expect.poll(() => threadsThatRun(pid), patient).toBe(0);
    await refused(3, 6).finally(() => process.kill(pid, 'SIGCONT'));
    await retried(3, 6);

    await servers.kill('kafka');
    await refused(6, 9);
    await servers.start('kafka');
    await retried(6, 9);

    const report = verifyStream('r-lost', await log.read('r-lost'));
    expect(report.findings).toEqual([]);
    expect(report.events).toEqual(events.slice(0, 9));
  });
});
