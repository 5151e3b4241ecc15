import { randomUUID } from 'node:crypto';
import type { Kafka } from 'kafkajs';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import type { TelemetryRecord } from '../../domain/telemetry.ts';
import { createKafka, silent } from '../../infra/kafka/client.ts';
import { createTelemetryLog } from '../../infra/kafka/telemetry-log.ts';
import { createTopics, deadLetterName, partitionsOf, topicName } from '../../infra/kafka/topics.ts';
import { readTopic } from '../support/kafka-log.ts';
import { telemetryLogContract } from '../support/telemetry-log-contract.ts';

const topic = 'telemetry.reports.v1';
const open: { close(): Promise<void> }[] = [];
let kafka: Kafka;
beforeAll(() => {
  kafka = createKafka({ brokers: inject('kafkaBrokers'), clientId: 'test', log: silent });
});
afterAll(async () => {
  for (const log of open) await log.close();
});

describe('telemetry log on Kafka', () => {
  telemetryLogContract(async () => {
    const prefix = `log-${randomUUID()}.`;
    await createTopics(kafka, prefix, silent);
    const log = createTelemetryLog(kafka, prefix);
    open.push(log);
    return {
      log,
      read: async () => {
        const records = await readTopic(kafka, topicName(prefix, topic));
        return Array.from({ length: partitionsOf(topic) }, (_, partition) =>
          records
            .filter((record) => record.partition === partition)
            .map((record): TelemetryRecord => JSON.parse(record.value)),
        );
      },
      readRefused: async () =>
        (await readTopic(kafka, deadLetterName(prefix, topic))).map((record) => JSON.parse(record.value)),
    };
  });
});

test('without a broker every waiting call ends within the limit with a clear error', async () => {
  const nowhere = createKafka({ brokers: ['127.0.0.1:1'], clientId: 'test', log: silent });
  const log = createTelemetryLog(nowhere, '', 2_000);
  open.push(log);
  const results = await Promise.allSettled([
    log.control({ kind: 'clock' }),
    log.append([{ deviceId: 'a', sequence: 1, body: { kind: 'healthy', contentVersion: 1 } }]),
  ]);
  for (const result of results) {
    expect(result).toMatchObject({
      status: 'rejected',
      reason: { code: 'SRP_DEP_KAFKA', message: expect.stringContaining('no answer within 2000 ms') },
    });
  }
});
