/** The telemetry log in memory: the twin of infra/kafka/telemetry-log.ts under the same contract suite. */
import { partitionKey, type TelemetryRecord } from '../../domain/telemetry.ts';
import { bucketOf } from '../cohort.ts';
import type { GatewayLog, RefusedReport } from '../kafka/telemetry-log.ts';
import { partitionsOf } from '../kafka/topics.ts';

export type MemoryTelemetryLog = GatewayLog & {
  /** Records of each partition, oldest first. */
  readonly partitions: readonly (readonly TelemetryRecord[])[];
  readonly refused: readonly RefusedReport[];
};

export const createMemoryTelemetryLog = (count = partitionsOf('telemetry.reports.v1')): MemoryTelemetryLog => {
  const partitions: TelemetryRecord[][] = Array.from({ length: count }, () => []);
  const refused: RefusedReport[] = [];
  return {
    partitions,
    refused,
    append: async (reports) => {
      for (const report of reports) partitions[bucketOf('', partitionKey(report)) % count]?.push({ report });
    },
    control: async (control) => {
      for (const partition of partitions) partition.push({ control });
      return Date.now();
    },
    refuse: async (reports) => {
      refused.push(...reports);
    },
  };
};
