/** A release that is ended: by a person, by the judge, or by what fails; on the real Temporal server, with scripted activities. */
import { describe, expect, test } from 'vitest';
import {
  always,
  built,
  completed,
  dataOf,
  expectAfter,
  heldByJudge,
  planned,
  rolledBack,
  signed,
  stage,
} from '../support/release-paths.ts';
import { evidence, final, type ScriptedRelease, scriptedReleasesOf } from '../support/scripted.ts';
import { sampleVerdict } from '../support/streams.ts';

const releases = scriptedReleasesOf('release-ends');

const position = ({ happened }: ScriptedRelease, what: ScriptedRelease['happened'][number]) => {
  expect(happened).toContain(what);
  return happened.indexOf(what);
};

describe.concurrent('cancel', () => {
  test('while it is built', async () => {
    const release = await releases.start('cancel-build', { asked: { buildRelease: always } });
    const building = await release.asked('buildRelease');
    expect(await release.command('cancel', 'sam', 'wrong ticket')).toEqual({ phase: 'cancelled', seq: 3 });
    await building.proceed();
    const end = await release.end();
    expect(end).toMatchObject({ phase: 'cancelled', reasonCode: 'person-cancel', reason: 'wrong ticket' });
    expect(end.types).toEqual(['ReleaseTriggered', 'BuildStarted', 'ReleaseCancelled']);
    await expect(release.command('cancel')).rejects.toThrow();
  });

  test('while the matrix runs', async () => {
    const release = await releases.start('cancel-matrix', { asked: { runMatrixCell: always } });
    await release.asked('runMatrixCell');
    await release.until('MatrixPlanned');
    await release.command('cancel');
    const end = await release.end();
    expect(end).toMatchObject({ phase: 'cancelled', reasonCode: 'person-cancel' });
    expect(end.types).toEqual([...built, 'MatrixPlanned', 'ReleaseCancelled']);
    expect(release.happened).not.toContain('signRelease');
  });

  test('while it waits for an approval', async () => {
    const release = await releases.start('cancel-approval', { policy: { approvals: 1 } });
    await release.inPhase('approval');
    await release.command('cancel');
    const end = await release.end();
    expect(end).toMatchObject({ phase: 'cancelled', reasonCode: 'person-cancel' });
    expect(end.types).toEqual([...signed, 'ApprovalRequested', 'ReleaseCancelled']);
    expect(release.happened).not.toContain('planRollout');
  });
});

describe.concurrent('regression', () => {
  const regression = [...planned, 'StageOpened', 'RegressionDetected', ...rolledBack];
  const judged = { phase: 'halted', reasonCode: 'regression-blocked-traffic' };

  test('found by the watch', async () => {
    const release = await releases.start('regression-watch', {
      answers: {
        watchStage: async () => ({ outcome: 'regression', verdict: sampleVerdict, evidence: evidence(0) }),
      },
    });
    const end = await release.end();
    expect(end).toMatchObject(judged);
    expect(end.types).toEqual([
      ...[...planned, 'StageOpened', 'StageEvidenceRecorded', 'RegressionDetected'],
      ...rolledBack,
    ]);
    expect(position(release, 'freezeExposure')).toBeLessThan(position(release, 'publishRollback'));
    expect(position(release, 'publishRollback')).toBeLessThan(position(release, 'verifyHalt'));
    expect(release.happened).toContain('closeTelemetry');
  });

  test('signalled while it is watched, and again: halted once', async () => {
    const release = await releases.start('regression-signal', {
      asked: { watchStage: always, freezeExposure: always },
    });
    await release.asked('watchStage');
    await release.regression();
    await release.regression({ ...sampleVerdict, metric: 'crash' });
    const freezing = await release.asked('freezeExposure');
    await release.regression({ ...sampleVerdict, metric: 'crash' });
    await freezing.proceed();
    const end = await release.end();
    expect(end).toMatchObject(judged);
    expect(end.types).toEqual(regression);
    expect(dataOf(end, 'ReleaseHalted')).toMatchObject([{ triggeredBy: 'judge', by: 'judge' }]);
    await expect(release.regression()).rejects.toThrow(/already completed/);
  });

  test('signalled while the stage is opened', async () => {
    const release = await releases.start('regression-opening', { asked: { openStage: always } });
    await release.asked('openStage');
    await release.regression();
    const end = await release.end();
    expect(end).toMatchObject(judged);
    expect(end.types).toEqual(regression);
    expect(release.happened).not.toContain('watchStage');
  });

  test('signalled before any stage is open: nobody was offered anything, so nothing halts', async () => {
    const release = await releases.start('regression-early', {
      asked: { buildRelease: always, planRollout: always },
    });
    const building = await release.asked('buildRelease');
    await release.regression();
    await building.proceed();
    const planning = await release.asked('planRollout');
    await release.regression();
    await planning.proceed();
    const end = await release.end();
    expect(end.types).toEqual([...planned, ...stage, ...stage, ...completed]);
  });

  test('exposure goes down although the log takes nothing', async () => {
    const release = await releases.start('regression-no-log', {
      asked: { watchStage: always, recordEvents: ({ events }) => events[0]?.type === 'RegressionDetected' },
    });
    await release.asked('watchStage');
    await release.regression();
    const recording = await release.asked('recordEvents');
    await release.until('verifyHalt');
    expect(position(release, 'freezeExposure')).toBeLessThan(position(release, 'publishRollback'));
    expect(release.happened).not.toContain('RegressionDetected');
    await recording.proceed();
    const end = await release.end();
    expect(end).toMatchObject(judged);
    expect(end.types).toEqual(regression);
  });
});

