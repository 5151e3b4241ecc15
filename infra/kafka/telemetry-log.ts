/** The telemetry log on Kafka: reports keyed by device, control records in every partition, refused reports on the side. */
import type { Kafka, Message } from 'kafkajs';
import { SigrelError } from '../../domain/errors.ts';
import type { TelemetryLog } from '../../domain/ports.ts';
import type { TelemetryRecord } from '../../domain/telemetry.ts';
import { keyPartitioner } from './client.ts';
import { deadLetterName, partitionsOf, topicName } from './topics.ts';

/** A report that the gateway refused: what came, and why. */
export type RefusedReport = { readonly reason: string; readonly received: unknown };

/** The gateway's view: what it refuses is kept too. */
export type GatewayLog = TelemetryLog & {
  /** Resolves when durable. */
  refuse(reports: readonly RefusedReport[]): Promise<void>;
};

type Batch = { readonly topic: string; readonly messages: readonly Message[] };
type Waiting = Batch & { readonly resolve: () => void; readonly reject: (error: Error) => void };

/** Records that go out in one request: what waits while a request is under way goes with the next one. */
const recordsPerRequest = 4_000;

/**
 * Connects on first use and again by itself after an outage. Every call ends within `timeoutMs` (default 5 s): throws
 * SRP_DEP_KAFKA, after which the records may be in the log nevertheless (readers drop repeats by device and sequence).
 */
export const createTelemetryLog = (
  kafka: Kafka,
  topicPrefix: string,
  timeoutMs = 5_000,
): GatewayLog & { close(): Promise<void> } => {
  const reports = topicName(topicPrefix, 'telemetry.reports.v1');
  const refused = deadLetterName(topicPrefix, 'telemetry.reports.v1');
  const producer = kafka.producer({
    createPartitioner: keyPartitioner,
    allowAutoTopicCreation: false,
    retry: { initialRetryTime: 100, maxRetryTime: 1_000, retries: 3 },
  });
  let connected: Promise<void> | null = null;
  let waiting: Waiting[] = [];
  let busy = false;

  const produce = async (batches: readonly Batch[]): Promise<void> => {
    connected ??= producer.connect();
    await connected.catch((error: Error) => {
      connected = null;
      throw error;
    });
    const byTopic = new Map<string, Message[]>();
    for (const batch of batches) byTopic.set(batch.topic, [...(byTopic.get(batch.topic) ?? []), ...batch.messages]);
    await producer.sendBatch({
      acks: -1,
      topicMessages: [...byTopic].map(([topic, messages]) => ({ topic, messages })),
    });
  };

  const work = async (): Promise<void> => {
    busy = true;
    while (waiting.length > 0) {
      const next = takeUpTo(recordsPerRequest, waiting);
      waiting = waiting.slice(next.length);
      try {
        await within(timeoutMs, produce(next));
        for (const batch of next) batch.resolve();
      } catch (error) {
        // What waited meanwhile would only wait as long again for the same broker.
        const failed = [...next, ...waiting];
        waiting = [];
        for (const batch of failed) batch.reject(unavailable(batch.topic, error));
      }
    }
    busy = false;
  };

  const send = (topic: string, messages: readonly Message[]): Promise<void> => {
    if (messages.length === 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      waiting.push({ topic, messages, resolve, reject });
      if (!busy) void work();
    });
  };

  return {
    append: (list) =>
      send(
        reports,
        list.map((report) => ({ key: report.deviceId, value: encode({ report }) })),
      ),
    control: (record) => {
      const value = encode({ control: record });
      const partitions = Array.from({ length: partitionsOf('telemetry.reports.v1') }, (_, partition) => partition);
      return send(
        reports,
        partitions.map((partition) => ({ partition, value })),
      );
    },
    refuse: (list) =>
      send(
        refused,
        list.map((one) => ({ value: JSON.stringify(one) })),
      ),
    close: async () => {
      await connected?.catch(() => {});
      await producer.disconnect();
    },
  };
};

const encode = (record: TelemetryRecord): string => JSON.stringify(record);

const takeUpTo = (records: number, waiting: readonly Waiting[]): readonly Waiting[] => {
  let sum = 0;
  const end = waiting.findIndex((batch, index) => {
    sum += batch.messages.length;
    return index > 0 && sum > records;
  });
  return waiting.slice(0, end === -1 ? waiting.length : end);
};

/** A broker that is stopped but keeps its connections open answers nothing: the client alone would wait much longer. */
const within = async (ms: number, work: Promise<void>): Promise<void> => {
  let timer: NodeJS.Timeout | undefined;
  const expired = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${ms} ms`)), ms);
  });
  try {
    await Promise.race([work, expired]);
  } finally {
    clearTimeout(timer);
  }
};

const unavailable = (topic: string, cause: unknown): SigrelError =>
  new SigrelError(
    'SRP_DEP_KAFKA',
    `Kafka did not take records for ${topic}: ${cause instanceof Error ? cause.message : String(cause)}. Nothing was acknowledged; try again when the broker is back`,
    { details: { topic }, cause },
  );
