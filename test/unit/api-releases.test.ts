import { describe, expect, test } from 'vitest';
import { phases } from '../../domain/release-state.ts';
import { phasesOf } from '../../services/api/releases.ts';

describe('phases of a filter', () => {
  test('none given: no filter', () => expect(phasesOf(undefined)).toBeUndefined());

  test('open and ended are all phases between them', () => {
    expect(phasesOf('ended')).toEqual(['completed', 'blocked', 'halted', 'failed', 'cancelled']);
    expect(phasesOf('open')).toEqual(phases.filter((phase) => !phasesOf('ended')?.includes(phase)));
    expect(phasesOf('open')).toContain('held');
  });

  test('names, with commas', () => {
    expect(phasesOf('held')).toEqual(['held']);
    expect(phasesOf('held,paused,halted')).toEqual(['held', 'paused', 'halted']);
    for (const phase of phases) expect(phasesOf(phase)).toEqual([phase]);
  });

  test.each([
    ['haltd', 'haltd'],
    ['held,gone', 'gone'],
    ['held,', ''],
    ['', ''],
    ['open,ended', 'open'],
    ['Held', 'Held'],
    ['constructor', 'constructor'],
  ])('%j is refused, naming what it is and what was expected', (written, named) => {
    expect(() => phasesOf(written)).toThrow(
      expect.objectContaining({
        code: 'SRP_INPUT_PHASE',
        message: expect.stringMatching(
          new RegExp(`^"${named}" is no phase; expected open, ended, .*triggered.*cancelled$`),
        ),
      }),
    );
  });
});
