/**
 * The topics: created by us with explicit partitions and retention, never by a typo in a producer. A keyed topic's
 * partition count is part of its contract (ordering by key, telemetry state per partition) and is never changed.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Kafka } from 'kafkajs';
import { SigrelError } from '../../domain/errors.ts';
import type { Log } from './client.ts';

const days = (n: number): number => n * 24 * 3_600_000;
const forEver = -1;
const anySize = -1;
/** Whoever can reach the gateway decides what is in a dead-letter topic: it must not fill the disk of the others. */
const deadLetterBytes = 2 ** 30;

const catalogue = {
  'release.events.v1': { partitions: 12, retentionMs: forEver },
  'telemetry.reports.v1': { partitions: 12, retentionMs: days(7) },
  'telemetry.windows.v1': { partitions: 12, retentionMs: days(90) },
  'distribution.events.v1': { partitions: 3, retentionMs: forEver },
  'ops.events.v1': { partitions: 3, retentionMs: forEver },
} as const;

export type Topic = keyof typeof catalogue;

/** The name on the broker. The prefix isolates tests and installations that share a broker. */
export const topicName = (prefix: string, topic: Topic): string => `${prefix}${topic}`;
export const deadLetterName = (prefix: string, topic: Topic): string => `${prefix}${topic}.dlq`;
export const partitionsOf = (topic: Topic): number => catalogue[topic].partitions;

// Time is the broker's everywhere: the tick of a report must not depend on a producer's clock.
const wanted = (prefix: string) =>
  (Object.keys(catalogue) as Topic[]).flatMap((topic) => [
    { name: topicName(prefix, topic), ...catalogue[topic], retentionBytes: anySize },
    { name: deadLetterName(prefix, topic), partitions: 1, retentionMs: days(30), retentionBytes: deadLetterBytes },
  ]);

/**
 * Creates what is missing and waits until every partition has a leader that answers. Idempotent. Throws SRP_DEP_KAFKA_TOPIC when a
 * topic is there with another partition count, or is not usable within `timeoutMs`.
 */
export const createTopics = async (kafka: Kafka, prefix: string, log: Log, timeoutMs = 30_000): Promise<void> => {
  const admin = kafka.admin();
  await admin.connect();
  try {
    const topics = wanted(prefix);
    const created = await admin.createTopics({
      waitForLeaders: false, // can throw on a fresh KRaft broker: the metadata is polled below instead
      topics: topics.map((topic) => ({
        topic: topic.name,
        numPartitions: topic.partitions,
        replicationFactor: -1,
        configEntries: [
          { name: 'retention.ms', value: String(topic.retentionMs) },
          { name: 'retention.bytes', value: String(topic.retentionBytes) },
          { name: 'message.timestamp.type', value: 'LogAppendTime' },
        ],
      })),
    });
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      const missing = await notReady(admin, topics);
      if (missing === null) break;
      if (Date.now() > deadline) {
        throw new SigrelError(
          'SRP_DEP_KAFKA_TOPIC',
          `Kafka topic ${missing} has no leader after ${timeoutMs} ms; look at the broker's log`,
          { details: { topic: missing } },
        );
      }
      await sleep(100);
    }
    log('info', { created, prefix }, 'kafka topics are ready');
  } finally {
    await admin.disconnect();
  }
};

/** The first topic that cannot be used yet; null when all can. */
const notReady = async (
  admin: ReturnType<Kafka['admin']>,
  topics: readonly { readonly name: string; readonly partitions: number }[],
): Promise<string | null> => {
  const existing = new Set(await admin.listTopics());
  const absent = topics.find((topic) => !existing.has(topic.name));
  if (absent) return absent.name;
  const found = await admin.fetchTopicMetadata({ topics: topics.map((topic) => topic.name) }).catch(() => null);
  for (const topic of topics) {
    const partitions = found?.topics.find((candidate) => candidate.name === topic.name)?.partitions ?? [];
    if (partitions.length === 0 || partitions.some((partition) => partition.leader < 0)) return topic.name;
    if (partitions.length !== topic.partitions) {
      throw new SigrelError(
        'SRP_DEP_KAFKA_TOPIC',
        `Kafka topic ${topic.name} has ${partitions.length} partitions, expected ${topic.partitions}: a keyed topic's count cannot be changed. Use another SIGREL_TOPIC_PREFIX or remove the topic`,
        { details: { topic: topic.name, partitions: partitions.length, expected: topic.partitions } },
      );
    }
  }
  // A leader stands in the metadata a moment before it answers as one.
  const answers = await Promise.all(
    topics.map((topic) =>
      admin.fetchTopicOffsets(topic.name).then(
        () => null,
        () => topic.name,
      ),
    ),
  );
  return answers.find((name) => name !== null) ?? null;
};
