/** The release log on Kafka: `release.events.v1`, keyed by release id, with CloudEvents attributes for other tools. */
import type { Kafka } from 'kafkajs';
import { SigrelError } from '../../domain/errors.ts';
import type { EventLog } from '../../domain/ports.ts';
import { within } from '../within.ts';
import { keyPartitioner } from './client.ts';
import type { Producer } from './produce.ts';
import { type KeyedRecord, readToEnd } from './read.ts';
import { partitionsOf, topicName } from './topics.ts';

/**
 * An append ends within `timeoutMs` (default 10 s) whatever the broker does: throws SRP_DEP_KAFKA, after which its records
 * may still reach the log. Repeating it is safe, because readers drop equal repeats by (stream, number).
 */
export const createKafkaEventLog = (options: {
  readonly kafka: Kafka;
  readonly producer: Producer;
  readonly topicPrefix: string;
  readonly timeoutMs?: number;
}): EventLog => {
  const { timeoutMs = 10_000 } = options;
  const topic = topicName(options.topicPrefix, 'release.events.v1');
  return {
    append: async (releaseId, records) => {
      if (records.length === 0) return;
      const sent = options.producer.send(
        topic,
        records.map(({ eventId, type, value }) => ({
          key: releaseId,
          value: Buffer.from(value),
          // Not hashed: what differs between attempts belongs here.
          headers: {
            'content-type': 'application/json',
            ce_specversion: '1.0',
            ce_id: eventId,
            ce_type: `sigrel.${type}.v1`,
            ce_source: 'sigrel/release',
            ce_subject: releaseId,
            'recorded-at': new Date().toISOString(),
          },
        })),
      );
      await acknowledgedWithin(timeoutMs, topic, sent);
    },
    read: (releaseId) =>
      readToEnd(options.kafka, topic, { partitions: [partitionOf(releaseId)], keep: (key) => key === releaseId }),
  };
};

/** Every record of the release log. */
export const readReleaseEvents = (kafka: Kafka, topicPrefix: string): Promise<KeyedRecord[]> =>
  readToEnd(kafka, topicName(topicPrefix, 'release.events.v1'));

const partitionOf = (key: string): number => {
  const count = partitionsOf('release.events.v1');
  const partitionMetadata = Array.from({ length: count }, (_, partitionId) => ({
    ...{ partitionErrorCode: 0, partitionId, leader: 1, replicas: [], isr: [] },
  }));
  return keyPartitioner()({ topic: '', partitionMetadata, message: { key, value: null } });
};

/** The client's own retries add up: measured 23 s on a broker that was killed, 77 s on one that is stopped but connected. */
export const acknowledgedWithin = (ms: number, topic: string, sent: Promise<void>): Promise<void> =>
  within(
    ms,
    sent,
    () =>
      new SigrelError(
        'SRP_DEP_KAFKA',
        `Kafka did not acknowledge records for ${topic} within ${ms} ms. Try again when the broker is back: a repeat is safe`,
        { details: { topic, timeoutMs: ms } },
      ),
  );
