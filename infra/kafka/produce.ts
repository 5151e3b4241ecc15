/** A producer that reconnects by itself and whose failures are bounded: a caller never hangs on a broker that is gone. */
import kafkajs, { type Kafka, type Message } from 'kafkajs';
import { SigrelError } from '../../domain/errors.ts';
import { keyPartitioner } from './client.ts';

// A CommonJS module: Node finds only some of its names for a named import.
const { CompressionTypes, KafkaJSError } = kafkajs;

export type Producer = {
  /** Resolves when every message is durable (acks=all), in order. Throws SRP_DEP_KAFKA, retryable, after a few seconds. */
  send(topic: string, messages: Message[]): Promise<void>;
  close(): Promise<void>;
};

export const createProducer = (kafka: Kafka): Producer => {
  const producer = kafka.producer({
    allowAutoTopicCreation: false,
    createPartitioner: keyPartitioner,
    maxInFlightRequests: 1, // keeps the order of one stream
    retry: { initialRetryTime: 100, maxRetryTime: 1_000, retries: 4 },
  });
  let connected: Promise<void> | null = null;
  return {
    send: async (topic, messages) => {
      try {
        connected ??= producer.connect();
        await connected;
        await producer.send({ topic, messages, acks: -1, compression: CompressionTypes.None });
      } catch (cause) {
        connected = null;
        if (!(cause instanceof KafkaJSError)) throw cause;
        throw new SigrelError(
          'SRP_DEP_KAFKA',
          `Kafka did not take ${messages.length} records for ${topic}: ${cause.message}`,
          {
            cause,
          },
        );
      }
    },
    close: () => producer.disconnect(),
  };
};
