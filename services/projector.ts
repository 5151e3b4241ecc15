/**
 * The projector: folds the release log into PostgreSQL for lists and views. Rows and the place in the log are one
 * transaction. What is no part of its stream is set aside and never folded: the log itself is never changed.
 */
import type { Kafka, KafkaMessage } from 'kafkajs';
import { evolve } from '../domain/release-state.ts';
import type { StoredEvent } from '../events/catalogue.ts';
import { eventHash, genesisHash } from '../events/chain.ts';
import { decodeEvent } from '../events/codec.ts';
import type { Log } from '../infra/kafka/client.ts';
import { topicName } from '../infra/kafka/topics.ts';
import { isDataError, type Pool, type Queryable, withTransaction } from '../infra/postgres/pool.ts';
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

type Finding = Omit<Quarantined, 'releaseId'>;

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

/** A record never stops those behind it: what the database cannot hold is set aside like what cannot be read. */
const project = async (tx: Queryable, partition: number, message: KafkaMessage, log: Log): Promise<void> => {
  const place: Place = { partition, offset: message.offset };
  const releaseId = message.key?.toString() ?? '';
  const setAside = async ({ kind, seq, words }: Finding): Promise<void> => {
    log('error', { releaseId, ...place, kind, words }, 'a record of the release log is no part of its stream');
    await quarantine(tx, { releaseId, seq, kind, words }, place);
  };
  const decoded = decodeEvent(message.value ?? new Uint8Array());
  if (!decoded.ok) return setAside({ kind: 'undecodable', seq: null, words: decoded.reason });
  const { event } = decoded;
  await tx.query('savepoint record');
  try {
    const finding = await fold(tx, releaseId, event, place);
    await tx.query('release savepoint record');
    if (finding !== null) await setAside(finding);
  } catch (error) {
    if (!isDataError(error)) throw error;
    await tx.query('rollback to savepoint record');
    await setAside({ kind: 'undecodable', seq: event.seq, words: error.message });
  }
};

/** null: the event is folded, now or before; else why it is no part of the stream. */
const fold = async (tx: Queryable, releaseId: string, event: StoredEvent, place: Place): Promise<Finding | null> => {
  const finding = (kind: Finding['kind'], words: string): Finding => ({ kind, seq: event.seq, words });
  if (event.streamId !== releaseId) return finding('stream', `the event belongs to ${event.streamId}`);
  if (eventHash(event) !== event.hash) return finding('hash', 'the body does not give its hash');
  const known = await readRelease(tx, releaseId);
  const seq = known?.state.seq ?? 0;
  if (event.seq <= seq) {
    if ((await readEventHash(tx, releaseId, event.seq)) === event.hash) return null; // at least once: an equal repeat
    return finding('fork', `another event came first under this number: ${event.type}`);
  }
  if (event.seq > seq + 1) return finding('gap', `number ${seq + 1} is missing before ${event.seq}`);
  if (event.prevHash !== (known?.headHash ?? genesisHash(releaseId))) {
    return finding('chain', 'it does not name the event before it');
  }
  if (known === null && event.type !== 'ReleaseTriggered') {
    return finding('chain', `a stream begins with ReleaseTriggered, not ${event.type}`);
  }
  await saveEvent(tx, event, place);
  await saveRelease(tx, { state: evolve(known?.state ?? null, event), headHash: event.hash });
  return null;
};
