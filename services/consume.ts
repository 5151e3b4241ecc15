/**
 * Reading a topic with the reader's own offsets: where a partition goes on stands in PostgreSQL, beside what was made of the
 * records before, never in Kafka. The consumer group only divides the partitions among processes.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Consumer, EachBatchPayload, Kafka, KafkaMessage } from 'kafkajs';
import type { Log } from '../infra/kafka/client.ts';

/** What a service knows about one partition. After an error it is thrown away and opened again from what was committed. */
export type PartitionWork = {
  nextOffset(): number;
  /** Takes records in order, the first at `nextOffset()` or, where retention deleted records, later. */
  take(records: readonly KafkaMessage[]): Promise<void>;
  /** At the end of the process, of partitions that it still has. */
  close?(): Promise<void>;
};

const retryMs = 500;

/**
 * Runs until `stop`, which waits for the records under way and never fails. An error of `open` or `take` is logged and the same records come
 * again; a lost broker is found again. Rejects when Kafka cannot be reached at the start.
 */
export const consumePartitions = async (options: {
  readonly kafka: Kafka;
  readonly groupId: string;
  readonly topic: string;
  readonly log: Log;
  readonly open: (partition: number) => Promise<PartitionWork>;
}): Promise<{ stop(): Promise<void> }> => {
  const { kafka, groupId, topic, log, open } = options;
  const works = new Map<number, PartitionWork>();
  /** Offsets that were sought once: when the log still begins later, the records before are gone. */
  const sought = new Map<number, number>();
  const stopping = new AbortController();
  let consumer: Consumer;

  const seek = (partition: number, offset: number): void => {
    if (!stopping.signal.aborted) consumer.seek({ topic, partition, offset: String(offset) });
  };

  const eachBatch = async ({ batch }: EachBatchPayload): Promise<void> => {
    const { partition } = batch;
    const first = Number(batch.firstOffset());
    try {
      const work = works.get(partition) ?? (await open(partition));
      works.set(partition, work);
      const next = work.nextOffset();
      if (next > Number(batch.highWatermark)) {
        const fields = { topic, partition, next, end: batch.highWatermark };
        log('error', fields, 'the log ends before what was read from it: it was replaced. Nothing is read from it');
        consumer.pause([{ topic, partitions: [partition] }]);
        return;
      }
      if (first > next && sought.get(partition) !== next) {
        sought.set(partition, next);
        seek(partition, next);
        return;
      }
      if (first > next && next > 0)
        log('error', { topic, partition, next, first }, 'records were deleted before they were read');
      const fresh = batch.messages.filter((message) => Number(message.offset) >= next);
      if (fresh.length > 0) {
        await work.take(fresh);
        // Only a seek that brought nothing tells that records are gone: after a success or a failure it is tried anew.
        sought.delete(partition);
      } else if (Number(batch.lastOffset()) + 1 < next) seek(partition, next);
    } catch (error) {
      works.delete(partition);
      sought.delete(partition);
      log(
        'error',
        { topic, partition, offset: first, error: String(error) },
        'records could not be taken; they come again',
      );
      await sleep(retryMs, undefined, { signal: stopping.signal }).catch(() => {});
      seek(partition, first);
    }
  };

  const run = async (): Promise<void> => {
    consumer = kafka.consumer({
      groupId,
      // A killed process is missed this long: the least that brokers allow by default.
      sessionTimeout: 6_000,
      rebalanceTimeout: 6_000,
      heartbeatInterval: 1_000,
      maxWaitTimeInMs: 100, // records that arrive are answered at once; this bounds the wait of `stop`
      retry: { initialRetryTime: 100, maxRetryTime: 1_000, retries: 5, restartOnFailure: async () => true },
    });
    consumer.on(consumer.events.GROUP_JOIN, () => works.clear());
    consumer.on(consumer.events.CRASH, ({ payload }) => {
      if (!payload.restart) void again();
    });
    await consumer.connect();
    await consumer.subscribe({ topic, fromBeginning: true });
    await consumer.run({ autoCommit: false, partitionsConsumedConcurrently: 12, eachBatch });
  };

  /** kafkajs gives up after errors that it thinks are final; a service does not. */
  const again = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      await sleep(1_000, undefined, { signal: stopping.signal }).catch(() => {});
      if (stopping.signal.aborted) return;
      try {
        return await run();
      } catch (error) {
        log('error', { topic, error: String(error) }, 'the consumer could not be started again');
      }
    }
  };

  await run();
  return {
    stop: async () => {
      stopping.abort();
      // Also while Kafka is away: each partition is closed, and what follows this one in a process is stopped.
      const left = await Promise.allSettled([consumer.disconnect()]);
      const closed = await Promise.allSettled([...works.values()].map(async (work) => work.close?.()));
      for (const end of [...left, ...closed]) {
        if (end.status === 'rejected') log('warn', { topic, error: String(end.reason) }, 'not ended in order');
      }
    },
  };
};
