/**
 * The aggregator: folds each partition of the telemetry log into windows (domain/at-risk.ts), keeps the fleet's inventory, and
 * writes its state with the offset it belongs to.
 *
 * Why every record counts exactly once, whenever a process ends:
 * - State and offset are one row, written in one transaction with the inventory up to that offset. Whoever opens the
 *   partition next goes on from there; Kafka's own offsets are not used.
 * - A window is in its topic before a state that has closed it may be written. So a crash leaves no window out; it makes the
 *   last ones come again, byte for byte: the fold is a function of the log and reads no clock.
 * - The judge takes a window once by (release, tick, partition), drops equal repeats, refuses unequal ones, and commits its
 *   place in the windows, statistics, evidence and decisions in one transaction (infra/postgres/judge.ts).
 * - A process that lost a partition without knowing it writes the same windows, and cannot replace a newer state.
 */
import type { Kafka } from 'kafkajs';
import { emptyState, foldRecord } from '../domain/at-risk.ts';
import { fromSnapshot, toSnapshot } from '../domain/at-risk-snapshot.ts';
import { descriptionOf, type PartitionState } from '../domain/at-risk-state.ts';
import { decodeTelemetry, type Window } from '../domain/telemetry.ts';
import { bucketOf } from '../infra/cohort.ts';
import { keyPartitioner, type Log } from '../infra/kafka/client.ts';
import { partitionsOf, topicName } from '../infra/kafka/topics.ts';
import { type DeviceRow, saveDevices } from '../infra/postgres/inventory.ts';
import { type Pool, withTransaction } from '../infra/postgres/pool.ts';
import { readSnapshot, writeSnapshot } from '../infra/postgres/snapshots.ts';
import { consumePartitions, type PartitionWork } from './consume.ts';

/** A window of 30 segments has about 8 KB, a broker takes 1 MB in one request and partition. */
const windowsPerRequest = 50;

/** How soon a device's own description reaches the inventory. */
const inventoryEveryMs = 250;

/** `snapshotEveryMs`: how much of the log is folded again after a crash. Without PostgreSQL the windows go on. */
export const startAggregator = async (options: {
  readonly kafka: Kafka;
  readonly pool: Pool;
  readonly topicPrefix: string;
  readonly log: Log;
  readonly snapshotEveryMs: number;
}): Promise<{ stop(): Promise<void> }> => {
  const { kafka, pool, log } = options;
  const topic = topicName(options.topicPrefix, 'telemetry.reports.v1');
  const windowsTopic = topicName(options.topicPrefix, 'telemetry.windows.v1');
  const producer = kafka.producer({ createPartitioner: keyPartitioner, allowAutoTopicCreation: false });
  await producer.connect();

  const emit = async (windows: readonly Window[]): Promise<void> => {
    // After a long pause hundreds of ticks close at once: together they would be larger than a broker takes.
    for (let at = 0; at < windows.length; at += windowsPerRequest) {
      const messages = windows
        .slice(at, at + windowsPerRequest)
        .map((window) => ({ key: window.releaseId, value: JSON.stringify(window) }));
      await producer.send({ topic: windowsTopic, acks: -1, messages });
    }
  };

  const open = async (partition: number): Promise<PartitionWork> => {
    const state = await restore(pool, topic, partition, log);
    const saver = createSaver({ pool, topic, state, log, snapshotEveryMs: options.snapshotEveryMs });
    /** Of the batch before: the next one is folded while the broker takes them. */
    let emitted = Promise.resolve();
    return {
      nextOffset: () => state.nextOffset,
      take: async (messages) => {
        const windows: Window[] = [];
        for (const message of messages) {
          const offset = Number(message.offset);
          const record = decodeTelemetry(message.value);
          if (record === null)
            log('error', { topic, partition, offset }, 'a record that is no telemetry record was left out');
          windows.push(...foldRecord(state, record, Number(message.timestamp), offset, bucketOf).windows);
        }
        await emitted;
        emitted = emit(windows);
        emitted.catch(() => {}); // said when the next batch comes: what was folded is thrown away then
        if (!saver.isDue()) return;
        // Not before its windows are in the log: the process may end between both.
        await emitted;
        saver.save();
      },
      close: async () => {
        try {
          await emitted;
        } catch (error) {
          // No state that has closed these windows may be written: whoever opens the partition next makes them again.
          log('warn', { topic, partition, error: String(error) }, 'the last windows were not taken; they come again');
          return;
        }
        await saver.saveAll();
      },
    };
  };

  const consumer = await consumePartitions({ kafka, groupId: `${options.topicPrefix}aggregator`, topic, log, open });
  return {
    stop: async () => {
      await consumer.stop();
      await producer.disconnect();
    },
  };
};

