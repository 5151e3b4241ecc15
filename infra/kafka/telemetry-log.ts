/** The telemetry log on Kafka: reports keyed by device, control records in every partition, refused reports on the side. */
import type { Kafka, Message } from 'kafkajs';
import { SigrelError } from '../../domain/errors.ts';
import type { TelemetryLog } from '../../domain/ports.ts';
import { type ControlRecord, partitionKey, type TelemetryRecord } from '../../domain/telemetry.ts';
import { within } from '../within.ts';
import { keyPartitioner } from './client.ts';
import { deadLetterName, partitionsOf, topicName } from './topics.ts';

/** A report that the gateway refused: what came, and why. */
export type RefusedReport = { readonly reason: string; readonly received: unknown };

/** The gateway's view: what it refuses is kept too. */
export type GatewayLog = Omit<TelemetryLog, 'control'> & {
  /** Answers with the time (ms) at which the log took it, by the log's own clock. */
  control(record: ControlRecord): Promise<number>;
  /** Resolves when durable. */
  refuse(reports: readonly RefusedReport[]): Promise<void>;
};

type Batch = { readonly messages: readonly Message[] };
type Waiting = Batch & { readonly resolve: (appendedAt: number) => void; readonly reject: (error: Error) => void };

/** Records that go out in one request: what waits while a request is under way goes with the next one. */
const recordsPerRequest = 4_000;
/** Fewer bytes than a broker takes in one request and partition, should all of them go to one. */
const bytesPerRequest = 700_000;
/** A refused report is kept with at most 4 KB of what came. */
const refusedPerRequest = 100;

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

  const produce = async (topic: string, batches: readonly Batch[]): Promise<number> => {
    connected ??= producer.connect();
    await connected.catch((error: Error) => {
      connected = null;
      throw error;
    });
    const sent = await producer.send({ topic, acks: -1, messages: batches.flatMap(({ messages }) => messages) });
    return Math.max(...sent.map(({ logAppendTime }) => Number(logAppendTime)));
  };

  // Each topic has a queue of its own: what is refused never keeps genuine reports waiting, or fails with them.
  const sendTo = (topic: string): ((messages: readonly Message[]) => Promise<number>) => {
    let waiting: Waiting[] = [];
    let busy = false;
    const work = async (): Promise<void> => {
      busy = true;
      while (waiting.length > 0) {
        const next = takeUpTo(waiting);
        waiting = waiting.slice(next.length);
        try {
          // A broker that is stopped but keeps its connections open answers nothing: the client alone would wait much longer.
          const appendedAt = await within(timeoutMs, produce(topic, next));
          for (const batch of next) batch.resolve(appendedAt);
        } catch (error) {
          // What waited meanwhile would only wait as long again for the same broker.
          const failed = [...next, ...waiting];
          waiting = [];
          for (const batch of failed) batch.reject(unavailable(topic, error));
        }
      }
      busy = false;
    };
    return (messages) => {
      return new Promise((resolve, reject) => {
        waiting.push({ messages, resolve, reject });
        if (!busy) void work();
      });
    };
  };
  const toReports = sendTo(reports);
  const toRefused = sendTo(refused);

  return {
    append: async (list) => {
      const messages = list.map((report) => ({ key: partitionKey(report), value: encode({ report }) }));
      // All of them wait from now on: what is appended later must not come between.
      await Promise.all(slicesOf(messages).map(toReports));
    },
    control: (record) => {
      const value = encode({ control: record });
      const partitions = Array.from({ length: partitionsOf('telemetry.reports.v1') }, (_, partition) => partition);
      return toReports(partitions.map((partition) => ({ partition, value })));
    },
    refuse: async (list) => {
      for (let at = 0; at < list.length; at += refusedPerRequest) {
        await toRefused(list.slice(at, at + refusedPerRequest).map((one) => ({ value: JSON.stringify(one) })));
      }
    },
    close: async () => {
      await connected?.catch(() => {});
      await producer.disconnect();
    },
  };
};

const encode = (record: TelemetryRecord): string => JSON.stringify(record);

const bytesOf = ({ key, value }: Message): number => Buffer.byteLength(key ?? '') + Buffer.byteLength(value ?? '');

/**
 * In order, each small enough for one request even when all its records are of one site, and so of one partition. What was
 * appended before a slice failed comes again with the batch, and readers drop it.
 */
const slicesOf = (messages: readonly Message[]): readonly (readonly Message[])[] => {
  const slices: Message[][] = [];
  let bytes = 0;
  for (const message of messages) {
    const slice = slices.at(-1);
    bytes += bytesOf(message);
    if (slice !== undefined && bytes <= bytesPerRequest) slice.push(message);
    else {
      slices.push([message]);
      bytes = bytesOf(message);
    }
  }
  return slices;
};

/** The first batch always goes. */
const takeUpTo = (waiting: readonly Waiting[]): readonly Waiting[] => {
  let records = 0;
  let bytes = 0;
  const end = waiting.findIndex(({ messages }, index) => {
    records += messages.length;
    bytes += messages.reduce((sum, message) => sum + bytesOf(message), 0);
    return index > 0 && (records > recordsPerRequest || bytes > bytesPerRequest);
  });
  return waiting.slice(0, end === -1 ? waiting.length : end);
};

const unavailable = (topic: string, cause: unknown): SigrelError =>
  new SigrelError(
    'SRP_DEP_KAFKA',
    `Kafka did not take records for ${topic}: ${cause instanceof Error ? cause.message : String(cause)}. Nothing was acknowledged; try again when the broker is back`,
    { details: { topic }, cause },
  );
