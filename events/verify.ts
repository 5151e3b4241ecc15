/**
 * Is this stream whole? Delivery is at least once and identity is (stream, number): the first of a number counts, an equal
 * repetition is dropped, another body under the same number is a fork. Hashes are checked on the stored bytes.
 */
import type { LogRecord } from '../domain/ports.ts';
import type { StoredEvent } from './catalogue.ts';
import { eventHash, genesisHash } from './chain.ts';
import { decodeEvent } from './codec.ts';

export type StreamFinding = {
  readonly kind: 'undecodable' | 'stream' | 'hash' | 'fork' | 'gap' | 'chain';
  readonly seq: number | null;
  readonly partition: number;
  readonly offset: string;
  readonly words: string;
};

export type StreamReport = {
  readonly ok: boolean;
  /** The first record of each number, in order, as far as the chain holds. */
  readonly events: readonly StoredEvent[];
  readonly records: number;
  readonly duplicates: number;
  readonly findings: readonly StreamFinding[];
};

/** Checks all records that the log holds under one release id, in log order. */
export const verifyStream = (releaseId: string, records: readonly LogRecord[]): StreamReport => {
  const findings: StreamFinding[] = [];
  const bySeq = new Map<number, { event: StoredEvent; record: LogRecord }>();
  let duplicates = 0;
  const report = (kind: StreamFinding['kind'], seq: number | null, record: LogRecord, words: string) =>
    findings.push({ kind, seq, partition: record.partition, offset: record.offset, words });

  for (const record of records) {
    const decoded = decodeEvent(record.value);
    if (!decoded.ok) {
      report('undecodable', null, record, decoded.reason);
      continue;
    }
    const { event } = decoded;
    if (event.streamId !== releaseId) {
      report('stream', event.seq, record, `the event belongs to ${event.streamId}, its record to ${releaseId}`);
    } else if (eventHash(event) !== event.hash) {
      report('hash', event.seq, record, 'the body does not give its hash: it was changed after it was written');
    } else {
      const known = bySeq.get(event.seq);
      if (!known) bySeq.set(event.seq, { event, record });
      else if (known.event.hash === event.hash) duplicates += 1;
      else report('fork', event.seq, record, `another event (${known.event.type}) came first under this number`);
    }
  }

  const events: StoredEvent[] = [];
  let previous = genesisHash(releaseId);
  let whole = true;
  let expected = 1;
  for (const [seq, { event, record }] of [...bySeq].sort(([a], [b]) => a - b)) {
    if (seq !== expected) {
      report('gap', expected, record, `number ${expected} is missing before ${seq}`);
      whole = false;
    } else if (event.prevHash !== previous) {
      report('chain', seq, record, 'it does not name the event before it');
      whole = false;
    } else if (seq === 1 && event.type !== 'ReleaseTriggered') {
      report('chain', seq, record, `a stream begins with ReleaseTriggered, not ${event.type}`);
      whole = false;
    }
    if (whole) events.push(event);
    previous = event.hash;
    expected = seq + 1;
  }
  return { ok: findings.length === 0, events, records: records.length, duplicates, findings };
};
