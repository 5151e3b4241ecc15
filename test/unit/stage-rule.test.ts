import { describe, expect, test } from 'vitest';
import { defaultPolicy, type RolloutPolicy } from '../../domain/policy.ts';
import type { SegmentCounts, Verdict } from '../../domain/release.ts';
import { assessStage, endOfWatch, type Hold, type JudgeStatus, type StageQuestion } from '../../domain/stage-rule.ts';
import { judgeStatus } from '../support/streams.ts';

const policy: RolloutPolicy = {
  ...defaultPolicy,
  tickMs: 1000,
  freshTicks: 3,
  stages: [
    { name: 'canary', kind: 'canary', size: 8, minMs: 10_000, minDevices: 8 },
    { name: 'half', kind: 'share', size: 0.5, minMs: 10_000, minDevices: 20 },
  ],
};
const counts = (changes: Partial<SegmentCounts> = {}): SegmentCounts => ({
  enrolled: 100,
  offered: 8,
  installed: 8,
  healthy: 8,
  harmed: 0,
  recovered: 0,
  ...changes,
});
const status = (changes: Partial<JudgeStatus> = {}): JudgeStatus =>
  judgeStatus({
    ...{ lastTick: 12, lastWindowClosedAt: 112_000, statA: 0.5, statB: 0.5, leading: 'crash' },
    counts: { 'a/fail-open': counts(), 'b/fail-closed': counts({ enrolled: 20 }) },
    exposed: { 'a/fail-open': 8, 'b/fail-closed': 8 },
    ...changes,
  });
const question = (changes: Partial<StageQuestion> = {}): StageQuestion => ({
  policy,
  stage: 0,
  openedAt: 100_000,
  now: 112_500,
  promote: false,
  clearedCells: [],
  ...changes,
});
const hold = (cell: string, clearedAt: number | null = null): Hold => ({
  verdict: { ...verdict('hold'), cell },
  clearedAt,
});
const verdict = (kind: Verdict['kind']): Verdict => ({
  kind,
  tick: 3,
  cell: 'crash',
  metric: 'crash',
  segment: null,
  x: 3,
  y: 0,
  treatedHours: 1,
  controlHours: 100,
  statA: 200,
  statB: 30,
  thresholdA: 100,
  thresholdB: 20,
  policyDigest: 'd',
  firstTick: 0,
  lastTick: 3,
  codeVersion: '1',
  firstHarmAt: 101_000,
});
const waiting = (assessment: ReturnType<typeof assessStage>): string[] => {
  expect(assessment.outcome).toBe('watching');
  return assessment.evidence.waitingFor.map((finding) => finding.code);
};

