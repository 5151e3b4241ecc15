import { type EachBatchPayload, Kafka, type KafkaMessage, logLevel } from 'kafkajs';
import { expect, test, vi } from 'vitest';
import { consumePartitions } from '../../services/consume.ts';

/** One record, which begins and ends its partition. */
const batchOf = (partition: number): EachBatchPayload => {
  const message: KafkaMessage = {
    ...{ key: null, value: null, timestamp: '0', attributes: 0, offset: '0', headers: {} },
  };
  return {
    batch: {
      ...{ topic: 't', partition, messages: [message], highWatermark: '1', isEmpty: () => false },
      ...{ firstOffset: () => '0', lastOffset: () => '0', offsetLag: () => '0', offsetLagLow: () => '0' },
    },
    ...{ resolveOffset: () => {}, heartbeat: async () => {}, pause: () => () => {} },
    ...{ commitOffsetsIfNecessary: async () => {}, uncommittedOffsets: () => ({ topics: [] }) },
    ...{ isRunning: () => true, isStale: () => false },
  };
};

/** A client whose broker goes away after two batches: its consumer cannot leave its group. */
const leavingKafka = () => {
  const kafka = new Kafka({ brokers: ['nowhere:9092'], logLevel: logLevel.NOTHING });
  const consumer = kafka.consumer({ groupId: 'g' });
  vi.spyOn(kafka, 'consumer').mockReturnValue(consumer);
  vi.spyOn(consumer, 'connect').mockResolvedValue();
  vi.spyOn(consumer, 'subscribe').mockResolvedValue();
  vi.spyOn(consumer, 'disconnect').mockRejectedValue(new Error('no broker'));
  const run = vi.spyOn(consumer, 'run').mockResolvedValue();
  const batch = (partition: number) => run.mock.calls[0]?.[0]?.eachBatch?.(batchOf(partition));
  return { kafka, batch };
};

test('a consumer that stops while Kafka is away closes every partition and says what failed', async () => {
  const { kafka, batch } = leavingKafka();
  const said: unknown[] = [];
  const closed: number[] = [];
  const open = async (partition: number) => ({
    nextOffset: () => 0,
    take: async () => {},
    close: async () => {
      if (partition === 0) throw new Error('not taken');
      closed.push(partition);
    },
  });
  const log = (_level: unknown, { error }: Readonly<Record<string, unknown>>) => said.push(error);
  const consumer = await consumePartitions({ kafka, groupId: 'g', topic: 't', log, open });
  await batch(0);
  await batch(1);
  await consumer.stop();
  expect(closed).toEqual([1]);
  expect(said).toEqual(['Error: no broker', 'Error: not taken']);
});
