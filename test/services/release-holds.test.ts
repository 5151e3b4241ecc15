/** A release that people and the judge hold and let go on, on the real Temporal server, with scripted activities. */
import { describe, expect, test } from 'vitest';
import {
  always,
  cleared,
  completed,
  dataOf,
  expectAfter,
  heldByJudge,
  planned,
  refusal,
  stage,
  watched,
} from '../support/release-paths.ts';
import { evidence, holdVerdict, passed, scriptedReleasesOf } from '../support/scripted.ts';

const releases = scriptedReleasesOf('release-holds');

describe.concurrent('pause and hold', () => {
  test('a pause while the stage is opened: frozen, and after the resume opened again', async () => {
    const release = await releases.start('pause-opening', { asked: { openStage: ({ stage }) => stage === 0 } });
    const opening = await release.asked('openStage');
    expect(await release.command('pause')).toMatchObject({ phase: 'paused' });
    // Who asks for a stop is answered when it is in force.
    expect(release.happened).toContain('freezeExposure');
    await opening.proceed();
    await release.command('resume');
    await (await release.asked('openStage')).proceed();
    const end = await release.end();
    expect(end.phase).toBe('completed');
    expect(end.types).toEqual([
      ...planned,
      ...(['StageOpened', 'RolloutPaused', 'ExposureFrozen', 'RolloutResumed'] as const),
      ...[...watched, ...stage, ...completed],
    ]);
    expectAfter(release, 'thawExposure', 'RolloutResumed');
  });

  test('pause and resume while it is watched, twice', async () => {
    const release = await releases.start('pause-watching', { asked: { watchStage: ({ stage }) => stage === 0 } });
    await release.asked('watchStage');
    for (const times of [1, 2]) {
      expect(await release.command('pause')).toMatchObject({ phase: 'paused' });
      expect(release.happened.filter((what) => what === 'freezeExposure')).toHaveLength(times);
      await expect(release.command('promote')).rejects.toMatchObject(refusal('SRP_RULE_PHASE'));
      await release.command('resume');
      const watch = await release.asked('watchStage');
      expect(watch.input).toMatchObject({ promote: false, clearedCells: [], heldFor: null });
      if (times === 2) watch.answer(passed(0));
    }
    const end = await release.end();
    const paused = ['RolloutPaused', 'ExposureFrozen', 'RolloutResumed'] as const;
    expect(end.types).toEqual([
      ...planned,
      ...['StageOpened' as const, ...paused, ...paused],
      ...[...watched, ...stage, ...completed],
    ]);
    expectAfter(release, 'thawExposure', 'RolloutResumed');
  });

  test('a hold by the judge: frozen until a person resumes, and cleared from then on', async () => {
    const release = await releases.start('hold', { asked: { watchStage: always, openStage: always } });
    await (await release.asked('openStage')).proceed();
    const first = await release.asked('watchStage');
    first.answer(heldByJudge());
    await release.until('ExposureFrozen');
    expect(await release.state()).toMatchObject({ phase: 'held', hold: { reasonCode: 'hold' } });
    const held = await release.asked('watchStage');
    expect(held.input).toMatchObject({ heldFor: { reason: 'hold', cells: cleared }, clearedCells: [] });
    await release.command('resume');
    // What the stage adds may not have been granted when the judge's verdict came between.
    const again = await release.asked('openStage');
    expect(again.input).toMatchObject({ stage: 0, clearedCells: cleared });
    await again.proceed();
    const second = await release.asked('watchStage');
    expect(second.input).toMatchObject({ clearedCells: cleared, heldFor: null });
    second.answer(passed(0));
    const opening = await release.asked('openStage');
    expect(opening.input).toMatchObject({ stage: 1, clearedCells: cleared });
    await opening.proceed();
    const third = await release.asked('watchStage');
    expect(third.input).toMatchObject({ stage: 1, clearedCells: cleared });
    third.answer(passed(1));
    // After the field the evidence is looked at once more.
    (await release.asked('watchStage')).answer(passed(1));
    const end = await release.end();
    expect(end.types).toEqual([
      ...planned,
      ...(['StageOpened', 'StageEvidenceRecorded', 'StageHeld', 'ExposureFrozen', 'RolloutResumed'] as const),
      ...[...watched, ...stage, ...completed],
    ]);
    expect(dataOf(end, 'StageHeld')).toMatchObject([{ triggeredBy: 'judge', verdict: holdVerdict }]);
    expect(dataOf(end, 'ExposureFrozen')).toMatchObject([{ triggeredBy: 'judge' }]);
  });

  test('a hold that evidence clears: thawed and gone on without a person; what else holds by then is told', async () => {
    const release = await releases.start('hold-cleared', { asked: { watchStage: ({ stage }) => stage === 0 } });
    (await release.asked('watchStage')).answer(heldByJudge());
    const waiting = await release.asked('watchStage');
    expect(waiting.input).toMatchObject({ heldFor: { reason: 'hold', cells: cleared } });
    waiting.answer(heldByJudge([...cleared, 'load-failure/*']));
    const both = await release.asked('watchStage');
    expect(both.input).toMatchObject({ heldFor: { cells: [...cleared, 'load-failure/*'] }, clearedCells: [] });
    both.answer({ outcome: 'released', evidence: evidence(0) });
    const again = await release.asked('watchStage');
    expect(again.input).toMatchObject({ heldFor: null, clearedCells: [] });
    again.answer(passed(0));
    const end = await release.end();
    const stop = ['StageEvidenceRecorded', 'StageHeld', 'ExposureFrozen'] as const;
    expect(end.types).toEqual([
      ...planned,
      ...['StageOpened' as const, ...stop, ...stop, 'StageEvidenceRecorded' as const, 'RolloutResumed' as const],
      ...[...watched, ...stage, ...completed],
    ]);
    expect(dataOf(end, 'RolloutResumed')).toMatchObject([{ triggeredBy: 'judge', reasonCode: 'hold-cleared' }]);
    expectAfter(release, 'thawExposure', 'RolloutResumed');
  });

  test('a pause during a hold is answered, and its resume leaves the hold as it was', async () => {
    const release = await releases.start('pause-held', { asked: { watchStage: ({ stage }) => stage === 0 } });
    const first = await release.asked('watchStage');
    first.answer(heldByJudge());
    await release.asked('watchStage');
    expect(await release.command('pause')).toMatchObject({ phase: 'paused' });
    expect(await release.command('resume')).toMatchObject({ phase: 'held' });
    const held = await release.asked('watchStage');
    expect(held.input).toMatchObject({ heldFor: { reason: 'hold', cells: cleared }, clearedCells: [] });
    expect(release.happened).not.toContain('thawExposure');
    await release.command('resume');
    const again = await release.asked('watchStage');
    expect(again.input).toMatchObject({ heldFor: null, clearedCells: cleared });
    again.answer(passed(0));
    const end = await release.end();
    expect(end.types).toEqual([
      ...planned,
      ...(['StageOpened', 'StageEvidenceRecorded', 'StageHeld', 'ExposureFrozen'] as const),
      ...(['RolloutPaused', 'ExposureFrozen', 'RolloutResumed', 'ExposureFrozen', 'RolloutResumed'] as const),
      ...[...watched, ...stage, ...completed],
    ]);
  });

  test('a pause while exposure is thawed: frozen again after the thaw', async () => {
    const release = await releases.start('pause-thawing', {
      asked: { watchStage: ({ stage }) => stage === 0, thawExposure: always },
    });
    await release.asked('watchStage');
    await release.command('pause');
    await release.command('resume');
    const thawing = await release.asked('thawExposure');
    await release.command('pause');
    // What follows the freeze at once is asked for together with its record.
    await release.until('ExposureFrozen', 2);
    const { events } = await release.handle.fetchHistory();
    const scheduled = (events ?? []).map((event) => event.activityTaskScheduledEventAttributes?.activityType?.name);
    expect(scheduled.filter((name) => name === 'freezeExposure')).toHaveLength(2);
    // The thaw may take effect after the freeze that answered the pause.
    await thawing.proceed();
    await release.until('freezeExposure', 3);
    await release.command('resume');
    const again = await release.asked('thawExposure');
    expect(again.input.stopId).not.toBe(thawing.input.stopId);
    await again.proceed();
    (await release.asked('watchStage')).answer(passed(0));
    const end = await release.end();
    expect(end.phase).toBe('completed');
    expect(release.happened.lastIndexOf('freezeExposure')).toBeLessThan(release.happened.lastIndexOf('thawExposure'));
  });

  test.each([
    ['frozen', 'the family is frozen by sam', 'thawed'],
    ['stale', 'the last window is 9000 ms old', 'evidence-fresh'],
  ] as const)(
    'a resume that is refused (%s) is held for everybody to see, and thawed when that is over',
    async (kind, why, reasonCode) => {
      let refused = true;
      const release = await releases.start(`resume-${kind}`, {
        asked: { watchStage: ({ stage }) => stage === 0 },
        answers: {
          thawExposure: async () => ({ directorVersion: 1, ...(refused ? { refused: { kind, why } } : {}) }),
        },
      });
      await release.asked('watchStage');
      await release.command('pause');
      await release.command('resume');
      const reason = kind === 'stale' ? 'no-data' : kind;
      const waiting = await release.asked('watchStage');
      expect(waiting.input.heldFor).toEqual({ reason, cells: [] });
      expect(await release.state()).toMatchObject({ phase: 'held', hold: { reasonCode: reason, reason: why } });
      expect(release.happened.filter((what) => what === 'thawExposure')).toHaveLength(1);
      expect(release.happened.filter((what) => what === 'openStage')).toHaveLength(1);
      refused = false;
      waiting.answer({ outcome: 'released', evidence: evidence(0) });
      const again = await release.asked('watchStage');
      expect(again.input.heldFor).toBeNull();
      expect(release.happened.filter((what) => what === 'thawExposure')).toHaveLength(2);
      again.answer(passed(0));
      const end = await release.end();
      expect(end.phase).toBe('completed');
      expect(dataOf(end, 'RolloutResumed')).toMatchObject([{ triggeredBy: 'person' }, { reasonCode }]);
    },
  );

  test.each(['openStage', 'thawExposure'] as const)(
    'what %s was refused for a verdict is asked for again, also when the verdict is gone by the first look',
    async (name) => {
      let attempts = 0;
      const grant = async () => {
        attempts += 1;
        const refused = { kind: 'verdict', why: 'the judge holds the release' } as const;
        return { directorVersion: attempts, ...(attempts === 1 ? { refused } : {}) };
      };
      const release = await releases.start(`refused-${name.toLowerCase()}`, {
        asked: { watchStage: ({ stage }) => stage === 0 },
        answers: { [name]: grant },
      });
      if (name === 'thawExposure') {
        await release.asked('watchStage');
        await release.command('pause');
        await release.command('resume');
      }
      const looking = await release.asked('watchStage');
      expect(looking.input.heldFor).toEqual({ reason: 'hold', cells: [] });
      expect(attempts).toBe(1);
      looking.answer({ outcome: 'released', evidence: evidence(0) });
      const granted = await release.asked('watchStage');
      expect(granted.input.heldFor).toBeNull();
      expect(release.happened.filter((what) => what === name).length).toBeGreaterThan(1);
      granted.answer(passed(0));
      const end = await release.end();
      expect(end.phase).toBe('completed');
      expect(end.types).not.toContain('StageHeld');
    },
  );

  test('want of data: held under the lease without a freeze, and goes on by itself when there is evidence', async () => {
    const release = await releases.start('no-data', { asked: { watchStage: ({ stage }) => stage === 0 } });
    (await release.asked('watchStage')).answer({
      ...{ outcome: 'held', reason: 'no-data', verdict: null, cells: [], evidence: evidence(0) },
    });
    const waiting = await release.asked('watchStage');
    expect(waiting.input).toMatchObject({ heldFor: { reason: 'no-data', cells: [] }, clearedCells: [] });
    expect(await release.state()).toMatchObject({ phase: 'held', hold: { reasonCode: 'no-data' } });
    waiting.answer({ outcome: 'released', evidence: evidence(0) });
    const again = await release.asked('watchStage');
    expect(again.input).toMatchObject({ heldFor: null, clearedCells: [] });
    again.answer(passed(0));
    const end = await release.end();
    expect(end.types).toEqual([
      ...planned,
      ...(['StageOpened', 'StageEvidenceRecorded', 'LeaseLapsed', 'StageHeld'] as const),
      ...(['StageEvidenceRecorded', 'RolloutResumed'] as const),
      ...[...watched, ...stage, ...completed],
    ]);
    expect(dataOf(end, 'RolloutResumed')).toMatchObject([{ triggeredBy: 'workflow', reasonCode: 'evidence-fresh' }]);
    expect(release.happened).not.toContain('freezeExposure');
  });
});

describe.concurrent('promote', () => {
  test('the watch is told, and the stage passes with the person’s reason', async () => {
    const release = await releases.start('promoted', { asked: { watchStage: always } });
    const first = await release.asked('watchStage');
    expect(first.input.promote).toBe(false);
    await release.command('promote', 'otto', 'urgent');
    const second = await release.asked('watchStage');
    expect(second.input).toMatchObject({ stage: 0, promote: true });
    second.answer(passed(0));
    const third = await release.asked('watchStage');
    // A promotion is for one stage.
    expect(third.input).toMatchObject({ stage: 1, promote: false });
    third.answer(passed(1));
    // After the field the evidence is looked at once more.
    (await release.asked('watchStage')).answer(passed(1));
    const end = await release.end();
    expect(end.types).toEqual([...planned, ...stage, ...stage, ...completed]);
    expect(dataOf(end, 'StagePassed')).toMatchObject([
      { triggeredBy: 'person', by: 'otto', reasonCode: 'person-promote', reason: 'urgent' },
      { triggeredBy: 'workflow', reasonCode: 'stage-rule' },
    ]);
  });
});
