import { randomUUID } from 'node:crypto';
import type { Kafka } from 'kafkajs';
import { afterAll, afterEach, beforeAll, expect, inject, test } from 'vitest';
import { createRecordActivities } from '../../activities/record.ts';
import { foldEvents } from '../../domain/release-state.ts';
import type { StoredEvent } from '../../events/catalogue.ts';
import { chainEvents } from '../../events/chain.ts';
import { encodeEvent } from '../../events/codec.ts';
import { createKafka, silent } from '../../infra/kafka/client.ts';
import { createKafkaEventLog } from '../../infra/kafka/event-log.ts';
import { createProducer, type Producer } from '../../infra/kafka/produce.ts';
import { createTopics, topicName } from '../../infra/kafka/topics.ts';
import { listReleases, readQuarantine, readRelease } from '../../infra/postgres/releases.ts';
import { startProjector } from '../../services/projector.ts';
import { createDatabase, type TestDatabase } from '../support/database.ts';
import { streamOf } from '../support/event-log-contract.ts';
import { patient } from '../support/patience.ts';

const prefix = `projector-${randomUUID()}.`;
const topic = topicName(prefix, 'release.events.v1');
let kafka: Kafka;
let admin: ReturnType<Kafka['admin']>;
let producer: Producer;
let database: TestDatabase;
let running: { stop(): Promise<void> }[] = [];

beforeAll(async () => {
  kafka = createKafka({ brokers: inject('kafkaBrokers'), clientId: 'test', log: silent });
  admin = kafka.admin();
  producer = createProducer(kafka);
  [database] = await Promise.all([createDatabase(), createTopics(kafka, prefix, silent), admin.connect()]);
});
afterEach(async () => {
  await Promise.all(running.map((one) => one.stop()));
  running = [];
});
afterAll(async () => {
  await Promise.all([producer.close(), admin.disconnect()]);
  await database.close();
});

const start = async () => {
  const projector = await startProjector({ kafka, pool: database.openPool(), topicPrefix: prefix, log: silent });
  running.push(projector);
  return projector;
};
const newId = () => `r-${randomUUID()}`;

/** As a workflow records: some events at a time, each batch after the hash of the one before. */
const record = async (events: readonly StoredEvent[], batch = 3): Promise<void> => {
  const log = createKafkaEventLog({ kafka, producer, topicPrefix: prefix });
  const { recordEvents } = createRecordActivities({ log });
  let prevHash = events[0] === undefined || events[0].seq === 1 ? null : events[0].prevHash;
  for (let at = 0; at < events.length; at += batch) {
    prevHash = (await recordEvents({ prevHash, events: events.slice(at, at + batch) })).headHash;
  }
};

/** As nobody should: any bytes under any key. */
const write = (key: string, value: Uint8Array | string) => producer.send(topic, [{ key, value: Buffer.from(value) }]);

const caughtUp = async (): Promise<void> => {
  const ends = (await admin.fetchTopicOffsets(topic)).filter(({ high }) => high !== '0');
  const places = async () => {
    const { rows } = await database.pool.query<{ partition: number; next_offset: string }>(
      `select partition, next_offset from consumer_watermarks where consumer = 'projector' and topic = $1`,
      [topic],
    );
    return Object.fromEntries(rows.map((row) => [row.partition, row.next_offset]));
  };
  await expect.poll(places, patient).toEqual(Object.fromEntries(ends.map((end) => [end.partition, end.high])));
};

const rowOf = (events: readonly StoredEvent[]) => ({ state: foldEvents(events), headHash: events.at(-1)?.hash });

test('events that a workflow records become a row equal to their fold', async () => {
  await start();
  const streams = Array.from({ length: 20 }, () => streamOf(newId())); // more than there are partitions
  await Promise.all(streams.map((events, index) => record(events, 1 + (index % 5))));
  await caughtUp();
  for (const events of streams) {
    const id = events[0]?.streamId ?? '';
    expect(await readRelease(database.pool, id)).toEqual(rowOf(events));
    expect(await readQuarantine(database.pool, id)).toEqual([]);
  }
  const listed = await listReleases(database.pool, { limit: 100 });
  expect(listed).toHaveLength(streams.length);
});

test('a row follows its stream event by event', async () => {
  await start();
  const id = newId();
  const events = streamOf(id);
  for (const upTo of [1, 4, 5, events.length]) {
    const known = (await readRelease(database.pool, id))?.state.seq ?? 0;
    await record(events.slice(known, upTo));
    await caughtUp();
    expect(await readRelease(database.pool, id)).toEqual(rowOf(events.slice(0, upTo)));
  }
});

