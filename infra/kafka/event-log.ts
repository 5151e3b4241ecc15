/** The release log on Kafka: `release.events.v1`, keyed by release id, with CloudEvents attributes for other tools. */
import type { Kafka } from 'kafkajs';
import type { EventLog } from '../../domain/ports.ts';
import { keyPartitioner } from './client.ts';
import type { Producer } from './produce.ts';
import { type KeyedRecord, readToEnd } from './read.ts';
import { partitionsOf, topicName } from './topics.ts';

export const createKafkaEventLog = (options: {
  readonly kafka: Kafka;
  readonly producer: Producer;
  readonly topicPrefix: string;
}): EventLog => {
  const topic = topicName(options.topicPrefix, 'release.events.v1');
  return {
    append: (releaseId, records) =>
      options.producer.send(
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
      ),
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