const restore = async (pool: Pool, topic: string, partition: number, log: Log): Promise<PartitionState> => {
  const partitions = partitionsOf('telemetry.reports.v1');
  const bytes = await readSnapshot(pool, topic, partition);
  if (bytes === null) return emptyState(partition, partitions);
  const state = fromSnapshot(bytes);
  if (state !== null) return state;
  log(
    'warn',
    { topic, partition },
    'the snapshot is of another version: the log is folded again from its beginning. Windows of releases that are open may differ from those before, and are refused then: let open releases end before an upgrade',
  );
  return emptyState(partition, partitions);
};

type Saver = {
  /** Whether there is something to write, and it is time. */
  isDue(): boolean;
  /** Starts writing what is due; never waits and never fails the fold. */
  save(): void;
  /** Everything, at the end of a process. */
  saveAll(): Promise<void>;
};

/** Writes a partition's inventory and state beside the fold. What could not be written is written with the next try. */
const createSaver = (options: {
  readonly pool: Pool;
  readonly topic: string;
  readonly state: PartitionState;
  readonly log: Log;
  readonly snapshotEveryMs: number;
}): Saver => {
  const { pool, topic, state, log, snapshotEveryMs } = options;
  const { partition, partitions, described } = state;
  let written = state.nextOffset;
  // One partition after the other, not all at once.
  let snapshotAt = Date.now() - (snapshotEveryMs * partition) / partitions;
  let inventoryAt = 0;
  let saving = Promise.resolve();
  let busy = false;

  const isSnapshotDue = () => Date.now() - snapshotAt >= snapshotEveryMs;
  const isInventoryDue = () => described.size > 0 && Date.now() - inventoryAt >= inventoryEveryMs;

  const write = async (withSnapshot: boolean): Promise<void> => {
    const taken = [...described];
    const rows = taken.flatMap(([deviceId, { describedAt, site }]): DeviceRow[] => {
      const description = descriptionOf(state, deviceId);
      return description === null
        ? []
        : [{ deviceId, ...(site !== undefined && { site }), ...description, describedAt }];
    });
    described.clear();
    const { nextOffset } = state;
    // Made before anything else is folded: state, offset and inventory belong together.
    const bytes = withSnapshot && nextOffset > written ? toSnapshot(state) : null;
    try {
      await withTransaction(pool, async (tx) => {
        await saveDevices(tx, rows);
        if (bytes !== null) await writeSnapshot(tx, { topic, partition, nextOffset, state: bytes });
      });
      if (bytes !== null) written = nextOffset;
    } catch (error) {
      for (const [deviceId, news] of taken) if (!described.has(deviceId)) described.set(deviceId, news);
      log('warn', { topic, partition, error: String(error) }, 'inventory and snapshot were not written; tried again');
    }
  };

  return {
    isDue: () => !busy && (isSnapshotDue() || isInventoryDue()),
    save: () => {
      const withSnapshot = isSnapshotDue();
      if (withSnapshot) snapshotAt = Date.now();
      inventoryAt = Date.now();
      busy = true;
      saving = write(withSnapshot).finally(() => {
        busy = false;
      });
    },
    saveAll: async () => {
      await saving;
      await write(true);
    },
  };
};
