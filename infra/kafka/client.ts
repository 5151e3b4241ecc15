/** The one way to make a kafkajs client: addresses, identity, retries, and its log bridged into ours. */
import { Kafka, type LogEntry, logLevel, Partitioners } from 'kafkajs';
import { guardIdleTimer } from './kafkajs-guard.ts';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';
/** What adapters need of a logger; a pino instance fits through `(level, fields, message) => pino[level](fields, message)`. */
export type Log = (level: LogLevel, fields: Readonly<Record<string, unknown>>, message: string) => void;

export const silent: Log = () => {};

/** The partitioner of every keyed topic: it never changes, and neither does a keyed topic's partition count. */
export const keyPartitioner = Partitioners.DefaultPartitioner;

/** A client; connects on first use. `clientId` names the service in the broker's logs. */
export const createKafka = (options: {
  readonly brokers: readonly string[];
  readonly clientId: string;
  readonly log: Log;
}): Kafka => {
  guardIdleTimer();
  return new Kafka({
    brokers: [...options.brokers],
    clientId: options.clientId,
    connectionTimeout: 3_000,
    requestTimeout: 15_000,
    retry: { initialRetryTime: 100, maxRetryTime: 3_000, retries: 8 },
    logLevel: logLevel.INFO,
    logCreator: () => (entry) => options.log(levelOf(entry), fieldsOf(entry), `kafka: ${entry.log.message}`),
  });
};

const levels: Readonly<Record<number, LogLevel>> = {
  [logLevel.DEBUG]: 'debug',
  [logLevel.INFO]: 'debug',
  [logLevel.WARN]: 'info',
  [logLevel.ERROR]: 'warn',
};

// Answers like "the coordinator is loading" are logged as errors by the connection and then retried; what is given up
// on reaches the caller as a rejected promise. So only a crashed consumer, which nobody awaits, is an error here.
const levelOf = (entry: LogEntry): LogLevel => {
  if (entry.level === logLevel.ERROR && ['Connection', 'BrokerPool'].includes(entry.namespace)) return 'info';
  if (entry.level === logLevel.ERROR && entry.log.message.startsWith('Crash')) return 'error';
  return levels[entry.level] ?? 'debug';
};

const fieldsOf = (entry: LogEntry): Record<string, unknown> => {
  const { message: _message, timestamp: _timestamp, logger: _logger, stack: _stack, ...fields } = entry.log;
  return { namespace: entry.namespace, ...fields };
};
