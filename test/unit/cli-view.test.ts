import { stripVTControlCharacters as plain } from 'node:util';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { exitCodeOf, type Live, liveOf, renderRelease, statusLine } from '../../apps/cli/view.ts';
import { createLiveView } from '../../apps/cli/watch.ts';
import { defaultPolicy } from '../../domain/policy.ts';
import type { Counts } from '../../domain/release.ts';
import { foldEvents, type Phase, phases, type ReleaseState, terminalPhases } from '../../domain/release-state.ts';
import { duration } from '../../domain/timeline.ts';
import type { ReleaseEvent } from '../../events/catalogue.ts';
import { judgeStatus, number, type SampleKind, sampleStream, sampleVerdict } from '../support/streams.ts';

afterEach(() => {
  vi.unstubAllEnvs();
});

const policy = { ...defaultPolicy, approvals: 2 };
const by = { triggeredBy: 'workflow', by: 'release', reason: 'a reason' } as const;
const fold = (events: readonly ReleaseEvent[]): ReleaseState => {
  const state = foldEvents(number(events));
  if (state === null) throw new Error('empty');
  return state;
};
/** The events of a sample up to the first of that type, then these. */
const upTo = (kind: SampleKind, type: ReleaseEvent['type'], ...more: readonly ReleaseEvent[]): ReleaseState => {
  const events = sampleStream(kind, policy);
  const index = events.findIndex((event) => event.type === type);
  if (index < 0) throw new Error(`no ${type} in the sample`);
  return fold([...events.slice(0, index + 1), ...more]);
};
const held = {
  ...by,
  reasonCode: 'hold',
  stage: 0,
  name: 'canary',
  verdict: { ...sampleVerdict, kind: 'hold' },
} as const;
const states: Readonly<Record<Phase, ReleaseState>> = {
  triggered: upTo('completed', 'ReleaseTriggered'),
  building: upTo('completed', 'BuildStarted'),
  matrix: upTo('completed', 'MatrixPlanned'),
  signing: upTo('completed', 'MatrixPassed'),
  approval: upTo('completed', 'ApprovalGranted'),
  rolling: upTo('completed', 'StagePassed'),
  held: upTo('completed', 'StageEvidenceRecorded', { type: 'StageHeld', data: held }),
  paused: upTo('completed', 'StageEvidenceRecorded', {
    type: 'RolloutPaused',
    data: { ...by, reasonCode: 'person-pause', stage: 0 },
  }),
  halting: upTo('halted', 'ExposureFrozen'),
  completed: fold(sampleStream('completed', policy)),
  blocked: fold(sampleStream('blocked', policy)),
  halted: fold(sampleStream('halted', policy)),
  failed: upTo('completed', 'MatrixPassed', { type: 'ReleaseFailed', data: { ...by, reasonCode: 'signing-failed' } }),
  cancelled: fold(sampleStream('cancelled', policy)),
};
const buildFailed = upTo(
  'completed',
  'BuildStarted',
  {
    type: 'BuildFailed',
    data: { findings: [{ code: 'syntax', file: 'rules/a.rules', line: 3, message: 'no closing bracket' }] },
  },
  { type: 'ReleaseFailed', data: { ...by, reasonCode: 'build-failed' } },
);

const freeze = { freezeId: 'f', by: 'sam', at: '2026-11-24T10:00:00.000Z', until: null, reason: 'complaints' };
const segment = 'suricata-7.0.10-00000000/fail-open';
const late = 'suricata-8.0.7-11111111/fail-closed';
const seen = (own: number): Counts[string] => ({
  ...{ enrolled: 100_000, offered: own, installed: own, healthy: own, harmed: own, recovered: own },
});
const live = (seen: Live['judge'], freeze: Live['freeze'] = null): Live => ({
  ...{ judge: seen, freeze, now: seen?.lastWindowClosedAt ?? 0 },
});
const judge = judgeStatus({
  ...{ releaseId: 'r-1', lastTick: 12, statA: 98_765.4, statB: 0.01, leading: `silence-first/${segment}` },
  counts: { [segment]: seen(123_456) },
});