test('equal repeats change nothing', async () => {
  await start();
  const id = newId();
  const events = streamOf(id);
  await record(events.slice(0, 6));
  await caughtUp();
  const before = await readRelease(database.pool, id);
  await record(events.slice(0, 6), 6);
  await record(events.slice(3, 6), 1);
  await caughtUp();
  expect(await readRelease(database.pool, id)).toEqual(before);
  expect(await readQuarantine(database.pool, id)).toEqual([]);
  await record(events.slice(4));
  await caughtUp();
  expect(await readRelease(database.pool, id)).toEqual(rowOf(events));
});

test('what is no part of a stream is set aside, and the stream goes on', async () => {
  await start();
  const id = newId();
  const events = streamOf(id);
  const at = (seq: number): StoredEvent => events[seq - 1] as StoredEvent;
  const noted = (event: StoredEvent): StoredEvent => ({ ...event, correlationId: 'another' });
  const rehashed = (event: StoredEvent, prevHash = event.prevHash): StoredEvent =>
    chainEvents(prevHash, [noted(event)])[0] as StoredEvent;
  await record(events.slice(0, 5));
  await write(id, encodeEvent(rehashed(at(3))));
  await write(id, encodeEvent(at(8)));
  await write(id, '{"type":"BuildStarted"');
  await write(id, '');
  await write(id, encodeEvent(noted(at(6))));
  await write(id, encodeEvent(streamOf('r-stranger')[5] as StoredEvent));
  await write(id, encodeEvent(rehashed(at(6), 'e'.repeat(64))));
  await caughtUp();
  const aside = await readQuarantine(database.pool, id);
  expect(aside.map(({ kind, seq }) => [kind, seq])).toEqual([
    ['fork', 3],
    ['gap', 8],
    ['undecodable', null],
    ['undecodable', null],
    ['hash', 6],
    ['stream', 6],
    ['chain', 6],
  ]);
  for (const { words } of aside) expect(words).not.toBe('');
  expect(await readRelease(database.pool, id)).toEqual(rowOf(events.slice(0, 5)));
  await record(events.slice(5));
  await caughtUp();
  expect(await readRelease(database.pool, id)).toEqual(rowOf(events));
  expect(await readQuarantine(database.pool, id)).toEqual(aside);
});

test('a text that a database cannot hold is shown as it was written', async () => {
  await start();
  const id = newId();
  const [triggered, ...rest] = streamOf(id);
  if (triggered?.type !== 'ReleaseTriggered') throw new Error('a stream begins with ReleaseTriggered');
  const events = chainEvents(null, [{ ...triggered, data: { ...triggered.data, note: 'a\u0000b' } }, ...rest]);
  await record(events);
  await caughtUp();
  expect(await readRelease(database.pool, id)).toEqual(rowOf(events));
});

test('a record that can be no event of a stream stops none of those behind it', async () => {
  await start();
  const id = newId();
  const [triggered, second] = streamOf(id) as [StoredEvent, StoredEvent];
  const chained = (event: StoredEvent) => encodeEvent(chainEvents(null, [event])[0] as StoredEvent);
  await write(id, chained({ ...second, seq: 1 }));
  await write(id, chained({ ...triggered, seq: 3_000_000_000 }));
  await write(id, chained({ ...triggered, occurredAt: '0000-01-01T00:00:00Z' }));
  await caughtUp();
  expect((await readQuarantine(database.pool, id)).map(({ kind, seq }) => [kind, seq])).toEqual([
    ['chain', 1],
    ['gap', 3_000_000_000],
    ['undecodable', 1],
  ]);
  expect(await readRelease(database.pool, id)).toBeNull();
  const strange = `${id}\u0000`;
  const [stranger] = streamOf(strange);
  await write(strange, encodeEvent(stranger as StoredEvent));
  await caughtUp();
  expect(await readQuarantine(database.pool, `${id}\ufffd`)).toMatchObject([{ kind: 'undecodable', seq: 1 }]);
});

test('a projector that is started again goes on at its place and folds nothing twice', async () => {
  const first = await start();
  const id = newId();
  const events = streamOf(id);
  await record(events.slice(0, 7));
  await caughtUp();
  await first.stop();
  await record(events.slice(7));
  // Whoever reads the first events again takes them for a fork now.
  await database.pool.query(`update release_events set hash = 'forgotten' where release_id = $1`, [id]);
  await start();
  await caughtUp();
  expect(await readRelease(database.pool, id)).toEqual(rowOf(events));
  expect(await readQuarantine(database.pool, id)).toEqual([]);
});

test('two projectors share the log, also while one comes and one goes', async () => {
  const streams = Array.from({ length: 12 }, () => streamOf(newId()));
  const append = (from: number, to?: number) => Promise.all(streams.map((events) => record(events.slice(from, to))));
  const first = await start();
  await append(0, 4);
  await Promise.all([start(), append(4, 8)]);
  await Promise.all([first.stop(), append(8)]);
  await caughtUp();
  for (const events of streams) {
    const id = events[0]?.streamId ?? '';
    expect(await readRelease(database.pool, id)).toEqual(rowOf(events));
    expect(await readQuarantine(database.pool, id)).toEqual([]);
  }
});
