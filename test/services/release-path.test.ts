/** Paths of a release that goes on, on the real Temporal server, with scripted activities: which events, in which order, which end. */
import { describe, expect, test } from 'vitest';
import {
  always,
  completed,
  dataOf,
  expectAfter,
  planned,
  refusal,
  rolledBack,
  signed,
  stage,
} from '../support/release-paths.ts';
import { evidence, passed, scriptedReleasesOf, tested } from '../support/scripted.ts';
import { sampleVerdict } from '../support/streams.ts';

const releases = scriptedReleasesOf('release-path');

describe.concurrent('a release that goes well', () => {
  test('each stage is a run of its own, and numbers have no gap over runs', async () => {
    const release = await releases.start('completes');
    const end = await release.end();
    expect(end).toMatchObject({ phase: 'completed', reasonCode: 'completed' });
    expect(end.types).toEqual([...planned, ...stage, ...stage, ...completed]);
    const runOf = new Map(end.stream.events.map((event) => [event.workflow.runId, event.seq]));
    expect(runOf.size).toBe(2);
    expect(end.stream.events.map((event) => event.seq)).toEqual(end.types.map((_, index) => index + 1));
    expect(end.stream.duplicates).toBe(0);
    expectAfter(release, 'openStage', 'StageOpened');
    expectAfter(release, 'completeRollout', 'StagePassed');
    expect(release.happened).toContain('closeTelemetry');
    expect(release.happened).not.toContain('freezeExposure');
  });

  test('a stage is opened only when its event is in the log, however long that takes', async () => {
    const release = await releases.start('waits-for-the-log', {
      asked: { recordEvents: ({ events }) => events.some(({ type }) => type === 'StageOpened') },
    });
    for (const opened of [0, 1]) {
      const recording = await release.asked('recordEvents');
      expect(await release.state()).toMatchObject({ phase: 'rolling', rollout: { stage: opened } });
      await recording.proceed();
      await release.until('openStage', opened + 1);
    }
    expect((await release.end()).phase).toBe('completed');
    expectAfter(release, 'openStage', 'StageOpened');
  });
});

test('what is used for the first time is watched longer, and the judge is told so with the stage', async () => {
  const release = await releases.start('first-use', {
    asked: { openStage: always, watchStage: always },
    answers: { runMatrixCell: async ({ cell }) => ({ ...tested(cell), firstUse: ['a keyword'] }) },
  });
  const opening = await release.asked('openStage');
  await opening.proceed();
  const watch = await release.asked('watchStage');
  expect(opening.input.policy).toEqual(watch.input.policy);
  expect(opening.input.policy.stages[0]?.minMs).toBe(4);
  await release.command('halt');
  await release.end();
});

describe.concurrent('approvals', () => {
  test('two are needed, from two people who did not ask for the release', async () => {
    const release = await releases.start('approved', { policy: { approvals: 2 } });
    const { seq } = await release.inPhase('approval');
    await expect(release.command('approve', 'rita')).rejects.toMatchObject(refusal('SRP_RULE_FOUR_EYES'));
    expect(await release.command('approve', 'otto')).toEqual({ phase: 'approval', seq: seq + 1 });
    await expect(release.command('approve', 'otto')).rejects.toMatchObject(refusal('SRP_RULE_FOUR_EYES'));
    await expect(release.command('halt')).rejects.toMatchObject(refusal('SRP_RULE_PHASE'));
    // A refused update leaves no event.
    expect((await release.state()).seq).toBe(seq + 1);
    expect(release.happened).not.toContain('planRollout');
    await release.command('approve', 'nina');
    const end = await release.end();
    expect(end.types).toEqual([
      ...signed,
      ...(['ApprovalRequested', 'ApprovalGranted', 'ApprovalGranted', 'RolloutPlanned'] as const),
      ...[...stage, ...stage, ...completed],
    ]);
    expect(dataOf(end, 'ApprovalGranted')).toMatchObject([{ by: 'otto' }, { by: 'nina', granted: 2, needed: 2 }]);
  });

  test('a third one comes too late to count', async () => {
    const release = await releases.start('approved-enough', {
      policy: { approvals: 1 },
      asked: { planRollout: always },
    });
    await release.inPhase('approval');
    await release.command('approve', 'otto');
    const planning = await release.asked('planRollout');
    await expect(release.command('approve', 'nina')).rejects.toMatchObject(refusal('SRP_RULE_PHASE'));
    await planning.proceed();
    const end = await release.end();
    expect(end.types).toEqual([
      ...signed,
      ...(['ApprovalRequested', 'ApprovalGranted', 'RolloutPlanned'] as const),
      ...[...stage, ...stage, ...completed],
    ]);
  });
});

