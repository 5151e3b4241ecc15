import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { defaultPolicy } from '../../domain/policy.ts';
import { canonicalJson } from '../../events/canonical-json.ts';
import { chainEvents } from '../../events/chain.ts';
import { decodeEvent, encodeEvent } from '../../events/codec.ts';
import { sampleStream } from '../support/streams.ts';

const stream = chainEvents(null, sampleStream('halted', defaultPolicy));
const [first] = stream;
if (!first) throw new Error('the sample stream is empty');
const text = new TextDecoder().decode(encodeEvent(first));
const decode = (written: string) => decodeEvent(new TextEncoder().encode(written));
const changed = (from: string, to: string): string => {
  const result = text.replace(from, to);
  if (result === text) throw new Error(`the sample has no ${from}`);
  return result;
};

describe('decoding', () => {
  test('gives back every event of a stream', () => {
    expect(stream.map((event) => decodeEvent(encodeEvent(event)))).toEqual(
      stream.map((event) => ({ ok: true, event })),
    );
  });

  // All of these parse to the very same value, so that its hash is right.
  test.each([
    ['a space', changed('"note":', '"note": ')],
    ['another escape', changed('"sample"', '"\\u0073ample"')],
    ['a key twice, the first one different', changed('"note":"sample"', '"note":"other","note":"sample"')],
    ['a line end', `${text}\n`],
    ['another way to write a number', changed('"seq":1', '"seq":1.0')],
  ])('refuses bytes that are not canonical: %s', (_what, written) => {
    expect(decode(written)).toMatchObject({ ok: false, reason: expect.stringContaining('canonical form') });
  });

  test('refuses a byte order mark', () => {
    expect(decode(`\ufeff${text}`)).toMatchObject({ ok: false, reason: expect.stringContaining('not JSON') });
  });

  test('refuses half a surrogate pair, which no hash can be computed of', () => {
    expect(decode(changed('"sample"', '"\\ud800"'))).toMatchObject({
      ok: false,
      reason: expect.stringContaining('half a surrogate pair at $.data.note'),
    });
  });

  test('names a type and a version that are not known here', () => {
    expect(decode(changed('ReleaseTriggered', 'ReleaseImagined'))).toMatchObject({
      ok: false,
      reason: expect.stringContaining('unknown event type "ReleaseImagined"'),
    });
    expect(decode(changed('"schemaVersion":1', '"schemaVersion":2'))).toEqual({
      ok: false,
      reason: 'unknown schemaVersion 2, expected 1',
    });
  });

  test('never throws, and gives an event only for its own bytes', () => {
    const anything = fc.oneof(
      fc.uint8Array(),
      fc.json().map((json) => new TextEncoder().encode(json)),
      fc.constant(new TextEncoder().encode('['.repeat(100_000) + ']'.repeat(100_000))),
      // One field of a good event replaced: the schemas are reached.
      fc
        .tuple(fc.constantFrom(...Object.keys(first)), fc.jsonValue())
        .map(([key, value]) =>
          new TextEncoder().encode(canonicalJson({ ...first, [key]: JSON.parse(JSON.stringify(value)) })),
        ),
    );
    fc.assert(
      fc.property(anything, (bytes) => {
        const decoded = decodeEvent(bytes);
        if (decoded.ok) expect(Buffer.from(encodeEvent(decoded.event)).equals(bytes)).toBe(true);
        else expect(decoded.reason).not.toBe('');
      }),
    );
  });
});
