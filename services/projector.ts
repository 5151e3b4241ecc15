/**
 * The projector: folds the release log into PostgreSQL for lists and views. Rows and the place in the log are one
 * transaction. What is no part of its stream is set aside and never folded: the log itself is never changed.
 */
import type { Kafka, KafkaMessage } from 'kafkajs';
import { evolve } from '../domain/release-state.ts';
import { eventHash, genesisHash } from '../events/chain.ts';
import { decodeEvent } from '../events/codec.ts';
import type { Log } from '../infra/kafka/client.ts';
import { topicName } from '../infra/kafka/topics.ts';
import { type Pool, type Queryable, withTransaction } from '../infra/postgres/pool.ts';
import {
  type Place,
  type Quarantined,
  quarantine,
  readEventHash,
  readRelease,
  saveEvent,
  saveRelease,
} from '../infra/postgres/releases.ts';
import { moveWatermark, readWatermark } from '../infra/postgres/watermarks.ts';
import { consumePartitions } from './consume.ts';

const consumer = 'projector';

export const startProjector = async (options: {
  readonly kafka: Kafka;
  readonly pool: Pool;
  readonly topicPrefix: string;
  readonly log: Log;
}): Promise<{ stop(): Promise<void> }> => {
  const { kafka, pool, log } = options;
  const topic = topicName(options.topicPrefix, 'release.events.v1');
  return consumePartitions({
    kafka,
    groupId: `${options.topicPrefix}projector`,
    topic,
    log,
    open: async (partition) => {
      let next = await readWatermark(pool, consumer, topic, partition);
      return {
        nextOffset: () => next,
        take: async (messages) => {
          const to = Number(messages.at(-1)?.offset ?? next - 1) + 1;
          await withTransaction(pool, async (tx) => {
            await moveWatermark(tx, { consumer, topic, partition, from: next, to });
            for (const message of messages) await project(tx, partition, message, log);
          });
          next = to;
        },
      };
    },
  });
};

const project = async (tx: Queryable, partition: number, message: KafkaMessage, log: Log): Promise<void> => {
  const place: Place = { partition, offset: message.offset };
  const releaseId = message.key?.toString() ?? '';
  const setAside = async (kind: Quarantined['kind'], seq: number | null, words: string): Promise<void> => {
    log('error', { releaseId, ...place, kind, words }, 'a record of the release log is no part of its stream');
    await quarantine(tx, { releaseId, seq, kind, words }, place);
  };
  const decoded = decodeEvent(message.value ?? new Uint8Array());
  if (!decoded.ok) return setAside('undecodable', null, decoded.reason);
  const { event } = decoded;
  if (event.streamId !== releaseId) return setAside('stream', event.seq, `the event belongs to ${event.streamId}`);
  if (eventHash(event) !== event.hash) return setAside('hash', event.seq, 'the body does not give its hash');
  const known = await readRelease(tx, releaseId);
  const seq = known?.state.seq ?? 0;
  if (event.seq <= seq) {
    if ((await readEventHash(tx, releaseId, event.seq)) === event.hash) return; // at least once: an equal repeat
    return setAside('fork', event.seq, `another event came first under this number: ${event.type}`);
  }
  if (event.seq > seq + 1) return setAside('gap', event.seq, `number ${seq + 1} is missing before ${event.seq}`);
  if (event.prevHash !== (known?.headHash ?? genesisHash(releaseId))) {
    return setAside('chain', event.seq, 'it does not name the event before it');
  }
  await saveEvent(tx, event, place);
  await saveRelease(tx, { state: evolve(known?.state ?? null, event), headHash: event.hash });
};
