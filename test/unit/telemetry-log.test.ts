import { describe } from 'vitest';
import { createMemoryTelemetryLog } from '../../infra/memory/telemetry-log.ts';
import { telemetryLogContract } from '../support/telemetry-log-contract.ts';

describe('telemetry log in memory', () => {
  telemetryLogContract(async () => {
    const log = createMemoryTelemetryLog();
    return { log, read: async () => log.partitions, readRefused: async () => log.refused };
  });
});