const widest = (text: string): string =>
  plain(text)
    .split('\n')
    .reduce((longest, line) => (line.length > longest.length ? line : longest), '');

test('there is a state of every phase here', () => {
  for (const phase of phases) expect(states[phase].phase).toBe(phase);
  expect(buildFailed.phase).toBe('blocked');
});

describe('exit codes', () => {
  test.each(phases)('%s', (phase) => {
    const endedOtherwise = terminalPhases.includes(phase) && phase !== 'completed';
    expect(exitCodeOf(states[phase])).toBe(endedOtherwise ? 3 : 0);
  });
});

/** The longest that people and the pipeline may say: 500 characters, with and without blanks, and steering characters. */
const wordy = (state: ReleaseState, words: string): ReleaseState => ({
  ...state,
  requestedBy: 'x'.repeat(100),
  note: words,
  findings: state.findings.map((finding) => ({ ...finding, message: words })),
  approvals: state.approvals && { needed: 20, by: Array.from({ length: 20 }, () => 'y'.repeat(100)) },
  hold: state.hold && { ...state.hold, reason: words },
  halt: state.halt && { ...state.halt, by: 'z'.repeat(100), reason: words },
  end: state.end && { ...state.end, reason: words },
  evidence: state.evidence && {
    ...state.evidence,
    waitingFor: [{ code: 'open-trials', message: `first silence trials still open in ${segment}: ${words}` }],
  },
  matrix: state.matrix && {
    ...state.matrix,
    results: state.matrix.results.map((result) => ({
      ...result,
      gates: result.gates.map((gate) => ({ ...gate, details: [{ rule: 7, words }] })),
    })),
  },
  rollout: state.rollout && {
    ...state.rollout,
    stages: state.rollout.stages.map((stage) => ({ ...stage, name: 'n'.repeat(40), devices: { [segment]: 100_000 } })),
  },
});