describe.concurrent('halt by a person', () => {
  const asked = { phase: 'halted', reasonCode: 'person-halt', reason: 'customers call' };

  test('while it is watched: answered when exposure is frozen', async () => {
    const release = await releases.start('halt-watching', { asked: { watchStage: always } });
    await release.asked('watchStage');
    await release.command('halt', 'sam', 'customers call');
    expect(release.happened).toContain('freezeExposure');
    const end = await release.end();
    expect(end).toMatchObject(asked);
    expect(end.types).toEqual([...planned, 'StageOpened', 'HaltRequested', ...rolledBack]);
    expect(dataOf(end, 'ReleaseHalted')).toMatchObject([{ triggeredBy: 'person', by: 'sam' }]);
  });

  test('while it is paused', async () => {
    const release = await releases.start('halt-paused', { asked: { watchStage: always } });
    await release.asked('watchStage');
    await release.command('pause');
    await release.command('halt', 'sam', 'customers call');
    const end = await release.end();
    expect(end).toMatchObject(asked);
    expect(end.types).toEqual([
      ...[...planned, 'StageOpened', 'RolloutPaused', 'ExposureFrozen', 'HaltRequested'],
      ...rolledBack,
    ]);
    expect(release.happened).not.toContain('thawExposure');
  });

  test('while it is held', async () => {
    const release = await releases.start('halt-held', { asked: { watchStage: always } });
    const watch = await release.asked('watchStage');
    watch.answer(heldByJudge());
    await release.until('ExposureFrozen');
    await release.command('halt', 'sam', 'customers call');
    const end = await release.end();
    expect(end).toMatchObject(asked);
    expect(end.types).toEqual([
      ...[...planned, 'StageOpened', 'StageEvidenceRecorded', 'StageHeld', 'ExposureFrozen', 'HaltRequested'],
      ...rolledBack,
    ]);
  });
});

