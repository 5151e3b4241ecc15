/** What processes leave when they end, on real Kafka and PostgreSQL; and the settings that they begin with. */
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Kafka, ProducerConfig, ProducerRecord } from 'kafkajs';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { defaultPolicy } from '../../domain/policy.ts';
import type { Window } from '../../domain/telemetry.ts';
import { readConfig } from '../../infra/config.ts';
import { newestKey, readKeyRing } from '../../infra/device-auth.ts';
import { createKafka, silent } from '../../infra/kafka/client.ts';
import { readDeadLetters } from '../../infra/kafka/dead-letters.ts';
import { createTelemetryLog } from '../../infra/kafka/telemetry-log.ts';
import { createTopics, deadLetterName, partitionsOf, topicName } from '../../infra/kafka/topics.ts';
import { readSnapshot } from '../../infra/postgres/snapshots.ts';
import { startAggregator } from '../../services/aggregator.ts';
import { startServices } from '../../services/all.ts';
import { createDatabase, type TestDatabase } from '../support/database.ts';
import { newFleet, pollBody } from '../support/devices.ts';
import { readTopic } from '../support/kafka-log.ts';
import { patient } from '../support/patience.ts';

const partitions = Array.from({ length: partitionsOf('telemetry.reports.v1') }, (_, partition) => partition);
let kafka: Kafka;
let database: TestDatabase;

beforeAll(async () => {
  kafka = createKafka({ brokers: inject('kafkaBrokers'), clientId: 'test', log: silent });
  database = await createDatabase();
});
afterAll(() => database?.close());

test('an aggregator whose last windows Kafka did not take writes no state that has closed them: they come again', async () => {
  const topicPrefix = `ending-${randomUUID()}.`;
  await createTopics(kafka, topicPrefix, silent);
  const telemetry = createTelemetryLog(kafka, topicPrefix);
  const [topic, windowsTopic] = [
    topicName(topicPrefix, 'telemetry.reports.v1'),
    topicName(topicPrefix, 'telemetry.windows.v1'),
  ];
  const cameOf = async (tick: number) => {
    const windows = (await readTopic(kafka, windowsTopic)).map(({ value }): Window => JSON.parse(value));
    return new Set(windows.flatMap((window) => (window.tick === tick ? [window.partition] : [])));
  };
  let refuses = false;
  const refused = new Set<number>();
  const refusing: Kafka = Object.assign(Object.create(kafka), {
    producer: (config: ProducerConfig) => {
      const producer = kafka.producer(config);
      const send = async (record: ProducerRecord) => {
        if (!refuses) return producer.send(record);
        for (const { value } of record.messages) refused.add(JSON.parse(String(value)).partition);
        throw new Error('Kafka did not take windows');
      };
      return Object.assign(Object.create(producer), { send });
    },
  });
  const options = { pool: database.pool, topicPrefix, snapshotEveryMs: 3_600_000 };
  const said: string[] = [];
  const first = await startAggregator({
    ...options,
    kafka: refusing,
    log: (_level, _fields, words) => said.push(words),
  });
  try {
    const tickMs = 100;
    await telemetry.control({
      ...{ kind: 'stage-opened', releaseId: 'r1', family: 'ips', stage: 0, salt: 's', contentVersion: 2 },
      ...{ rollbackVersion: 3, thresholds: {}, policy: { ...defaultPolicy, tickMs }, startedAt: Date.now() - tickMs },
    });
    const openedAt = Date.now();
    await expect.poll(() => cameOf(0), patient).toEqual(new Set(partitions));
    refuses = true;
    // One record that closes a further tick everywhere, and nothing after it: nobody has heard yet that it was refused.
    await expect.poll(() => Date.now() - openedAt, patient).toBeGreaterThan(2 * tickMs);
    await telemetry.control({ kind: 'clock' });
    await expect.poll(() => refused.size, patient).toBe(partitions.length);
  } finally {
    await first.stop();
  }
  expect(said).toEqual(partitions.map(() => 'the last windows were not taken; they come again'));
  const states = await Promise.all(partitions.map((partition) => readSnapshot(database.pool, topic, partition)));
  expect(states).toEqual(partitions.map(() => null));

  const second = await startAggregator({ ...options, kafka, log: silent });
  await expect.poll(() => cameOf(1), patient).toEqual(new Set(partitions));
  await second.stop();
  await telemetry.close();
});

test('the number of dead letters counts those that Kafka has removed', async () => {
  const topicPrefix = `letters-${randomUUID()}.`;
  await createTopics(kafka, topicPrefix, silent);
  const telemetry = createTelemetryLog(kafka, topicPrefix);
  const letters = Array.from({ length: 9 }, (_, n) => ({ reason: `reason ${n}`, received: '' }));
  await telemetry.refuse(letters);
  await telemetry.close();
  const topic = deadLetterName(topicPrefix, 'telemetry.reports.v1');
  const admin = kafka.admin();
  await admin.connect();
  const before = await admin.fetchTopicOffsets(topic);
  const kept = before
    .filter(({ high }) => Number(high) > 0)
    .map(({ partition, high }) => ({ partition, offset: String(Number(high) - 1) }));
  await admin.deleteTopicRecords({ topic, partitions: kept });
  await admin.disconnect();
  const read = await readDeadLetters(kafka, topicPrefix, 100);
  expect(read.letters).toHaveLength(kept.length);
  expect(read.total).toBe(letters.length);
});

test('services begin with the rates that are set, and what they listened on is free when they have ended', async () => {
  const stateDir = await mkdtemp(join(tmpdir(), 'sigrel-settings-'));
  const env = {
    SIGREL_TOPIC_PREFIX: `settings-${randomUUID()}.`,
    SIGREL_DEVICE_REPORTS_PER_SECOND: '1',
    SIGREL_DEVICE_REPORTS_AT_ONCE: '2',
  };
  const [kafkaBrokers, temporal] = [inject('kafkaBrokers'), inject('temporalAddress')];
  const services = await startServices({
    ...{ config: readConfig(env, stateDir), only: ['gateway'], codeVersion: 'test', logOf: () => silent },
    servers: { temporal, temporalUi: null, kafka: kafkaBrokers, postgres: database.url },
    progress: () => {},
  });
  const url = services.urls.gateway ?? '';
  try {
    const fleet = newFleet(url, newestKey(await readKeyRing(join(stateDir, '.sigrel', 'keys'))).key);
    const sent = await fleet.send([
      ['a', pollBody()],
      ['a', pollBody()],
      ['a', pollBody()],
      ['b', pollBody()],
    ]);
    expect(sent.map(({ status }) => status)).toEqual(['accepted', 'accepted', 'limited', 'accepted']);
  } finally {
    await services.stop();
    await rm(stateDir, { recursive: true, force: true });
  }
  await expect(fetch(`${url}/v1/status`)).rejects.toThrow();
});
