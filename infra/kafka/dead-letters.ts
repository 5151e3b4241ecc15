/** Reports that the gateway refused, as they stand in the dead-letter topic. */
import type { Kafka } from 'kafkajs';
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
  return { letters, total: Number(records.at(-1)?.offset ?? -1) + 1 };
};

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
