/** Reads a whole topic as it stands now, for comparing what services made of it. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Kafka } from 'kafkajs';

export type KafkaRecord = {
  readonly partition: number;
  readonly offset: number;
  readonly appendedAt: number;
  readonly key: string | null;
  readonly value: string;
};

/** A new topic's leader may still be on its way. */
const endsOf = async (kafka: Kafka, topic: string, attempts = 50): Promise<ReadonlyMap<number, number>> => {
  const admin = kafka.admin();
  await admin.connect();
  try {
    const ends = await admin.fetchTopicOffsets(topic);
    return new Map(ends.map((end) => [end.partition, Number(end.high)]));
  } catch (error) {
    if (attempts === 0) throw error;
    await sleep(100);
    return await endsOf(kafka, topic, attempts - 1);
  } finally {
    await admin.disconnect();
  }
};

/** Every record below the end of the log at the call, ordered by partition and offset. */
export const readTopic = async (kafka: Kafka, topic: string): Promise<readonly KafkaRecord[]> => {
  const ends = await endsOf(kafka, topic);
  const records: KafkaRecord[] = [];
  const missing = () => [...ends].filter(([partition, end]) => end > (next.get(partition) ?? 0));
  const next = new Map<number, number>();
  if (missing().length === 0) return [];
  const consumer = kafka.consumer({ groupId: `read-${topic}-${Math.random()}`, maxWaitTimeInMs: 50 });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await new Promise<void>((resolve) => {
    void consumer.run({
      autoCommit: false,
      eachBatch: async ({ batch }) => {
        for (const message of batch.messages) {
          if (Number(message.offset) >= (ends.get(batch.partition) ?? 0)) break;
          records.push({
            partition: batch.partition,
            offset: Number(message.offset),
            appendedAt: Number(message.timestamp),
            key: message.key?.toString() ?? null,
            value: message.value?.toString() ?? '',
          });
        }
        next.set(batch.partition, Number(batch.lastOffset()) + 1);
        if (missing().length === 0) resolve();
      },
    });
  });
  await consumer.disconnect();
  return records.sort((a, b) => a.partition - b.partition || a.offset - b.offset);
};
