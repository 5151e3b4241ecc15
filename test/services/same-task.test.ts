/** What comes to a release at the same moment, on the real Temporal server, with scripted activities: who is heard first. */
import { expect, test } from 'vitest';
import type { StageOutcome } from '../../domain/release.ts';
import type { Answer, PersonRequest } from '../../workflows/messages.ts';
import { patient } from '../support/patience.ts';
import { type Call, evidence, holdVerdict, type ScriptedRelease, scriptedReleasesOf } from '../support/scripted.ts';
import { sampleVerdict } from '../support/streams.ts';

const releases = scriptedReleasesOf('same-task');

const held = (reason: 'hold' | 'no-data'): StageOutcome => ({
  ...{ outcome: 'held', reason, evidence: evidence(0) },
  ...{ verdict: reason === 'hold' ? holdVerdict : null, cells: reason === 'hold' ? [holdVerdict.cell] : [] },
});

/** The watch ends, and the server knows. */
const endWatch = async ({ handle }: ScriptedRelease, watch: Call<'watchStage'>, outcome: StageOutcome) => {
  const completions = async () =>
    (await handle.fetchHistory()).events?.filter((event) => event.activityTaskCompletedEventAttributes).length ?? 0;
  const before = await completions();
  watch.answer(outcome);
  await expect.poll(completions, patient).toBeGreaterThan(before);
};

/** Asks for a pause, and waits until the server has it for the workflow's next task. */
const askForPause = async ({ handle }: ScriptedRelease) => {
  const { client, workflowId } = handle;
  const updateId = 'pause';
  const request = { by: 'sre', reason: 'because' };
  const answered = handle.executeUpdate<Answer, [PersonRequest]>('pause', { updateId, args: [request] });
  const about = { namespace: client.options.namespace, updateRef: { workflowExecution: { workflowId }, updateId } };
  const isKnown = () =>
    client.workflowService.pollWorkflowExecutionUpdate(about).then(
      () => true,
      () => false,
    );
  await expect.poll(isKnown, patient).toBe(true);
  return { answered };
};

const watching = async (id: string) => {
  const release = await releases.start(id, { asked: { watchStage: ({ stage }) => stage === 0 } });
  return { release, watch: await release.asked('watchStage') };
};

test.each([
  ['no-data', 'after'],
  ['no-data', 'before'],
  ['hold', 'after'],
] as const)('a pause stands when a watch finds %s just %s it', async (reason, order) => {
  const { release, watch } = await watching(`pause-${order}-${reason}`);
  let pausing = Promise.resolve<Answer | null>(null);
  await releases.whileNobodyDecides(async () => {
    if (order === 'before') await endWatch(release, watch, held(reason));
    pausing = (await askForPause(release)).answered;
    if (order === 'after') await endWatch(release, watch, held(reason));
  });
  expect((await pausing)?.phase).toBe('paused');
  expect((await release.state()).phase).toBe('paused');
  expect(release.happened).toContain('freezeExposure');
  // What the watch found it finds again once somebody resumes.
  await release.command('resume', 'sre');
  (await release.asked('watchStage')).answer(held(reason));
  await release.inPhase('held');
  await release.command('halt', 'sre');
  const { types } = await release.end();
  expect(types.indexOf('StageHeld')).toBeGreaterThan(types.indexOf('RolloutResumed'));
});

test('a verdict of the judge stands when a watch finds no data just before it', async () => {
  const { release, watch } = await watching('halt-after-no-data');
  await releases.whileNobodyDecides(async () => {
    await endWatch(release, watch, held('no-data'));
    await release.regression(sampleVerdict);
  });
  const end = await release.end();
  expect(end.phase).toBe('halted');
  expect(end.types).not.toContain('StageHeld');
});
