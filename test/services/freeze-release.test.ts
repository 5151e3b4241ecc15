/** What a release does while its family is frozen, and when it is ended or told from outside: the real workflow, scripted activities. */
import { expect, test } from 'vitest';
import type { StageOutcome } from '../../domain/release.ts';
import { evidence, passed, scriptedReleasesOf } from '../support/scripted.ts';
import { sampleVerdict } from '../support/streams.ts';

const releases = scriptedReleasesOf('freeze-release');

const why = 'the family is frozen by sam since today: complaints';
const refused = { kind: 'frozen', why } as const;
const heldFrozen = (stage: number): StageOutcome => ({
  ...{ outcome: 'held', reason: 'frozen', verdict: null, cells: [] },
  evidence: { ...evidence(stage), waitingFor: [{ code: 'frozen', message: why }] },
});
const times = (list: readonly string[], what: string) => list.filter((one) => one === what).length;

test('a stage that a freeze keeps from being opened is held, and opened when the freeze is lifted', async () => {
  let frozen = true;
  const release = await releases.start('frozen-opening', {
    asked: { watchStage: ({ heldFor }) => heldFor?.reason === 'frozen' },
    answers: { openStage: async () => (frozen ? { directorVersion: 1, refused } : { directorVersion: 2 }) },
  });
  const watch = await release.asked('watchStage');
  expect(await release.inPhase('held')).toMatchObject({ hold: { reasonCode: 'frozen', reason: why } });
  expect(times(release.happened, 'openStage')).toBe(1);
  frozen = false;
  watch.answer({ outcome: 'released', evidence: evidence(0) });
  const end = await release.end();
  expect(end.phase).toBe('completed');
  expect(end.types.filter((type) => ['StageHeld', 'RolloutResumed', 'StagePassed'].includes(type))).toEqual([
    ...['StageHeld', 'RolloutResumed', 'StagePassed', 'StagePassed'],
  ]);
  expect(end.stream.events.find(({ type }) => type === 'RolloutResumed')?.data).toMatchObject({ reasonCode: 'thawed' });
  expect(times(release.happened, 'openStage')).toBe(3);
});

test('a person who resumes under a freeze gets nothing granted by it', async () => {
  const release = await releases.start('frozen-resumed', {
    asked: { watchStage: ({ heldFor }) => heldFor?.reason === 'frozen' },
    answers: { openStage: async () => ({ directorVersion: 1, refused }) },
  });
  await release.asked('watchStage');
  await release.command('resume');
  await release.asked('watchStage');
  expect((await release.state()).phase).toBe('held');
  expect(times(release.happened, 'openStage')).toBe(2);
  expect(release.happened).not.toContain('thawExposure');
  await release.command('halt');
  expect((await release.end()).phase).toBe('halted');
});

test('frozen while it is watched: held, and a halt is heard and done under it', async () => {
  const release = await releases.start('frozen-halted', {
    asked: { watchStage: ({ heldFor }) => heldFor?.reason === 'frozen' },
    answers: { watchStage: async ({ stage }) => heldFrozen(stage) },
  });
  const watch = await release.asked('watchStage');
  expect((await release.inPhase('held')).hold?.reason).toBe(why);
  watch.answer({ outcome: 'regression', verdict: sampleVerdict, evidence: evidence(0) });
  const end = await release.end();
  expect(end.phase).toBe('halted');
  expect(end.types).toEqual(expect.arrayContaining(['StageHeld', 'RegressionDetected', 'ExposureFrozen']));
});

test.each([
  ['completed', passed(1)],
  ['halted', { outcome: 'regression', verdict: sampleVerdict, evidence: evidence(1) }],
] as const)('frozen just before everybody gets it: watched again, then %s', async (phase, outcome) => {
  let completions = 0;
  let watches = 0;
  const release = await releases.start(`frozen-end-${phase}`, {
    answers: {
      watchStage: async ({ stage }) => {
        if (stage === 0) return passed(0);
        watches += 1;
        return completions === 0 ? passed(1) : outcome;
      },
      completeRollout: async () => {
        completions += 1;
        return { directorVersion: 9, counts: {}, ...(completions === 1 ? { refused } : {}) };
      },
    },
  });
  const end = await release.end();
  expect(end.phase).toBe(phase);
  expect(completions).toBe(phase === 'completed' ? 2 : 1);
  expect(watches).toBeGreaterThan(1);
  expect(times(end.types, 'StagePassed')).toBe(2);
});

test('a release that is terminated in Temporal never passes, whatever its watch says afterwards', async () => {
  const release = await releases.start('terminated', { asked: { watchStage: () => true } });
  const watch = await release.asked('watchStage');
  await release.handle.terminate('somebody pulled the plug');
  watch.answer(passed(0));
  // Another one runs through on the same worker: what would have come of it has come.
  expect((await (await releases.start('after-terminated')).end()).phase).toBe('completed');
  expect((await release.handle.describe()).status.name).toBe('TERMINATED');
  for (const what of ['StagePassed', 'completeRollout', 'ReleaseCompleted'] as const) {
    expect(release.happened).not.toContain(what);
  }
  expect(times(release.happened, 'openStage')).toBe(1);
});

test('Flagger: the threshold is ignored while a person is waited for (#1801)', async () => {
  const release = await releases.start('paused-regression', { asked: { watchStage: () => true } });
  await release.asked('watchStage');
  await release.command('pause');
  await release.inPhase('paused');
  await release.regression();
  const end = await release.end();
  expect(end).toMatchObject({ phase: 'halted' });
  expect(end.types).toEqual(expect.arrayContaining(['RolloutPaused', 'RegressionDetected', 'RollbackPublished']));
});
