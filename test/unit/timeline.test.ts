import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { defaultPolicy } from '../../domain/policy.ts';
import { describeEvent, describeVerdict, duration, firstFault, plural, total } from '../../domain/timeline.ts';
import type { NumberedEvent, ReleaseEvent } from '../../events/catalogue.ts';
import { decodeEvent } from '../../events/codec.ts';
import { number, sampleStream, sampleVerdict } from '../support/streams.ts';

const only = (event: ReleaseEvent): NumberedEvent => {
  const [numbered] = number([event]);
  if (!numbered) throw new Error('empty');
  return numbered;
};
const words = (event: ReleaseEvent): string => describeEvent(only(event));

describe('duration', () => {
  test.each([
    [0, '0 ms'],
    [340.4, '340 ms'],
    [999.6, '1.0 s'],
    [2_100, '2.1 s'],
    [59_949, '59.9 s'],
    [59_999, '1 min 0 s'],
    [65_000, '1 min 5 s'],
    [119_700, '2 min 0 s'],
    [7_199_000, '119 min 59 s'],
    [7_199_900, '2.0 h'],
    [9_000_000, '2.5 h'],
  ])('%d ms are %s', (ms, said) => expect(duration(ms)).toBe(said));
});

test('one device, two devices, no devices', () => {
  expect([1, 2, 0].map((n) => plural(n, 'device'))).toEqual(['1 device', '2 devices', '0 devices']);
});

test('totals are over all segments', () => {
  const segment = { enrolled: 3, offered: 2, installed: 2, healthy: 1, harmed: 1, recovered: 0 };
  expect(total({ a: segment, b: { ...segment, offered: 5 } }, 'offered')).toBe(7);
  expect(total({}, 'offered')).toBe(0);
});

describe('what an event says', () => {
  const folder = join(import.meta.dirname, '..', 'golden', 'v1');

  test.each(readdirSync(folder))('%s: one line, nothing left out', (file) => {
    const decoded = decodeEvent(readFileSync(join(folder, file)));
    if (!decoded.ok) throw new Error(decoded.reason);
    const line = describeEvent(decoded.event);
    expect(line).toMatch(/^\S.{3,}\S$/);
    expect(line).not.toMatch(/undefined|NaN|\[object/);
    // A part that is empty shows as two separators in a row or one at an end.
    expect(line).not.toMatch(/[:;,] ?[:;,]|^[:;,]|[:;,]$/);
  });

  test('every event of whole releases says something', () => {
    for (const kind of ['completed', 'blocked', 'halted', 'halted-by-person', 'cancelled'] as const) {
      for (const event of sampleStream(kind, { ...defaultPolicy, approvals: 2 })) {
        expect(describeEvent(event), event.type).not.toBe('');
      }
    }
  });

  test('what people wrote stays one line and cannot steer a terminal', () => {
    const [trigger] = sampleStream('completed', defaultPolicy);
    if (trigger?.type !== 'ReleaseTriggered') throw new Error('no trigger');
    const note = 'first\r\nsecond\t\x1b[2Jthird\u2028 ';
    expect(words({ ...trigger, data: { ...trigger.data, note } })).toBe(
      'family ips, requested by ann: first second [2Jthird',
    );
  });

  test('a finding is named with its place when it has one', () => {
    const finding = { code: 'syntax', message: 'no closing bracket' };
    const said = (findings: Extract<ReleaseEvent, { type: 'BuildFailed' }>['data']['findings']) =>
      words({ type: 'BuildFailed', data: { findings } });
    expect(said([{ ...finding, file: 'rules/a.rules', line: 3 }, finding])).toBe(
      '2 findings; rules/a.rules:3: no closing bracket',
    );
    expect(said([{ ...finding, file: 'vectors.yaml' }])).toBe('1 finding; vectors.yaml: no closing bracket');
    expect(said([finding])).toBe('1 finding; no closing bracket');
    expect(said([])).toBe('0 findings');
  });

  test('a verdict is said with all its numbers', () => {
    const line = describeVerdict({ ...sampleVerdict, segment: 'e/fail-open' });
    for (const part of ['blocked-traffic in e/fail-open', '3 events', '0.010 h', '0 without', '1.500 h', '120', '25']) {
      expect(line).toContain(part);
    }
    expect(describeVerdict(sampleVerdict)).toContain('in the whole fleet');
  });

  test('a cell that is not green names its first red gate, the rule and the words of the engine', () => {
    const gate = { gate: 'rules-loaded', verdict: 'pass', observed: 2, operator: '==', limit: 2, details: [] } as const;
    const cell = { cellId: 'e/ids', verdict: 'fail', rulesExpected: 2, rulesLoaded: 1, wallMs: 1 } as const;
    const red = { ...gate, verdict: 'fail', observed: 1, details: [{ rule: 7, words: 'unknown keyword' }] } as const;
    expect(firstFault({ ...cell, gates: [gate, red] })).toBe('rules-loaded 1, needs == 2; rule 7: unknown keyword');
    expect(firstFault({ ...cell, gates: [gate, { ...red, details: [] }] })).toBe('rules-loaded 1, needs == 2');
    expect(firstFault({ ...cell, gates: [gate] })).toBe('');
  });
});
