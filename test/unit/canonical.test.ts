import { expect, test } from 'vitest';
import { canonicalJson } from '../../events/canonical-json.ts';

test.each([
  ['Date', new Date(0)],
  ['Map', new Map([['a', 1]])],
  ['Uint8Array', new Uint8Array(2)],
])('a %s is refused: it would lose its content without a word', (name, value) => {
  expect(() => canonicalJson({ a: [value] })).toThrow(`a ${name} at $.a[0] cannot be written`);
});

test('an object without a prototype is a plain one', () => {
  expect(canonicalJson(Object.assign(Object.create(null), { b: 1, a: -0 }))).toBe('{"a":0,"b":1}');
});
