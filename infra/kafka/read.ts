/** Reading a topic from its beginning to where it ends now, without leaving anything behind on the broker. */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import kafkajs, { type Kafka } from 'kafkajs';
import { SigrelError } from '../../domain/errors.ts';
import type { LogRecord } from '../../domain/ports.ts';

export type KeyedRecord = LogRecord & { readonly key: string };

type Wanted = {
  readonly partitions?: readonly number[];
  readonly keep?: (key: string) => boolean;
  readonly timeoutMs?: number;
  /** Only the last so many of each partition. */
  readonly last?: number;
};

/**
 * Every record of these partitions (all, when not given) up to the end at the time of the call, by partition and offset.
 * `keep` decides what is collected. Throws SRP_DEP_KAFKA when the broker is gone or does not answer in time.
 */
export const readToEnd = async (kafka: Kafka, topic: string, options: Wanted = {}): Promise<KeyedRecord[]> => {
  const deadline = Date.now() + passingMs;
  for (;;) {
    try {
      return await readOnce(kafka, topic, options);
    } catch (error) {
      if (!isPassing(error) || Date.now() > deadline) throw error;
      await sleep(250);
    }
  }
};

/** A broker that has just started answers before it leads its partitions; kafkajs gives up on that when it asks for offsets. */
const isPassing = (error: unknown): boolean =>
  error instanceof SigrelError && error.cause instanceof kafkajs.KafkaJSProtocolError && error.cause.retriable;
const passingMs = 30_000;

const readOnce = async (kafka: Kafka, topic: string, options: Wanted): Promise<KeyedRecord[]> => {
  const { keep = () => true } = options;
  const found: KeyedRecord[] = [];
  await eachRecord(kafka, topic, options, (record) => {
    if (keep(record.key)) found.push(record);
  });
  return found.sort((a, b) => a.partition - b.partition || Number(BigInt(a.offset) - BigInt(b.offset)));
};

/**
 * Hands over every record up to the end at the time of the call, each partition in its order, and keeps none. `whole`: throws
 * SRP_MISSING_LOG when the beginning of a partition has been removed. Throws SRP_DEP_KAFKA.
 */
export const eachRecord = async (
  kafka: Kafka,
  topic: string,
  options: Pick<Wanted, 'partitions' | 'timeoutMs' | 'last'> & { readonly whole?: boolean },
  take: (record: KeyedRecord) => void,
): Promise<void> => {
  const { timeoutMs = 60_000 } = options;
  const admin = kafka.admin();
  const groupId = `sigrel-read-${randomUUID()}`;
  const consumer = kafka.consumer({ groupId, maxWaitTimeInMs: 100, allowAutoTopicCreation: false });
  try {
    await admin.connect();
    const offsets = await admin.fetchTopicOffsets(topic);
    const wanted = offsets.filter(({ partition }) => options.partitions?.includes(partition) ?? true);
    const cut = wanted.find(({ low }) => options.whole && low !== '0');
    if (cut) {
      const words = `Kafka topic ${topic}, partition ${cut.partition} begins at ${cut.low}: what was before has been removed`;
      throw new SigrelError('SRP_MISSING_LOG', words);
    }
    const open = new Map(
      wanted.filter(({ low, high }) => low !== high).map(({ partition, high }) => [partition, BigInt(high)]),
    );
    if (open.size === 0) return;
    const { last = Number.POSITIVE_INFINITY } = options;
    const from = new Map(
      wanted.flatMap(({ low, high, partition }) =>
        Number(high) - last > Number(low) ? [[partition, String(Number(high) - last)] as const] : [],
      ),
    );
    await consumer.connect();
    await consumer.subscribe({ topic, fromBeginning: true });
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`not at the end after ${timeoutMs} ms`)), timeoutMs);
      const done = (error?: Error) => {
        clearTimeout(timer);
        if (error) reject(error);
        else resolve();
      };
      consumer.on('consumer.crash', ({ payload }) => done(payload.error));
      consumer
        .run({
          autoCommit: false,
          eachBatch: async ({ batch }) => {
            const end = open.get(batch.partition);
            if (end === undefined) return;
            for (const message of batch.messages) {
              const offset = BigInt(message.offset);
              if (offset >= end || offset < BigInt(from.get(batch.partition) ?? 0)) continue;
              take({
                key: message.key?.toString() ?? '',
                value: message.value ?? new Uint8Array(),
                partition: batch.partition,
                offset: message.offset,
                appendedAt: Number(message.timestamp),
              });
            }
            if (BigInt(batch.lastOffset()) + 1n >= end) open.delete(batch.partition);
            if (open.size === 0) done();
          },
        })
        .then(() => {
          for (const [partition, offset] of from) if (open.has(partition)) consumer.seek({ topic, partition, offset });
          const others = offsets.map(({ partition }) => partition).filter((partition) => !open.has(partition));
          if (others.length > 0 && open.size > 0) consumer.pause([{ topic, partitions: others }]);
        }, done);
    });
  } catch (cause) {
    if (cause instanceof SigrelError) throw cause;
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new SigrelError('SRP_DEP_KAFKA', `Kafka topic ${topic} could not be read: ${message}`, { cause });
  } finally {
    await consumer.disconnect().catch(() => {});
    await admin.deleteGroups([groupId]).catch(() => {}); // it may never have come to be
    await admin.disconnect().catch(() => {});
  }
};