describe('a stage', () => {
  test('passes when everything the policy asks for is there', () => {
    expect(assessStage(question(), status())).toMatchObject({ outcome: 'passed', evidence: { waitingFor: [] } });
  });

  test('waits for the minimum time of evidence, unless a person promotes', () => {
    const early = status({ lastWindowClosedAt: 109_000 });
    expect(waiting(assessStage(question({ now: 109_500 }), early))).toEqual(['min-time-ms']);
    expect(assessStage(question({ now: 109_500, promote: true }), early).outcome).toBe('passed');
  });

  test('never says that what it waits for is there already', () => {
    const messages = (asked: Partial<StageQuestion>, seen: JudgeStatus): readonly string[] =>
      assessStage(question(asked), seen).evidence.waitingFor.map(({ message }) => message);
    const hour: RolloutPolicy = { ...policy, stages: policy.stages.map((one) => ({ ...one, minMs: 3_600_000 })) };
    const nearly = { policy: hour, now: 100_000 + 3_599_900 };
    expect(messages(nearly, status({ lastWindowClosedAt: nearly.now }))).toEqual([
      'minimum time of the stage: 59 min 59 s, needs >= 60 min 0 s',
    ]);
    expect(messages({ now: 115_010 }, status())).toEqual(['no fresh evidence: 3.1 s, needs <= 3.0 s']);
    const little = status({ promote: { cell: 'crash/*', value: 19.998, limit: 20 } });
    const promoted = { ...policy, stages: policy.stages.map((one) => ({ ...one, promote: true })) };
    expect(messages({ policy: promoted }, little)).toEqual(['evidence that crash/* got no worse: 19.998, needs >= 20']);
  });

  test('that waits for evidence stays until no critical metric can have got much worse, unless a person promotes', () => {
    const [first, ...more] = policy.stages;
    if (!first) throw new Error('no stage');
    const asked = question({ policy: { ...policy, stages: [{ ...first, promote: true }, ...more] } });
    const little = status({ promote: { cell: 'silence-later/*', value: 19.94, limit: 20 } });
    expect(waiting(assessStage(asked, little))).toEqual(['promote-evidence']);
    expect(assessStage({ ...asked, promote: true }, little).outcome).toBe('passed');
    expect(assessStage(asked, status({ promote: { cell: 'crash/*', value: 20, limit: 20 } })).outcome).toBe('passed');
    expect(assessStage(question(), little).outcome).toBe('passed');
  });
  test('waits for a window in which it was in force', () => {
    const half = { stage: 1, openedAt: 100_000 };
    expect(waiting(assessStage(question(half), status()))).toContain('stage-evidence');
  });

  test('waits until half of the exposed devices of every segment are healthy', () => {
    const three = status({ counts: { 'a/fail-open': counts(), 'b/fail-closed': counts({ healthy: 3 }) } });
    const assessment = assessStage(question(), three);
    expect(waiting(assessment)).toEqual(['segment-healthy']);
    expect(assessment.evidence.waitingFor[0]).toMatchObject({ observed: 3, operator: '>=', limit: 4 });
    const four = status({ counts: { 'a/fail-open': counts(), 'b/fail-closed': counts({ healthy: 4 }) } });
    expect(assessStage(question(), four).outcome).toBe('passed');
  });

  test('never passes a segment blind: devices enrolled, none exposed', () => {
    const blind = status({
      counts: { 'a/fail-open': counts(), 'tiny/fail-open': counts({ enrolled: 2, offered: 0, healthy: 0 }) },
      exposed: { 'a/fail-open': 8 },
    });
    expect(waiting(assessStage(question(), blind))).toEqual(['segment-healthy']);
  });

  test('ignores a segment in which nobody is enrolled', () => {
    const empty = status({
      counts: { 'a/fail-open': counts(), 'gone/fail-open': counts({ enrolled: 0, offered: 0, healthy: 0 }) },
    });
    expect(assessStage(question(), empty).outcome).toBe('passed');
  });

  test('waits for the first silence trials', () => {
    expect(waiting(assessStage(question(), status({ openTrials: { 'a/fail-open': 1 } })))).toEqual(['open-trials']);
    const large = { 'a/fail-open': counts({ offered: 40, healthy: 40 }) };
    expect(assessStage(question(), status({ counts: large, openTrials: { 'a/fail-open': 2 } })).outcome).toBe('passed');
    expect(waiting(assessStage(question(), status({ counts: large, openTrials: { 'a/fail-open': 3 } })))).toEqual([
      'open-trials',
    ]);
  });

  test('waits for the minimum number of healthy devices', () => {
    const few = status({ counts: { 'a/fail-open': counts({ healthy: 7 }) } });
    expect(waiting(assessStage(question(), few))).toEqual(['min-devices']);
  });

  test('never passes without devices', () => {
    expect(waiting(assessStage(question({ promote: true }), status({ counts: {}, exposed: {} })))).toEqual([
      'min-devices',
    ]);
  });

  test('is a regression on HALT, also when a HOLD was cleared and the evidence is old', () => {
    const halted = status({ holds: [hold('crash')], halt: verdict('halt') });
    expect(assessStage(question({ clearedCells: ['crash'], now: 900_000 }), halted)).toMatchObject({
      outcome: 'regression',
      verdict: { kind: 'halt' },
    });
  });

  test('is held on HOLD until a person or evidence clears that cell', () => {
    const held = status({ holds: [hold('crash')] });
    expect(assessStage(question({ promote: true }), held)).toMatchObject({ outcome: 'held', reason: 'hold' });
    expect(assessStage(question({ clearedCells: ['crash'] }), held).outcome).toBe('passed');
    expect(assessStage(question(), status({ holds: [hold('crash', 7)] })).outcome).toBe('passed');
  });

  test('a cell that holds is not cleared with another one, and all that hold are named', () => {
    const held = status({ holds: [hold('crash'), hold('load-failure', 7), hold('blocked-traffic')] });
    expect(assessStage(question({ clearedCells: ['crash'] }), held)).toMatchObject({
      ...{ outcome: 'held', verdict: { cell: 'blocked-traffic' }, cells: ['blocked-traffic'] },
    });
    expect(assessStage(question(), held)).toMatchObject({ cells: ['crash', 'blocked-traffic'] });
  });

  test('a watch over a held stage ends when nothing holds it any more, and for what came since', () => {
    const held = assessStage(question(), status({ holds: [hold('crash'), hold('load-failure')] }));
    const free = assessStage(question(), status({ holds: [hold('crash', 7)] }));
    const noData = assessStage(question({ now: 118_001 }), status());
    const all = { reason: 'hold', cells: ['crash', 'load-failure'] } as const;
    const one = { reason: 'hold', cells: ['crash'] } as const;
    const none = { reason: 'no-data', cells: [] } as const;
    expect(endOfWatch(held, all, false, null)).toBeNull();
    expect(endOfWatch(held, one, false, null)).toEqual(held);
    expect(endOfWatch(held, none, false, null)).toEqual(held);
    expect(endOfWatch(free, all, false, null)).toMatchObject({ outcome: 'released' });
    expect(endOfWatch(free, all, true, null)).toBeNull();
    expect(endOfWatch(noData, none, true, null)).toBeNull();
    expect(endOfWatch(noData, all, true, null)).toBeNull();
    expect(endOfWatch(free, null, false, null)).toMatchObject({ outcome: 'passed' });
    const halted = assessStage(question(), status({ halt: verdict('halt') }));
    for (const heldFor of [null, all, none]) expect(endOfWatch(halted, heldFor, true, null)).toEqual(halted);
  });

  test('passes nothing while the family is frozen; a HALT is heard, a HOLD too unless something holds the stage already', () => {
    const freeze = { freezeId: 'f', by: 'sam', reason: 'complaints', at: '2026-01-01T00:00:00.000Z', until: null };
    const free = assessStage(question(), status());
    const heldFor = { reason: 'frozen', cells: [] } as const;
    expect(endOfWatch(free, null, false, null)).toMatchObject({ outcome: 'passed' });
    expect(endOfWatch(free, null, false, freeze)).toMatchObject({
      ...{ outcome: 'held', reason: 'frozen' },
      evidence: { waitingFor: [{ code: 'frozen', message: expect.stringContaining('frozen by sam') }] },
    });
    expect(endOfWatch(free, heldFor, false, freeze)).toBeNull();
    expect(endOfWatch(free, heldFor, true, null)).toBeNull();
    expect(endOfWatch(free, heldFor, false, null)).toMatchObject({ outcome: 'released' });
    const halted = assessStage(question(), status({ halt: verdict('halt') }));
    const held = assessStage(question(), status({ holds: [{ verdict: verdict('hold'), clearedAt: null }] }));
    for (const before of [null, heldFor]) expect(endOfWatch(halted, before, false, freeze)).toEqual(halted);
    expect(endOfWatch(held, null, false, freeze)).toEqual(held);
    expect(endOfWatch(held, heldFor, false, freeze)).toBeNull();
    expect(endOfWatch(held, heldFor, false, null)).toEqual(held);
  });

  test('a freeze that cannot be read has not ended', () => {
    const free = assessStage(question(), status());
    const heldFor = { reason: 'frozen', cells: [] } as const;
    expect(endOfWatch(free, heldFor, false, 'unknown')).toBeNull();
    expect(endOfWatch(free, { ...heldFor, reason: 'no-data' }, false, 'unknown')).toMatchObject({
      outcome: 'released',
    });
    expect(endOfWatch(free, null, false, 'unknown')).toEqual(free);
    const halted = assessStage(question(), status({ halt: verdict('halt') }));
    expect(endOfWatch(halted, heldFor, false, 'unknown')).toEqual(halted);
  });

  test('waits on stale windows and is held as no-data after twice the limit', () => {
    expect(waiting(assessStage(question({ now: 115_001 }), status()))).toEqual(['window-age-ms']);
    expect(assessStage(question({ now: 118_001 }), status())).toMatchObject({ outcome: 'held', reason: 'no-data' });
  });

  test('says why the judge takes no window any more, where that is the reason', () => {
    const refused = status({ refused: 'the log does not give the same numbers twice' });
    const held = assessStage(question({ now: 118_001 }), refused);
    expect(held).toMatchObject({ outcome: 'held', reason: 'no-data' });
    expect(held.evidence.waitingFor[0]).toMatchObject({
      code: 'judge-refuses',
      message: expect.stringContaining('the same numbers twice'),
    });
  });

  test('without any status it waits for the first window, then is held as no-data', () => {
    expect(waiting(assessStage(question({ now: 103_000 }), null))).toEqual(['window-age-ms']);
    expect(assessStage(question({ now: 106_001 }), null)).toMatchObject({ outcome: 'held', reason: 'no-data' });
  });

  test('does not pass a stage that the policy does not have', () => {
    expect(waiting(assessStage(question({ stage: 7 }), status()))).toEqual(['stage']);
  });
});
