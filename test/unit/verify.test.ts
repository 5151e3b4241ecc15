import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { defaultPolicy } from '../../domain/policy.ts';
import type { LogRecord } from '../../domain/ports.ts';
import { chainEvents, eventHash } from '../../events/chain.ts';
import { encodeEvent } from '../../events/codec.ts';
import { verifyStream } from '../../events/verify.ts';
import { sampleStream } from '../support/streams.ts';

const stream = chainEvents(null, sampleStream('halted', defaultPolicy));
const inLog = (values: readonly Uint8Array[]): LogRecord[] =>
  values.map((value, index) => ({ value, partition: 3, offset: String(index), appendedAt: index }));
const values = stream.map(encodeEvent);

describe('verifying a stream', () => {
  test('repeats at any place change nothing but their count', () => {
    const repeats = fc.array(fc.tuple(fc.nat(values.length - 1), fc.nat(values.length)), { maxLength: 20 });
    fc.assert(
      fc.property(repeats, (chosen) => {
        const written = values.flatMap((value, index) => [
          value,
          // A repeat stands somewhere after its first writing.
          ...chosen.filter(([of, after]) => Math.max(of, after) === index).map(([of]) => values[of] ?? value),
        ]);
        const report = verifyStream('r-1', inLog(written));
        expect(report).toMatchObject({ ok: true, findings: [], records: written.length });
        expect(report.duplicates).toBe(written.length - values.length);
        expect(report.events).toEqual(stream);
      }),
    );
  });

  test('the first of a number stays, wherever a fork of it stands, and the fork is named with its place', () => {
    fc.assert(
      fc.property(fc.nat(stream.length - 1), (at) => {
        const original = stream[at];
        if (!original) throw new Error(`no event at ${at}`);
        const other = { ...original, correlationId: 'another attempt' };
        const fork = encodeEvent({ ...other, hash: eventHash(other) });
        const report = verifyStream('r-1', inLog([...values, fork]));
        expect(report.events).toEqual(stream);
        expect(report).toMatchObject({
          ok: false,
          findings: [{ kind: 'fork', seq: at + 1, partition: 3, offset: String(values.length) }],
        });
      }),
    );
  });

  test('only the part before a missing event is trusted', () => {
    fc.assert(
      fc.property(fc.nat(stream.length - 2), (at) => {
        const report = verifyStream('r-1', inLog(values.toSpliced(at, 1)));
        expect(report.findings).toMatchObject([{ kind: 'gap', seq: at + 1 }]);
        expect(report.events).toEqual(stream.slice(0, at));
      }),
    );
  });

  test('a record that cannot be hashed is a finding, not the end of the reader', () => {
    const broken = new TextDecoder().decode(values[0]).replace('"sample"', '"\\ud800"');
    const report = verifyStream('r-1', inLog([...values, new TextEncoder().encode(broken)]));
    expect(report.findings).toMatchObject([{ kind: 'undecodable', offset: String(values.length) }]);
    expect(report.events).toEqual(stream);
  });

  test('a chain that begins with another event than ReleaseTriggered is no stream of a release', () => {
    const headless = chainEvents(
      null,
      stream.slice(1).map((event) => ({ ...event, seq: event.seq - 1 })),
    );
    const report = verifyStream('r-1', inLog(headless.map(encodeEvent)));
    expect(report.events).toEqual([]);
    expect(report.findings.map(({ kind, seq }) => [kind, seq])).toEqual([['chain', 1]]);
  });
});