describe('a release as people look at it', () => {
  const all = [...Object.entries(states), ['build failed', buildFailed] as const];

  test.each(all)('%s: says its phase and fits 100 columns, with and without colours', (_, state) => {
    for (const colours of ['0', '1']) {
      vi.stubEnv('NO_COLOR', undefined);
      vi.stubEnv('FORCE_COLOR', colours);
      for (const seenBy of [null, live(null), live(judge), live(judge, freeze)]) {
        const text = renderRelease(state, seenBy);
        expect(text.includes('\x1b[')).toBe(colours === '1');
        expect(plain(text)).toMatch(new RegExp(`^r-1\n(.*\n)* +phase +${state.phase}`));
        expect(plain(text)).not.toMatch(/undefined|NaN|\[object| \n/);
        expect(widest(text).length, widest(text)).toBeLessThanOrEqual(100);
      }
    }
  });

  test.each(all)('%s: fits 100 columns whatever people wrote', (_, state) => {
    vi.stubEnv('FORCE_COLOR', '0');
    for (const words of ['word '.repeat(100), 'w'.repeat(500), 'a\nb\r\n\t\x1b[2J\x07'.repeat(50)]) {
      const text = renderRelease(wordy(state, words), live(judge, { ...freeze, reason: words }));
      expect(widest(text).length, widest(text)).toBeLessThanOrEqual(100);
      expect(text.replaceAll('\n', '')).not.toMatch(/\p{Cc}/u);
    }
  });

  test('a halted release: who, why, rollback, verdict and every segment', () => {
    const text = plain(renderRelease(states.halted));
    expect(text).toMatch(/halted +by judge: regression of blocked-traffic in the whole fleet/);
    expect(text).toMatch(/rollback +content 3, every harmed device recovered/);
    expect(text).toContain('blocked-traffic in the whole fleet: 3 events with the release in 0.010 h');
    expect(text).toMatch(new RegExp(`${segment} +3 +3 +3 +3 +3 +3`));
    expect(text).toMatch(/1 canary +█+ +3 {2}halted/);
    expect(text).toMatch(/2 1 % .* not opened/);
    expect(plain(renderRelease(fold(sampleStream('halted-by-person', policy))))).toContain(
      'content 3, not all recovered',
    );
  });

  test('a blocked release: the red cell with the words of the engine, or the finding with its place', () => {
    const text = plain(renderRelease(states.blocked));
    expect(text).toContain('failed: 0 of 1 cell green');
    expect(text).toContain(
      'suricata-7.0.10-00000000/ids\n    rules-loaded 1, needs == 2; rule 7: unknown rule keyword',
    );
    expect(plain(renderRelease(buildFailed))).toContain('rules/a.rules:3: no closing bracket');
  });

  test('the counts of the judge are shown while a stage is open, and not after the end', () => {
    expect(plain(renderRelease(states.rolling, live(judge)))).toContain('123456');
    expect(plain(renderRelease(states.rolling, live(judge)))).toContain(
      'tick 12: keys 9.9e+4 of 100 and 1.0e-2 of 20, led by',
    );
    expect(plain(renderRelease(states.completed, live(judge)))).not.toContain('123456');
    expect(plain(statusLine(states.rolling, judge))).toContain('123456 offered, 123456 installed');
    expect(plain(statusLine(states.halted, judge))).toContain('3 harmed, 3 recovered · regression');
  });

  describe('what the open stage waits for', () => {
    const open = upTo('completed', 'StageOpened');
    const from = Date.parse(open.rollout?.openedAt ?? '');
    const seenSince = (more: Parameters<typeof judgeStatus>[0]) =>
      judgeStatus({ releaseId: 'r-1', stage: 0, lastWindowClosedAt: from + 1_000, ...more });
    const linesOf = (state: ReleaseState, known: Live | null): readonly string[] =>
      (
        plain(renderRelease(state, known))
          .replaceAll(/\n +/g, ' ')
          .match(/waiting: .*?(?= waiting:|\n|$)/g) ?? []
      ).map((one) => one.trim());

    test('is what the judge has seen, with units, and says what a person can shorten', () => {
      const minMs = open.policy.stages[0]?.minMs ?? 0;
      expect(linesOf(open, live(seenSince({})))).toEqual([
        `waiting: minimum time of the stage: 1.0 s, needs >= ${duration(minMs)} (unless promoted)`,
        expect.stringMatching(/^waiting: healthy devices: 0, needs >= \d+$/),
      ]);
      const stale = { ...live(null), now: from + 10_000_000 };
      expect(linesOf(open, stale)).toEqual([
        expect.stringMatching(/^waiting: no fresh evidence: 2\.8 h, needs <= \d.* s$/),
      ]);
    });

    test('is counted by the clock of the api, whose windows these are, and not by ours', () => {
      const judge = seenSince({});
      const about = { workflowUrl: null, quarantined: 0, director: null };
      expect(linesOf(open, liveOf({ now: from + 1_000, release: open, judge, ...about }))[0]).toContain('minimum time');
    });

    test('is said of no stage that is frozen, held or over: numbers of then are none of now', () => {
      const stale: ReleaseState = {
        ...open,
        evidence: {
          ...{ stage: 0, lastTick: 1, counts: {}, statA: 0, statB: 0, leading: '' },
          waitingFor: [{ code: 'frozen', message: 'old' }],
        },
      };
      const text = plain(renderRelease(stale, live(seenSince({}), freeze)));
      expect(text).toContain('frozen     by sam since 2026-11-24T10:00:00.000Z: complaints');
      expect(text).not.toContain('waiting:');
      for (const state of [states.held, states.paused, states.halted, states.completed]) {
        expect(linesOf({ ...state, evidence: stale.evidence }, live(seenSince({})))).toEqual([]);
      }
      expect(linesOf(stale, null)).toEqual([]);
    });

    test('a stage that is held for a freeze says whose freeze stands now', () => {
      const reason = 'the family is frozen by nina since then: another one';
      const heldFrozen = { ...states.held, hold: { reasonCode: 'frozen', reason, verdict: null, cells: [] } };
      expect(plain(renderRelease(heldFrozen, live(judge, freeze)))).not.toContain('by nina');
      expect(plain(renderRelease(heldFrozen, live(judge)))).toContain('by nina');
      expect(plain(renderRelease(states.held, live(judge, freeze)))).toContain('held       a reason');
    });
  });

  test('a segment that came after the plan is shown', () => {
    const status = { ...judge, counts: { ...judge.counts, [late]: seen(1) } };
    expect(plain(renderRelease(states.rolling, live(status)))).toMatch(new RegExp(`${late} +0 +1 +1 +1 +1 +1`));
  });
});

describe('the view that draws over itself', () => {
  /** This process's own output with another size, kept instead of shown. */
  const terminal = (columns: number, rows: number, isTTY = true) => {
    const written: string[] = [];
    const stream: NodeJS.WriteStream = Object.create(process.stdout, {
      ...{ isTTY: { value: isTTY }, columns: { value: columns }, rows: { value: rows } },
      write: { value: (text: string) => written.push(text) > 0 },
    });
    return { written, stream };
  };

  test('no line is broken by a narrow terminal, and it draws over as many lines as it drew', () => {
    const { written, stream } = terminal(60, 20);
    const { show, say } = createLiveView(stream, '  ');
    show(wordy(states.halted, 'word '.repeat(100)), live(null));
    show(states.halted, live(null));
    expect(widest(written[0] ?? '').length).toBeLessThanOrEqual(60);
    const lines = (written[0] ?? '').split('\n').length - 1;
    expect(lines).toBe(18);
    expect(written[1]?.startsWith(`\x1b[${lines}A\x1b[0J`)).toBe(true);
    // What is said meanwhile stays where it is.
    say('nobody answers');
    show(states.halted, live(null));
    expect(written[3]).not.toContain('\x1b[0J');
  });

  test('colours follow the stream that is written, not the other one', () => {
    for (const name of ['NO_COLOR', 'FORCE_COLOR']) vi.stubEnv(name, undefined);
    const lineTo = (isTTY: boolean, other: boolean): string => {
      const { written, stream } = terminal(100, 30, isTTY);
      const own = Object.getOwnPropertyDescriptor(process.stdout, 'isTTY') ?? {};
      Object.defineProperty(process.stdout, 'isTTY', { value: other, configurable: true });
      try {
        createLiveView(stream).show(states.halted, live(null));
      } finally {
        Object.defineProperty(process.stdout, 'isTTY', { configurable: true, ...own });
      }
      return written.join('');
    };
    expect(plain(lineTo(false, true))).toContain('halted');
    expect(lineTo(false, true)).not.toContain('\x1b[');
    expect(lineTo(true, true)).toContain('\x1b[31mhalted');
  });

  test('what is longer than a line goes on below it', () => {
    const { written, stream } = terminal(0, 0, false);
    createLiveView(stream, '  ').show(wordy(states.halted, 'word '.repeat(40)), live(null));
    expect(widest(written[0] ?? '').length).toBeLessThanOrEqual(100);
    expect(written[0]).toMatch(/\n {12}word/);
  });

  test('elsewhere there is one line per change', () => {
    const { written, stream } = terminal(0, 0, false);
    const { show } = createLiveView(stream);
    show(states.blocked, live(null));
    show(states.blocked, live(null));
    show(states.halted, live(null));
    expect(written.map((text) => plain(text))).toEqual([
      '   6.0 s  blocked · 1 of 1 cells did not pass\n',
      expect.stringMatching(/s {2}halted · 3 offered, 3 installed.*\n$/),
    ]);
  });
});
