import fc from 'fast-check';
import { expect, test } from 'vitest';
import { isNew, markSeen, nothingSeen } from '../../domain/sequence.ts';

test('each number once, also when reports overtake each other', () => {
  const seen = nothingSeen();
  expect([0, 1, 3, 2, 2, 3, 1, 40, 39, 8, 8, 7].map((sequence) => markSeen(seen, sequence))).toEqual([
    true,
    true,
    true,
    true,
    false,
    false,
    false,
    true,
    true,
    true,
    false,
    false, // 33 below the highest: older than the window
  ]);
});

test('agrees with a set of everything seen, for numbers inside the window', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 90 }), { maxLength: 200 }), (sequences) => {
      const seen = nothingSeen();
      const all = new Set<number>();
      for (const sequence of sequences) {
        const expected = !all.has(sequence) && sequence >= seen.highest - 32;
        expect(isNew(seen, sequence)).toBe(expected);
        expect(markSeen(seen, sequence)).toBe(expected);
        all.add(sequence);
      }
    }),
  );
});
