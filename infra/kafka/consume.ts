/**
 * A consumer whose position is its owner's, not the group's: the owner commits what it made of the records together with
 * where it goes on, and says so at every (re)join. The group only divides the partitions among processes.
 */
import type { Kafka } from 'kafkajs';
import type { LogRecord } from '../../domain/ports.ts';
import type { Log } from './client.ts';

export type Consumption = {
  readonly kafka: Kafka;
  readonly groupId: string;
  readonly topic: string;
  readonly log: Log;
  /** Loads the owner's state of a partition and returns the next offset it wants. Called after every join. */
  readonly begin: (partition: number) => Promise<bigint>;
  /** Records in order, beginning with the offset that is next. Rejecting means that they come again. */
  readonly handle: (partition: number, records: readonly (LogRecord & { readonly key: string })[]) => Promise<void>;
};

/** Resolves once the consumer runs. `stop` waits for the batch in hand. */
export const consume = async (options: Consumption): Promise<{ stop(): Promise<void> }> => {
  const { kafka, groupId, topic, log, begin, handle } = options;
  const consumer = kafka.consumer({
    groupId,
    maxWaitTimeInMs: 100, // a partition that was busy joins the next fetch: this bounds how long it waits for it
    sessionTimeout: 10_000,
    heartbeatInterval: 2_000,
    allowAutoTopicCreation: false,
    retry: { initialRetryTime: 100, maxRetryTime: 1_000, retries: 5, restartOnFailure: async () => true },
  });
  let next = new Map<number, bigint>();
  let sought = new Map<number, bigint>();
  consumer.on('consumer.group_join', () => {
    next = new Map();
    sought = new Map();
  });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await consumer.run({
    autoCommit: false,
    eachBatch: async ({ batch, isRunning, isStale }) => {
      const { partition } = batch;
      if (batch.messages.length === 0 || !isRunning() || isStale()) return;
      let wanted = next.get(partition);
      if (wanted === undefined) {
        wanted = await begin(partition);
        next.set(partition, wanted);
      }
      const first = BigInt(batch.firstOffset() ?? 0);
      const last = BigInt(batch.lastOffset());
      const elsewhere = last < wanted || first > wanted;
      if (elsewhere && sought.get(partition) !== wanted) {
        sought.set(partition, wanted);
        consumer.seek({ topic, partition, offset: wanted.toString() });
        return;
      }
      if (last < wanted) return;
      if (first > wanted)
        log(
          'warn',
          { topic, partition, wanted: `${wanted}`, first: `${first}` },
          'records are gone: retention was shorter than the pause',
        );
      const records = batch.messages
        .filter((message) => BigInt(message.offset) >= (wanted ?? 0n))
        .map((message) => ({
          key: message.key?.toString() ?? '',
          value: message.value ?? new Uint8Array(),
          partition,
          offset: message.offset,
          appendedAt: Number(message.timestamp),
        }));
      try {
        await handle(partition, records);
        next.set(partition, last + 1n);
      } catch (error) {
        next.delete(partition); // the owner begins again from what it has committed
        throw error;
      }
    },
  });
  return {
    stop: async () => {
      await consumer.disconnect();
    },
  };
};
