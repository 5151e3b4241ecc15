/**
 * The aggregator: folds each partition of the telemetry log into windows (domain/at-risk.ts), keeps the fleet's inventory, and
 * writes its state with the offset it belongs to. After a crash it emits some windows again, equal to the first ones: they
 * are a function of the log.
 */
import type { Kafka } from 'kafkajs';
import { emptyState, foldRecord } from '../domain/at-risk.ts';
import { fromSnapshot, type PartitionState, toSnapshot } from '../domain/at-risk-state.ts';
import { type DeviceReport, decodeTelemetry, type Window } from '../domain/telemetry.ts';
import { bucketOf } from '../infra/cohort.ts';
import { keyPartitioner, type Log } from '../infra/kafka/client.ts';
import { partitionsOf, topicName } from '../infra/kafka/topics.ts';
import { type DeviceRow, saveDevices } from '../infra/postgres/inventory.ts';
import { type Pool, withTransaction } from '../infra/postgres/pool.ts';
import { readSnapshot, writeSnapshot } from '../infra/postgres/snapshots.ts';
import { consumePartitions, type PartitionWork } from './consume.ts';

type Poll = Extract<DeviceReport['body'], { kind: 'poll' }>;

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
  const savers = new Map<number, Saver>();

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
    return {
      nextOffset: () => state.nextOffset,
      take: async (messages) => {
        // A state whose windows are not in the log is never written: the process may end between both.
        savers.delete(partition);
        const windows: Window[] = [];
        for (const message of messages) {
          const offset = Number(message.offset);
          const record = decodeTelemetry(message.value);
          if (record === null)
            log('error', { topic, partition, offset }, 'a record that is no telemetry record was left out');
          windows.push(...foldRecord(state, record, Number(message.timestamp), offset, bucketOf).windows);
          if (record !== null && 'report' in record && record.report.body.kind === 'poll') {
            saver.polled(record.report.deviceId, record.report.body, offset);
          }
        }
        await emit(windows);
        savers.set(partition, saver);
        saver.saveWhenDue();
      },
    };
  };

  const consumer = await consumePartitions({ kafka, groupId: `${options.topicPrefix}aggregator`, topic, log, open });
  return {
    stop: async () => {
      await consumer.stop();
      await Promise.all([...savers.values()].map((saver) => saver.saveAll()));
      await producer.disconnect();
    },
  };
};

const restore = async (pool: Pool, topic: string, partition: number, log: Log): Promise<PartitionState> => {
  const partitions = partitionsOf('telemetry.reports.v1');
  const text = await readSnapshot(pool, topic, partition);
  if (text === null) return emptyState(partition, partitions);
  const state = fromSnapshot(JSON.parse(text));
  if (state !== null) return state;
  log('warn', { topic, partition }, 'the snapshot is of another version: the log is folded again from its beginning');
  return emptyState(partition, partitions);
};

type Saver = {
  polled(deviceId: string, poll: Poll, offset: number): void;
  /** Starts writing what is due; never waits and never fails the fold. */
  saveWhenDue(): void;
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
  const { partition } = state;
  const shown = new Map<string, Poll>();
  const changed = new Map<string, DeviceRow>();
  let written = state.nextOffset;
  let snapshotAt = Date.now();
  let inventoryAt = 0;
  let saving = Promise.resolve();
  let busy = false;

  const save = async (withSnapshot: boolean): Promise<void> => {
    const rows = [...changed.values()];
    const { nextOffset } = state;
    // Made before anything else is folded: state and offset belong together.
    const text = withSnapshot && nextOffset > written ? JSON.stringify(toSnapshot(state)) : null;
    changed.clear();
    try {
      await withTransaction(pool, async (tx) => {
        await saveDevices(tx, rows);
        if (text !== null) await writeSnapshot(tx, { topic, partition, nextOffset, state: text });
      });
      if (text !== null) written = nextOffset;
    } catch (error) {
      for (const row of rows) if (!changed.has(row.deviceId)) changed.set(row.deviceId, row);
      log('warn', { topic, partition, error: String(error) }, 'inventory and snapshot were not written; tried again');
    }
  };

  return {
    polled: (deviceId, poll, offset) => {
      const before = shown.get(deviceId);
      if (before !== undefined && sameDescription(before, poll)) return;
      shown.set(deviceId, poll);
      changed.set(deviceId, {
        deviceId,
        engine: poll.engine,
        failMode: poll.failMode,
        contentVersion: poll.contentVersion,
        offset,
      });
    },
    saveWhenDue: () => {
      const now = Date.now();
      const snapshotDue = now - snapshotAt >= snapshotEveryMs;
      const inventoryDue = changed.size > 0 && now - inventoryAt >= inventoryEveryMs;
      if (busy || (!snapshotDue && !inventoryDue)) return;
      if (snapshotDue) snapshotAt = now;
      inventoryAt = now;
      busy = true;
      saving = save(snapshotDue).finally(() => {
        busy = false;
      });
    },
    saveAll: async () => {
      await saving;
      await save(true);
    },
  };
};

const sameDescription = (a: Poll, b: Poll): boolean =>
  a.contentVersion === b.contentVersion &&
  a.failMode === b.failMode &&
  a.engine.digest === b.engine.digest &&
  a.engine.packageVersion === b.engine.packageVersion &&
  a.engine.version === b.engine.version &&
  a.engine.name === b.engine.name;
