import { describe, expect, test } from 'vitest';
import { type Command, decide } from '../../domain/decide.ts';
import { defaultPolicy } from '../../domain/policy.ts';
import { evolve, foldEvents, isTerminal, type ReleaseState } from '../../domain/release-state.ts';
import { sampleStream } from '../support/streams.ts';

const stateAfter = (type: string): ReleaseState => {
  const events = sampleStream('completed', { ...defaultPolicy, approvals: 2 });
  const index = events.findLastIndex((event) => event.type === type);
  if (index < 0) throw new Error(`no ${type} in the sample`);
  const state = foldEvents(events.slice(0, index + 1));
  if (state === null) throw new Error('empty');
  return state;
};
const ask = (kind: Exclude<Command['kind'], 'approve'>): Command => ({ kind, by: 'sre', reason: 'because' });

describe('decide', () => {
  test.each([
    ['BuildStarted', ['cancel']],
    ['MatrixPassed', ['cancel']],
    ['ApprovalRequested', ['cancel', 'approve']],
    ['RolloutPlanned', ['cancel']],
    ['StageOpened', ['pause', 'promote', 'halt']],
    ['StagePassed', ['pause', 'halt']],
    ['ReleaseCompleted', []],
  ] as const)('after %s only %j can be asked', (type, allowed) => {
    const state = stateAfter(type);
    const commands: Command[] = [
      { kind: 'approve', by: 'boss', note: '' },
      ...(['pause', 'resume', 'promote', 'halt', 'cancel'] as const).map(ask),
    ];
    const accepted = commands.filter((command) => decide(state, command).ok).map((command) => command.kind);
    expect(new Set(accepted)).toEqual(new Set(allowed));
  });

  test('a refusal says what to do instead', () => {
    expect(decide(stateAfter('StageOpened'), ask('cancel'))).toMatchObject({
      ok: false,
      code: 'SRP_RULE_PHASE',
      message: expect.stringContaining('use halt'),
    });
    expect(decide(stateAfter('BuildStarted'), ask('halt'))).toMatchObject({
      message: expect.stringContaining('use cancel'),
    });
  });

  test('a reason and a name are needed', () => {
    const state = stateAfter('StageOpened');
    expect(decide(state, { kind: 'halt', by: 'sre', reason: ' ' })).toMatchObject({ code: 'SRP_INPUT_REASON' });
    expect(decide(state, { kind: 'halt', by: '', reason: 'x' })).toMatchObject({ code: 'SRP_INPUT_BY' });
  });

  test('approvals come from different people, none of them the requester', () => {
    const waiting = stateAfter('ApprovalRequested');
    expect(decide(waiting, { kind: 'approve', by: waiting.requestedBy, note: '' })).toMatchObject({
      code: 'SRP_RULE_FOUR_EYES',
    });
    const [first] = sampleStream('completed', { ...defaultPolicy, approvals: 2 }).filter(
      (e) => e.type === 'ApprovalGranted',
    );
    if (!first) throw new Error('no approval in the sample');
    const once = evolve(waiting, first);
    expect(decide(once, { kind: 'approve', by: once.approvals?.by[0] ?? '', note: '' })).toMatchObject({
      code: 'SRP_RULE_FOUR_EYES',
    });
  });

  test('an approval more than needed is refused', () => {
    const granted = stateAfter('ApprovalGranted');
    expect(decide(granted, { kind: 'approve', by: 'late', note: '' })).toMatchObject({
      ok: false,
      code: 'SRP_RULE_PHASE',
      message: expect.stringContaining('the approvals that it needs: 2'),
    });
  });

  test('pause, then resume; a person who clears a hold stays recorded across stages', () => {
    const rolling = stateAfter('StageOpened');
    const paused = apply(rolling, ask('pause'));
    expect(paused.phase).toBe('paused');
    expect(apply(paused, ask('resume')).phase).toBe('rolling');
    const decision = {
      triggeredBy: 'judge',
      by: 'judge',
      reasonCode: 'hold',
      reason: 'crash',
      stage: 0,
      name: 'canary',
    } as const;
    const [template] = sampleStream('completed', defaultPolicy);
    if (!template) throw new Error('empty');
    const held = evolve(rolling, {
      ...template,
      seq: 99,
      type: 'StageHeld',
      data: { ...decision, verdict: null, cells: ['a', 'b'] },
    });
    const resumed = apply(held, ask('resume'));
    expect(resumed).toMatchObject({ phase: 'rolling', hold: null, rollout: { clearedCells: ['a', 'b'] } });
    // A pause of what is held: its end clears nothing that nobody spoke of.
    const unpaused = apply(apply(held, ask('pause')), ask('resume'));
    expect(unpaused).toMatchObject({ phase: 'held', hold: { cells: ['a', 'b'] }, rollout: { clearedCells: [] } });
    expect(apply(unpaused, ask('resume'))).toMatchObject({ phase: 'rolling', rollout: { clearedCells: ['a', 'b'] } });
    const byJudge = { ...decision, reasonCode: 'hold-cleared', stage: 0 };
    const cleared = evolve(held, { ...template, seq: 100, type: 'RolloutResumed', data: byJudge });
    expect(cleared).toMatchObject({ phase: 'rolling', hold: null, rollout: { clearedCells: [] } });
  });
});

const apply = (state: ReleaseState, command: Command): ReleaseState => {
  const decided = decide(state, command);
  if (!decided.ok) throw new Error(decided.message);
  const [template] = sampleStream('completed', defaultPolicy);
  if (!template) throw new Error('empty');
  return decided.events.reduce(
    (current, event, index) => evolve(current, { ...template, ...event, seq: state.seq + index + 1 }),
    state,
  );
};

describe('evolve', () => {
  test.each(['completed', 'blocked', 'halted'] as const)('a %s release ends in that phase', (kind) => {
    const state = foldEvents(sampleStream(kind, defaultPolicy));
    expect(state?.phase).toBe(kind);
    expect(state !== null && isTerminal(state)).toBe(true);
  });

  test('a halt keeps its first cause', () => {
    const state = foldEvents(sampleStream('halted', defaultPolicy));
    expect(state?.halt).toMatchObject({ by: 'judge', reasonCode: 'regression-blocked-traffic', recovered: true });
  });

  test.each(['pause', 'halt'] as const)(
    'a hold that is found at the same moment as a %s leaves it as it is',
    (kind) => {
      const stopped = apply(stateAfter('StageOpened'), ask(kind));
      const [template] = sampleStream('completed', defaultPolicy);
      if (!template) throw new Error('empty');
      const decision = { triggeredBy: 'lease', by: 'release', reasonCode: 'no-data', reason: 'no window' } as const;
      const data = { ...decision, stage: 0, name: 'canary', verdict: null };
      const state = evolve(stopped, { ...template, seq: 99, type: 'StageHeld', data });
      expect(state).toMatchObject({ phase: stopped.phase, halt: stopped.halt });
      if (kind === 'pause') expect(apply(state, ask('resume'))).toMatchObject({ phase: 'held', hold: { cells: [] } });
    },
  );

  test('a stream that does not begin with its trigger is refused', () => {
    expect(() => foldEvents(sampleStream('completed', defaultPolicy).slice(1))).toThrow(/begins with BuildStarted/);
  });
});