describe.concurrent('what fails', () => {
  const abandoned = [...planned, 'StageOpened', 'HaltRequested', ...rolledBack];

  test('a stage that cannot be opened is halted and rolled back: its event says that it was', async () => {
    const release = await releases.start('open-fails', {
      answers: { openStage: () => Promise.reject(final('the store refuses')) },
    });
    const end = await release.end();
    expect(end).toMatchObject({ phase: 'halted', reasonCode: 'pipeline-failed', reason: 'the store refuses' });
    expect(end.types).toEqual(abandoned);
    expect(dataOf(end, 'ReleaseHalted')).toMatchObject([{ triggeredBy: 'workflow', by: 'release' }]);
  });

  test('cancelled in Temporal before exposure: cancelled', async () => {
    const release = await releases.start('temporal-cancel-early', { policy: { approvals: 1 } });
    await release.inPhase('approval');
    await release.handle.cancel();
    const end = await release.end();
    expect(end).toMatchObject({ phase: 'cancelled', reasonCode: 'workflow-cancelled' });
    expect(end.types).toEqual([...signed, 'ApprovalRequested', 'ReleaseCancelled']);
    expect(release.happened).not.toContain('freezeExposure');
  });

  test.each(['watching', 'paused'] as const)('cancelled in Temporal while %s: halted and rolled back', async (when) => {
    const release = await releases.start(`temporal-cancel-${when}`, { asked: { watchStage: always } });
    await release.asked('watchStage');
    if (when === 'paused') await release.command('pause');
    await release.handle.cancel();
    const end = await release.end();
    expect(end).toMatchObject({ phase: 'halted', reasonCode: 'workflow-cancelled' });
    const paused = when === 'paused' ? (['RolloutPaused', 'ExposureFrozen'] as const) : [];
    expect(end.types).toEqual([...planned, 'StageOpened', ...paused, 'HaltRequested', ...rolledBack]);
  });

  test('cancelled in Temporal while it is rolled back: the rollback goes on', async () => {
    const release = await releases.start('temporal-cancel-halting', {
      asked: { watchStage: always, publishRollback: always },
    });
    await release.asked('watchStage');
    await release.command('halt');
    const rollingBack = await release.asked('publishRollback');
    await release.handle.cancel();
    await rollingBack.proceed();
    const end = await release.end();
    expect(end).toMatchObject({ phase: 'halted', reasonCode: 'person-halt' });
    expect(end.types).toEqual(abandoned);
  });

  test('a rollback that is refused for good is asked for again until it is published', async () => {
    const release = await releases.start('rollback-fails', {
      asked: { watchStage: always, publishRollback: always },
    });
    await release.asked('watchStage');
    await release.command('halt');
    (await release.asked('publishRollback')).fail(final('the keys are gone'));
    await (await release.asked('publishRollback')).proceed();
    const end = await release.end();
    expect(end).toMatchObject({ phase: 'halted', reasonCode: 'person-halt' });
    expect(end.types).toEqual(abandoned);
  });

  test('a log that fails five times, sometimes after it had written: nothing is lost or doubled', async () => {
    const release = await releases.start('log-fails', {
      asked: { recordEvents: ({ events }) => events.some(({ type }) => type === 'StageOpened') },
    });
    for (const attempt of [1, 2, 3, 4, 5]) {
      const call = await release.asked('recordEvents');
      // It wrote, and its answer is lost.
      if (attempt % 2 === 0) await call.proceedUnheard();
      call.fail(new Error('the broker is away'));
    }
    for (const _stage of [0, 1]) await (await release.asked('recordEvents')).proceed();
    const end = await release.end();
    expect(end.types).toEqual([...planned, ...stage, ...stage, ...completed]);
    expect(end.stream.duplicates).toBeGreaterThan(0);
    expectAfter(release, 'openStage', 'StageOpened');
  });

  test('text that was cut in the middle of a character is recorded all the same', async () => {
    const release = await releases.start('half-a-character', { asked: { watchStage: always } });
    await release.asked('watchStage');
    await release.command('halt', 'sam', 'customers call \ud83d');
    const end = await release.end();
    expect(end).toMatchObject({ phase: 'halted', reason: 'customers call \ufffd' });
    expect(end.types).toEqual(abandoned);
  });

  test('a log that refuses for good does not stop the halt, and gets the events when it takes them', async () => {
    const release = await releases.start('log-refuses', {
      asked: { watchStage: always, recordEvents: ({ events }) => events[0]?.type === 'HaltRequested' },
    });
    await release.asked('watchStage');
    const halting = release.command('halt');
    (await release.asked('recordEvents')).fail(final('this cannot be written'));
    await halting;
    await release.until('verifyHalt');
    await (await release.asked('recordEvents')).proceed();
    expect((await release.end()).types).toEqual(abandoned);
  });
});
