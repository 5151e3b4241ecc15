import { describe, expect, test } from 'vitest';
import { defaultPolicy } from '../../domain/policy.ts';
import { writePostmortem } from '../../domain/postmortem.ts';
import type { Counts } from '../../domain/release.ts';
import { foldEvents, type ReleaseState } from '../../domain/release-state.ts';
import { total } from '../../domain/timeline.ts';
import type { NumberedEvent, ReleaseEvent, StoredEvent } from '../../events/catalogue.ts';
import { chainEvents } from '../../events/chain.ts';
import { number, type SampleKind, sampleStream, sampleVerdict } from '../support/streams.ts';

const policy = { ...defaultPolicy, approvals: 1 };
const stored = (events: readonly NumberedEvent[]): readonly StoredEvent[] => chainEvents(null, events);
const stream = (kind: SampleKind): readonly StoredEvent[] => stored(sampleStream(kind, policy));
const stateOf = (events: readonly StoredEvent[]): ReleaseState => {
  const state = foldEvents(events);
  if (state === null) throw new Error('empty');
  return state;
};
const eventOf = <T extends StoredEvent['type']>(events: readonly StoredEvent[], type: T) => {
  const found = events.findLast((event): event is Extract<StoredEvent, { type: T }> => event.type === type);
  if (!found) throw new Error(`no ${type} in the stream`);
  return found;
};
/** `[#12]` of the last event of that type. */
const ref = (events: readonly StoredEvent[], type: StoredEvent['type']): string => `[#${eventOf(events, type).seq}]`;

/** A section as its lines; empty when there is none. */
const section = (text: string, title: string): readonly string[] => {
  const lines = text.split('\n');
  const from = lines.indexOf(`## ${title}`);
  if (from < 0) return [];
  const after = lines.findIndex((line, index) => index > from && line.startsWith('## '));
  return lines.slice(from + 1, after < 0 ? undefined : after).filter((line) => line !== '');
};
/** The cells of a row as GitHub reads them: a backslash takes the meaning from what follows it. */
const cells = (row: string): readonly string[] =>
  [...row.matchAll(/\|((?:\\.|[^\\|])*)(?=\|)/g)].map(([, cell]) => (cell ?? '').trim());
/** Rows without head and rule. Throws when a row has not as many cells as the head. */
const rows = (lines: readonly string[]): readonly (readonly string[])[] => {
  const all = lines.filter((line) => line.startsWith('|')).map(cells);
  for (const row of all) if (row.length !== all[0]?.length) throw new Error(`${row.length} cells: ${row.join(' / ')}`);
  return all.slice(2);
};
const impactOf = (text: string): Record<string, readonly number[]> =>
  Object.fromEntries(
    rows(section(text, 'Impact')).map(([name, ...numbers]) => [
      String(name),
      numbers.map((written) => Number(written.replaceAll('*', ''))),
    ]),
  );
const fields = ['enrolled', 'offered', 'installed', 'healthy', 'harmed', 'recovered'] as const;

