import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { defaultPolicy } from '../../domain/policy.ts';
import type { LogRecord } from '../../domain/ports.ts';
import { canonicalJson } from '../../events/canonical-json.ts';
import type { StoredEvent } from '../../events/catalogue.ts';
import { chainEvents, eventHash, genesisHash } from '../../events/chain.ts';
import { decodeEvent, encodeEvent } from '../../events/codec.ts';
import { eventTypes } from '../../events/schemas.ts';
import { verifyStream } from '../../events/verify.ts';
import { sampleStream } from '../support/streams.ts';

const stream = chainEvents(null, sampleStream('completed', { ...defaultPolicy, approvals: 2 }));
const records = (events: readonly StoredEvent[]): LogRecord[] =>
  events.map((event, index) => ({ value: encodeEvent(event), partition: 3, offset: String(index), appendedAt: index }));
const reseal = (event: StoredEvent): StoredEvent => ({
  ...event,
  hash: eventHash({ ...event, prevHash: event.prevHash }),
});

describe('canonical JSON', () => {
  test('writes what RFC 8785 shows', () => {
    const sample = {
      numbers: [Number('333333333.33333329'), 1e30, 4.5, 2e-3, 0.000000000000000000000000001],
      string: '\u20ac$\u000F\u000aA\'\u0042\u0022\u005c\\"/',
      literals: [null, true, false],
    };
    expect(canonicalJson(sample)).toBe(
      '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}',
    );
  });

  test('sorts keys by UTF-16 code units', () => {
    expect(canonicalJson({ '\u20ac': 1, '\r': 2, '\ufb33': 3, '1': 4, '\ud83d\ude00': 5, '\u0080': 6, ö: 7 })).toBe(
      '{"\\r":2,"1":4,"\u0080":6,"ö":7,"€":1,"😀":5,"\ufb33":3}',
    );
  });

  test('means the same as the value, whatever the order of keys', () => {
    fc.assert(
      fc.property(fc.jsonValue({ noUnicodeString: false }), (value) => {
        const text = canonicalJson(value);
        expect(JSON.parse(text)).toEqual(JSON.parse(JSON.stringify(value)));
        expect(canonicalJson(JSON.parse(text))).toBe(text);
      }),
    );
  });

  test.each([
    ['$.a[1]', { a: [1, Number.NaN] }],
    ['$.b', { b: '\ud800' }],
    ['$.c', { c: 1n }],
  ])('refuses what JSON cannot hold, naming %s', (path, value) => {
    expect(() => canonicalJson(value)).toThrow(`at ${path} cannot`);
  });
});

describe('chain and verification', () => {
  test('the whole stream verifies, duplicates are dropped', () => {
    const report = verifyStream('r-1', [...records(stream), ...records(stream.slice(2, 5))]);
    expect(report).toMatchObject({ ok: true, duplicates: 3, findings: [] });
    expect(report.events).toEqual(stream);
    expect(stream[0]?.prevHash).toBe(genesisHash('r-1'));
  });

  test('chaining in pieces gives the same hashes', () => {
    const events = sampleStream('completed', { ...defaultPolicy, approvals: 2 });
    const head = chainEvents(null, events.slice(0, 4));
    expect([...head, ...chainEvents(head.at(-1)?.hash ?? null, events.slice(4))]).toEqual(stream);
  });

  test('any single changed byte of any event is found', () => {
    fc.assert(
      fc.property(fc.nat(stream.length - 1), fc.nat(), fc.integer({ min: 1, max: 255 }), (at, position, change) => {
        const all = records(stream);
        const record = all[at];
        if (!record) return;
        const bytes = new Uint8Array(record.value);
        const index = position % bytes.length;
        bytes[index] = (bytes[index] ?? 0) ^ change;
        all[at] = { ...record, value: bytes };
        expect(verifyStream('r-1', all).ok).toBe(false);
      }),
      { numRuns: 300 },
    );
  });

  test('a missing event is a gap, another body a fork, a re-sealed change breaks the chain', () => {
    const kinds = (all: LogRecord[]) => verifyStream('r-1', all).findings.map((finding) => finding.kind);
    expect(kinds(records(stream.toSpliced(4, 1)))).toEqual(['gap']);
    const [, second] = stream;
    if (!second) throw new Error('empty');
    const other = reseal({ ...second, occurredAt: '2030-01-01T00:00:00.000Z' });
    expect(kinds([...records(stream), ...records([other])])).toEqual(['fork']);
    expect(kinds(records(stream.with(1, other)))).toEqual(['chain']);
    expect(kinds([{ value: new TextEncoder().encode('{'), partition: 0, offset: '9', appendedAt: 0 }])).toEqual([
      'undecodable',
    ]);
    expect(verifyStream('r-2', records(stream.slice(0, 1))).findings[0]).toMatchObject({ kind: 'stream', seq: 1 });
  });
});

describe('golden events', () => {
  const folder = join(import.meta.dirname, '..', 'golden', 'v1');
  const files = readdirSync(folder);

  test('there is one of every type', () => {
    expect(files.map((file) => file.replace('.json', '')).sort()).toEqual([...eventTypes].sort());
  });

  test.each(files)('%s decodes, keeps its hash and its bytes', (file) => {
    const bytes = readFileSync(join(folder, file));
    const decoded = decodeEvent(bytes);
    if (!decoded.ok) throw new Error(decoded.reason);
    expect(eventHash(decoded.event)).toBe(decoded.event.hash);
    expect(Buffer.from(encodeEvent(decoded.event)).equals(bytes)).toBe(true);
    expect(`${decoded.event.type}.json`).toBe(file);
  });
});