describe.concurrent('between two stages, and before the end', () => {
  const recordsPass =
    (index: number) =>
    ({ events }: { events: readonly { type: string; data: object }[] }) =>
      events.some(({ type, data }) => type === 'StagePassed' && 'stage' in data && data.stage === index);

  test('what is asked while the next run is about to begin is neither lost nor stuck', async () => {
    const release = await releases.start('between-pause', { asked: { recordEvents: recordsPass(0) } });
    const recording = await release.asked('recordEvents');
    expect(await release.command('pause')).toMatchObject({ phase: 'paused' });
    expect(release.happened).toContain('freezeExposure');
    await recording.proceed();
    await release.command('resume');
    const end = await release.end();
    expect(end.types).toEqual([
      ...[...planned, ...stage, 'RolloutPaused', 'ExposureFrozen', 'RolloutResumed'],
      ...[...stage, ...completed],
    ]);
    expect(end.stream.duplicates).toBe(0);
  });

  test('a regression that is signalled there is recorded and halts', async () => {
    const release = await releases.start('between-regression', { asked: { recordEvents: recordsPass(0) } });
    const recording = await release.asked('recordEvents');
    await release.regression();
    await recording.proceed();
    const end = await release.end();
    expect(end).toMatchObject({ phase: 'halted', reasonCode: 'regression-blocked-traffic' });
    expect(end.types).toEqual([...planned, ...stage, 'RegressionDetected', ...rolledBack]);
  });

  test('a stage that has passed cannot be promoted', async () => {
    const release = await releases.start('between-promote', { asked: { recordEvents: recordsPass(0) } });
    const recording = await release.asked('recordEvents');
    await expect(release.command('promote')).rejects.toMatchObject(refusal('SRP_RULE_PHASE'));
    await recording.proceed();
    expect((await release.end()).types).toEqual([...planned, ...stage, ...stage, ...completed]);
  });

  test.each(['pause', 'halt'] as const)('%s after the last stage, while the log takes nothing', async (kind) => {
    const release = await releases.start(`last-${kind}`, { asked: { recordEvents: recordsPass(1) } });
    const recording = await release.asked('recordEvents');
    await release.command(kind);
    expect(release.happened).toContain('freezeExposure');
    expect(release.happened).not.toContain('completeRollout');
    await recording.proceed();
    if (kind === 'pause') await release.command('resume');
    const end = await release.end();
    const rest = [...(['RolloutPaused', 'ExposureFrozen', 'RolloutResumed'] as const), ...completed];
    expect(end.types).toEqual([
      ...[...planned, ...stage, ...stage],
      ...(kind === 'pause' ? rest : ['HaltRequested', ...rolledBack]),
    ]);
  });

  test('while the content becomes the steady one, there is nothing left to stop', async () => {
    const release = await releases.start('completing', { asked: { completeRollout: always } });
    const completing = await release.asked('completeRollout');
    await expect(release.command('pause')).rejects.toMatchObject(refusal('SRP_RULE_PHASE'));
    await expect(release.command('halt')).rejects.toMatchObject(refusal('SRP_RULE_PHASE'));
    await release.regression();
    await release.handle.cancel();
    await completing.proceed();
    const end = await release.end();
    expect(end.types).toEqual([...planned, ...stage, ...stage, ...completed]);
  });
});

describe.concurrent('what came after the last look, as the content becomes the steady one', () => {
  test('a HALT is found by the watch that follows the refusal', async () => {
    let refused = false;
    const release = await releases.start('completing-halt', {
      asked: { completeRollout: always },
      answers: {
        watchStage: async ({ stage }) =>
          refused ? { outcome: 'regression', verdict: sampleVerdict, evidence: evidence(stage) } : passed(stage),
      },
    });
    const completing = await release.asked('completeRollout');
    // It comes too late to be taken from the signal, and must not be lost for that.
    await release.regression();
    refused = true;
    completing.answer({ directorVersion: 5, counts: {}, refused: { kind: 'verdict', why: 'the judge halted it' } });
    const end = await release.end();
    expect(end).toMatchObject({ phase: 'halted', reasonCode: 'regression-blocked-traffic' });
    expect(end.types).not.toContain('RolloutCompleted');
  });

  test('want of evidence holds the stage, where a person can still halt it', async () => {
    const release = await releases.start('completing-stale', {
      asked: { completeRollout: always, watchStage: ({ heldFor }) => heldFor !== null },
    });
    const completing = await release.asked('completeRollout');
    completing.answer({ directorVersion: 5, counts: {}, refused: { kind: 'stale', why: 'no window' } });
    const waiting = await release.asked('watchStage');
    expect(waiting.input.heldFor).toEqual({ reason: 'no-data', cells: [] });
    expect((await release.inPhase('held')).hold).toMatchObject({ reasonCode: 'no-data', reason: 'no window' });
    await release.command('halt');
    expect((await release.end()).phase).toBe('halted');
  });
});