describe('postmortem', () => {
  test.each(['completed', 'blocked', 'halted', 'halted-by-person', 'cancelled'] as const)(
    'of a release that is %s: every section but the timeline names events of the stream',
    (kind) => {
      const events = stream(kind);
      const state = stateOf(events);
      const text = writePostmortem(events);
      expect(text).toMatch(new RegExp(`^# Release r-1 of ips: ${state.phase}\n`));
      const refs = [...text.matchAll(/\[#(\d+)\]/g)].map(([, seq]) => Number(seq));
      expect(refs.length).toBeGreaterThan(2);
      for (const seq of refs) expect(events[seq - 1]?.seq).toBe(seq);
      // A number without an event: only rows whose section says that all are of one event.
      for (const title of ['Summary', 'Impact', 'Detection and response', 'The verdict', 'What the matrix found']) {
        const lines = section(text, title);
        const whole = lines.some((line) => line.startsWith('All '));
        const bare = lines.filter((line) => /\d/.test(line) && !/\[#\d+\]/.test(line));
        if (!whole) expect(bare).toEqual([]);
      }
      const told = rows(section(text, 'Timeline'));
      expect(told.map(([seq, , , type]) => `${seq} ${type}`)).toEqual(events.map(({ seq, type }) => `#${seq} ${type}`));
      expect(told.map(([, time]) => time)).toEqual(events.map(({ occurredAt }) => occurredAt.slice(11, 23)));
      expect(told[3]?.[2]).toBe('3.0 s');
      expect(text).toContain(`the last with hash ${events.at(-1)?.hash.slice(0, 16)}`);
    },
  );

  test('summary: who, which content, how far, and how it ended', () => {
    const events = stream('completed');
    const [summary] = section(writePostmortem(events), 'Summary');
    expect(summary).toContain(`requested by ann at ${events[0]?.occurredAt} [#1] ("sample").`);
    expect(summary).toContain(`content 2 with 2 rules ${ref(events, 'BuildSucceeded')}.`);
    expect(summary).toContain(`${policy.stages.length} (holdback) ${ref(events, 'StageOpened')}.`);
    expect(summary).toContain(`**completed** after ${events.length - 1}.0 s:`);
    expect(summary).toContain(`(completed) ${ref(events, 'ReleaseCompleted')}.`);
  });

  test('impact: the counts of the fold, by segment and in all', () => {
    for (const kind of ['completed', 'halted', 'halted-by-person'] as const) {
      const events = stream(kind);
      const { counts } = stateOf(events);
      const text = writePostmortem(events);
      const [said] = section(text, 'Impact');
      const last = kind === 'completed' ? 'RolloutCompleted' : 'HaltVerified';
      expect(said).toContain(`All counts are those of ${ref(events, last)}.`);
      expect(eventOf(events, last).data.counts).toEqual(counts);
      expect(impactOf(text)).toEqual({
        ...Object.fromEntries(Object.entries(counts).map(([name, own]) => [name, fields.map((field) => own[field])])),
        '**all**': fields.map((field) => total(counts, field)),
      });
    }
  });

  test('impact: a segment without a count is shown with zeros, one that came after the plan is shown too', () => {
    const one = { enrolled: 9, offered: 8, installed: 7, healthy: 6, harmed: 5, recovered: 4 };
    const counts: Counts = { 'late/fail-open': one };
    const events = stored(
      sampleStream('halted', policy).map((event) =>
        event.type === 'HaltVerified' ? { ...event, data: { ...event.data, counts } } : event,
      ),
    );
    expect(impactOf(writePostmortem(events))).toEqual({
      'late/fail-open': [9, 8, 7, 6, 5, 4],
      'suricata-7.0.10-00000000/fail-open': [0, 0, 0, 0, 0, 0],
      '**all**': [9, 8, 7, 6, 5, 4],
    });
  });

  test('a halt that was closed before every device had recovered says so', () => {
    expect(writePostmortem(stream('halted-by-person'))).toContain('Not every harmed device had recovered');
    expect(writePostmortem(stream('halted'))).not.toContain('Not every harmed device had recovered');
  });

  test('times of detection and response, and of no step that has not happened', () => {
    const opened = Date.parse(eventOf(stream('halted'), 'StageOpened').occurredAt);
    const events = stored(
      sampleStream('halted', policy).map((event): NumberedEvent => {
        if (event.type === 'RegressionDetected')
          return { ...event, data: { ...event.data, firstHarmAt: opened + 250 } };
        return event.type === 'ExposureFrozen'
          ? { ...event, data: { ...event.data, frozenAt: opened + 1_700 } }
          : event;
      }),
    );
    const [stage, verdict, frozen, rollback, verified] = (
      ['StageOpened', 'RegressionDetected', 'ExposureFrozen', 'RollbackPublished', 'HaltVerified'] as const
    ).map((type) => ref(events, type));
    const upTo = (type: StoredEvent['type']) =>
      rows(section(writePostmortem(events.slice(0, eventOf(events, type).seq)), 'Detection and response'));
    const all = [
      ['first stage opened → first harmful report', '250 ms', `${stage} ${verdict}`],
      ['first harmful report → verdict', '750 ms', verdict],
      ['first harmful report → exposure frozen', '1.5 s', `${verdict} ${frozen}`],
      ['exposure frozen → rollback published', '1.3 s', `${frozen} ${rollback}`],
      ['rollback published → recovery verified', '1.0 s', `${rollback} ${verified}`],
    ];
    expect(upTo('ReleaseHalted')).toEqual(all);
    expect(upTo('RollbackPublished')).toEqual(all.slice(0, 4));
    expect(upTo('RegressionDetected')).toEqual(all.slice(0, 2));
  });

  test('a halt that a person asked for is timed from the request, and has no verdict', () => {
    const asked = Date.parse(eventOf(stream('halted-by-person'), 'HaltRequested').occurredAt);
    const events = stored(
      sampleStream('halted-by-person', policy).map((event) =>
        event.type === 'ExposureFrozen' ? { ...event, data: { ...event.data, frozenAt: asked + 340 } } : event,
      ),
    );
    const text = writePostmortem(events);
    expect(rows(section(text, 'Detection and response'))[0]).toEqual([
      'halt asked for → exposure frozen',
      '340 ms',
      `${ref(events, 'HaltRequested')} ${ref(events, 'ExposureFrozen')}`,
    ]);
    expect(section(text, 'The verdict')).toEqual([]);
  });

  test('the verdict is shown with all that is needed to compute it again', () => {
    const events = stream('halted');
    const lines = section(writePostmortem(events), 'The verdict');
    expect(lines[0]).toContain(ref(events, 'RegressionDetected'));
    expect(Object.fromEntries(rows(lines))).toEqual({
      metric: sampleVerdict.metric,
      segment: 'the whole fleet',
      'events with the release': '3',
      'device hours (or trials) with the release': '0.0100',
      'events without it': '0',
      'device hours (or trials) without it': '1.5000',
      'key A: statistic, threshold': '120.00, 100.00',
      'key B: statistic, threshold': '25.000, 20.000',
      ticks: '0 to 4',
      policy: sampleVerdict.policyDigest,
      code: 'test',
    });
    expect(stateOf(events).halt?.verdict).toMatchObject(sampleVerdict);
  });

  test('a blocked release reached nobody; every red gate stands with its cell and event', () => {
    const events = stream('blocked');
    const text = writePostmortem(events);
    expect(section(text, 'Summary')[0]).toContain('No stage was opened');
    expect(section(text, 'Impact')).toEqual([
      `0 devices of 3 enrolled ${ref(events, 'MatrixPlanned')} were offered the release: it did not reach a stage.`,
    ]);
    expect(section(text, 'Detection and response')).toEqual(['The release was not halted.']);
    expect(rows(section(text, 'What the matrix found'))).toEqual([
      [
        'suricata-7.0.10-00000000/ids',
        'rules-loaded: 1, needs == 2',
        '7',
        'unknown rule keyword',
        ref(events, 'MatrixCellFailed'),
      ],
    ]);
  });

  test('a cancelled release says who cancelled and that nobody was offered it', () => {
    const events = stream('cancelled');
    const text = writePostmortem(events);
    expect(section(text, 'Summary')[0]).toContain(`**cancelled** after`);
    expect(section(text, 'Summary')[0]).toContain(`customers call (person-cancel) ${ref(events, 'ReleaseCancelled')}.`);
    expect(section(text, 'Impact')[0]).toContain('0 devices of 3 enrolled');
    expect(section(text, 'What the matrix found')).toEqual([]);
  });

  test('a release under way is not said to have ended, after whatever event', () => {
    for (const kind of ['completed', 'halted'] as const) {
      const events = stream(kind);
      for (let seen = 1; seen < events.length; seen += 1) {
        const text = writePostmortem(events.slice(0, seen));
        expect(text).toMatch(/^# Release r-1 of ips: \w+, not ended yet\n/);
        expect(section(text, 'Summary')[0]).toMatch(
          new RegExp(`It has not ended; the last event is ${events[seen - 1]?.type} \\[#${seen}\\]\\.$`),
        );
      }
    }
  });

  test('an open stage without a count yet is not a release that reached nobody', () => {
    const events = stream('halted');
    const text = writePostmortem(events.slice(0, eventOf(events, 'RegressionDetected').seq));
    expect(section(text, 'Impact')).toEqual([
      `Stage 1 was opened ${ref(events, 'StageOpened')}; no event has counted its devices yet.`,
    ]);
  });

  test('without events there is nothing to write', () => {
    expect(() => writePostmortem([])).toThrow(/at least one event/);
  });
});

describe('what people and engines wrote', () => {
  const nasty = 'a|b\\|c\n## Impact\r\n| x | `y` | **z** [#99] <!-- <b>';

  test.each(['completed', 'blocked', 'halted-by-person', 'cancelled'] as const)(
    'breaks neither a table nor the sections of a %s release, and names no event',
    (kind) => {
      const plain = writePostmortem(stream(kind));
      const events = stored(number(sampleStream(kind, policy).map(withWords(nasty))));
      const text = writePostmortem(events);
      const shape = (written: string) => written.split('\n').map((line) => line.replace(/[^|#].*/, ''));
      expect(shape(text)).toEqual(shape(plain));
      expect(rows(section(text, 'Timeline'))).toHaveLength(events.length);
      rows(section(text, 'What the matrix found'));
      expect(text).not.toMatch(/(?<!\\)\[#99|(?<!\\)<|(?<!\\)`y/);
    },
  );
});

/** The same events with other words wherever people or engines have their say. */
const withWords =
  (words: string) =>
  (event: ReleaseEvent): ReleaseEvent => {
    switch (event.type) {
      case 'ReleaseTriggered':
        return { ...event, data: { ...event.data, note: words, requestedBy: words } };
      case 'ApprovalGranted':
        return { ...event, data: { ...event.data, note: words, by: words } };
      case 'MatrixCellFailed': {
        const { result } = event.data;
        const gates = result.gates.map((gate) => ({ ...gate, details: [{ words }] }));
        return { ...event, data: { result: { ...result, gates } } };
      }
      case 'HaltRequested':
        return { ...event, data: { ...event.data, by: words, reason: words } };
      case 'ReleaseFailed':
      case 'ReleaseHalted':
      case 'ReleaseCancelled':
        return { ...event, data: { ...event.data, by: words, reason: words } } as ReleaseEvent;
      default:
        return event;
    }
  };
