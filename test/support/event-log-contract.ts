/** What every release log must do; run against the one on Kafka and the one in memory. */
import { randomUUID } from 'node:crypto';
import { expect, test } from 'vitest';
import { defaultPolicy } from '../../domain/policy.ts';
import type { EventLog, LogRecord } from '../../domain/ports.ts';
import type { StoredEvent } from '../../events/catalogue.ts';
import { chainEvents } from '../../events/chain.ts';
import { encodeEvent } from '../../events/codec.ts';
import { verifyStream } from '../../events/verify.ts';
import { number, sampleStream } from './streams.ts';

export type OpenEventLog = {
  readonly log: EventLog;
  readAll(): Promise<readonly (LogRecord & { readonly key: string })[]>;
};

/** A whole stream of a release of this name. */
export const streamOf = (releaseId: string): StoredEvent[] =>
  chainEvents(null, number(sampleStream('completed', defaultPolicy), releaseId));

export const recordsOf = (events: readonly StoredEvent[]) =>
  events.map((event) => ({ eventId: event.eventId, type: event.type, value: encodeEvent(event) }));

export const eventLogContract = (open: () => Promise<OpenEventLog>): void => {
  const releaseId = () => `r-${randomUUID()}`;

  test('what was appended in pieces is read whole, in order, and verifies', async () => {
    const { log } = await open();
    const id = releaseId();
    const events = streamOf(id);
    for (const piece of [events.slice(0, 1), events.slice(1, 6), events.slice(6)])
      await log.append(id, recordsOf(piece));
    const report = verifyStream(id, await log.read(id));
    expect(report).toMatchObject({ ok: true, findings: [] });
    expect(report.events).toEqual(events);
  });

  test('a record has a place that grows and a time that never goes back', async () => {
    const { log } = await open();
    const id = releaseId();
    const before = Date.now();
    for (const event of streamOf(id).slice(0, 5)) await log.append(id, recordsOf([event]));
    const records = await log.read(id);
    expect(new Set(records.map((record) => record.partition)).size).toBe(1);
    const places = records.map((record) => Number(record.offset));
    expect(places).toEqual([...new Set(places)].sort((a, b) => a - b));
    const times = records.map((record) => record.appendedAt);
    expect(times).toEqual(times.toSorted((a, b) => a - b));
    expect(times[0]).toBeGreaterThanOrEqual(before);
    expect(times.at(-1)).toBeLessThanOrEqual(Date.now());
  });

  test('a release is read without the others that share its partition', async () => {
    const { log, readAll } = await open();
    const ids = Array.from({ length: 30 }, releaseId); // more than there are partitions: some share one
    await Promise.all(ids.map((id) => log.append(id, recordsOf(streamOf(id).slice(0, 3)))));
    for (const id of ids.slice(0, 12)) {
      expect(verifyStream(id, await log.read(id)).events).toEqual(streamOf(id).slice(0, 3));
    }
    const all = await readAll();
    for (const id of ids) {
      const own = all.filter((record) => record.key === id);
      expect(verifyStream(id, own).events).toEqual(streamOf(id).slice(0, 3));
      expect(new Set(own.map((record) => record.partition)).size).toBe(1);
    }
    expect(new Set(all.map((record) => record.key))).toEqual(new Set(ids));
  });

  test('a repeated append is kept: dropping it is the reader’s work', async () => {
    const { log } = await open();
    const id = releaseId();
    const events = streamOf(id).slice(0, 4);
    await log.append(id, recordsOf(events));
    await log.append(id, recordsOf(events.slice(2)));
    const report = verifyStream(id, await log.read(id));
    // At least two: a produce whose answer was lost is repeated by the client too.
    expect(report.duplicates).toBeGreaterThanOrEqual(2);
    expect(report.events).toEqual(events);
  });

  test('a read ends where the log ended at the call, and is a copy', async () => {
    const { log } = await open();
    const id = releaseId();
    const events = streamOf(id);
    await log.append(id, recordsOf(events.slice(0, 2)));
    const records = await log.read(id);
    records[0]?.value.fill(0);
    await log.append(id, recordsOf(events.slice(2, 3)));
    expect(records).toHaveLength(2);
    expect(verifyStream(id, await log.read(id)).events).toEqual(events.slice(0, 3));
  });

  test('nothing was written of a release: nothing is read', async () => {
    const { log } = await open();
    expect(await log.read(releaseId())).toEqual([]);
    await log.append(releaseId(), []);
    const id = releaseId();
    await log.append(id, recordsOf(streamOf(id).slice(0, 1)));
    expect(await log.read(releaseId())).toEqual([]);
  });
};
