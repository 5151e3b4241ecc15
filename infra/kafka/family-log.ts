/** Events of families on Kafka, keyed by family: alarms go to `ops.events.v1`, all others to `distribution.events.v1`. */
import type { Kafka } from 'kafkajs';
import type { FamilyLog } from '../../domain/ports.ts';
import type { FamilyEvent, FamilyEventType } from '../../events/catalogue.ts';
import { decodeFamilyEvent, encodeFamilyEvent } from '../../events/family-events.ts';
import { acknowledgedWithin } from './event-log.ts';
import type { Producer } from './produce.ts';
import { readToEnd } from './read.ts';
import { type Topic, topicName } from './topics.ts';

const topicOf = (type: FamilyEventType): Topic =>
  type === 'AlarmRaised' || type === 'AlarmCleared' ? 'ops.events.v1' : 'distribution.events.v1';

/** An append ends within `timeoutMs` whatever the broker does. */
export const createKafkaFamilyLog = (options: {
  readonly producer: Producer;
  readonly topicPrefix: string;
  readonly timeoutMs: number;
}): FamilyLog => {
  const { producer, topicPrefix, timeoutMs } = options;
  return {
    append: async (event) => {
      const topic = topicName(topicPrefix, topicOf(event.type));
      const headers = {
        ...{ 'content-type': 'application/json', ce_specversion: '1.0', ce_id: event.eventId },
        ...{ ce_type: `sigrel.${event.type}.v1`, ce_source: 'sigrel/family', ce_subject: event.family },
        'recorded-at': new Date().toISOString(),
      };
      const value = Buffer.from(encodeFamilyEvent(event));
      await acknowledgedWithin(timeoutMs, topic, producer.send(topic, [{ key: event.family, value, headers }]));
    },
  };
};

/** Every event of these topics up to now, each id once, in the order of the log; what cannot be read is left out. */
export const readFamilyEvents = async (
  kafka: Kafka,
  topicPrefix: string,
  topic: 'distribution.events.v1' | 'ops.events.v1',
): Promise<readonly FamilyEvent[]> => {
  const seen = new Set<string>();
  const events: FamilyEvent[] = [];
  for (const { value } of await readToEnd(kafka, topicName(topicPrefix, topic))) {
    const decoded = decodeFamilyEvent(value);
    if (!decoded.ok || seen.has(decoded.event.eventId)) continue;
    seen.add(decoded.event.eventId);
    events.push(decoded.event);
  }
  return events;
};
