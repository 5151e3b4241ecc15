import type { EachBatchHandler, Kafka } from 'kafkajs';
import { expect, test } from 'vitest';
import { consumePartitions } from '../../services/consume.ts';

/** A consumer whose broker goes away after two batches: it cannot leave its group. */
const leavingKafka = () => {
  let take: EachBatchHandler = async () => {};
  const consumer = {
    ...{ events: { GROUP_JOIN: 'join', CRASH: 'crash' }, on: () => {}, seek: () => {}, pause: () => {} },
    ...{ connect: async () => {}, subscribe: async () => {} },
    run: async ({ eachBatch }: { eachBatch: EachBatchHandler }) => {
      take = eachBatch;
    },
    disconnect: () => Promise.reject(new Error('no broker')),
  };
  const batch = (partition: number) =>
    take({
      batch: {
        partition,
        messages: [{ offset: '0' }],
        highWatermark: '1',
        firstOffset: () => '0',
        lastOffset: () => '0',
      },
    } as unknown as Parameters<EachBatchHandler>[0]);
  return { kafka: { consumer: () => consumer } as unknown as Kafka, batch };
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
