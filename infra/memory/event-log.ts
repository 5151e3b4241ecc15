/** The release log in memory: the twin of infra/kafka/event-log.ts under the same contract suite. */
import type { EventLog, LogRecord } from '../../domain/ports.ts';
import { bucketOf } from '../cohort.ts';
import { partitionsOf } from '../kafka/topics.ts';

type KeyedRecord = LogRecord & { readonly key: string };

export type MemoryEventLog = EventLog & {
  /** Every record of the log, by partition and offset. */
  readAll(): Promise<readonly KeyedRecord[]>;
};

/** `now` gives the append time (ms), which only grows within the log. Keeps its own copy of what it is given. */
export const createMemoryEventLog = (now: () => number = Date.now): MemoryEventLog => {
  const count = partitionsOf('release.events.v1');
  const partitions: KeyedRecord[][] = Array.from({ length: count }, () => []);
  // Not the broker's partitioner: which partition it is means nothing, that it stays the same does.
  const partitionOf = (releaseId: string): number => bucketOf('', releaseId) % count;
  const copy = (record: KeyedRecord): KeyedRecord => ({ ...record, value: Uint8Array.from(record.value) });
  return {
    append: async (releaseId, records) => {
      const partition = partitionOf(releaseId);
      const log = partitions[partition] ?? [];
      for (const { value } of records) {
        const appendedAt = Math.max(now(), log.at(-1)?.appendedAt ?? 0);
        log.push(copy({ key: releaseId, value, partition, offset: String(log.length), appendedAt }));
      }
    },
    read: async (releaseId) =>
      (partitions[partitionOf(releaseId)] ?? []).filter((record) => record.key === releaseId).map(copy),
    readAll: async () => partitions.flat().map(copy),
  };
};
