/** Reports that the gateway refused, as they stand in the dead-letter topic. */
import type { Kafka } from 'kafkajs';
import { SigrelError } from '../../domain/errors.ts';
import { readToEnd } from './read.ts';
import { deadLetterName } from './topics.ts';

export type DeadLetter = { readonly at: string; readonly reason: string; readonly received: string };

/** The last `limit`, oldest first, and how many there have been, those that Kafka has removed included. Throws SRP_DEP_KAFKA. */
export const readDeadLetters = async (
  kafka: Kafka,
  topicPrefix: string,
  limit: number,
): Promise<{ readonly letters: readonly DeadLetter[]; readonly total: number }> => {
  const topic = deadLetterName(topicPrefix, 'telemetry.reports.v1');
  const records = await readToEnd(kafka, topic, { last: limit });
  const letters = records.map(({ value, appendedAt }) => toLetter(value, appendedAt));
  return { letters, total: await endOf(kafka, topic) };
};

/** The offset after the last record, whether or not any is left. */
const endOf = async (kafka: Kafka, topic: string): Promise<number> => {
  const admin = kafka.admin();
  try {
    await admin.connect();
    return (await admin.fetchTopicOffsets(topic)).reduce((sum, { high }) => sum + Number(high), 0);
  } catch (error) {
    throw unavailable(topic, error);
  } finally {
    await admin.disconnect().catch(() => {});
  }
};

const unavailable = (topic: string, cause: unknown): SigrelError =>
  new SigrelError('SRP_DEP_KAFKA', `Kafka topic ${topic} could not be asked for its end: ${String(cause)}. Try again`, {
    details: { topic },
    cause,
  });

/** What a stranger wrote into the topic is shown as it is. */
const toLetter = (value: Uint8Array, appendedAt: number): DeadLetter => {
  const text = new TextDecoder().decode(value);
  const at = new Date(appendedAt).toISOString();
  try {
    const { reason, received } = JSON.parse(text);
    if (typeof reason === 'string' && typeof received === 'string') return { at, reason, received };
  } catch {
    // no JSON: shown below
  }
  return { at, reason: 'not written by the gateway', received: text };
};
