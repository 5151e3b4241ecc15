/** A stage that is not granted for want of fresh evidence: people see what it waits for. The real workflow, scripted activities. */
import { expect, test } from 'vitest';
import { renderRelease } from '../../apps/cli/view.ts';
import { evidence, passed, scriptedReleasesOf } from '../support/scripted.ts';

const releases = scriptedReleasesOf('opening-waits');

test.each([0, 1])('stage %i says what it waits for, and is opened when there is evidence', async (waiting) => {
  const why = 'the last window is 9000 ms old';
  const refused = { kind: 'stale', why } as const;
  let fresh = false;
  let watching = true;
  const release = await releases.start(`waits-${waiting}`, {
    asked: { watchStage: ({ stage }) => watching && stage === waiting },
    answers: {
      openStage: async ({ stage }) => ({ directorVersion: 1, ...(stage < waiting || fresh ? {} : { refused }) }),
    },
  });
  const watch = await release.asked('watchStage');
  const state = await release.inPhase('held');
  expect(state.rollout?.stage).toBe(waiting);
  expect(renderRelease(state)).toMatch(new RegExp(`held +${why}`));
  // Asked for again when the watch sees evidence, not before.
  expect(release.happened.filter((what) => what === 'openStage')).toHaveLength(waiting + 1);
  fresh = true;
  const heldUntil = Date.now();
  watch.answer({ outcome: 'released', evidence: evidence(waiting) });
  // Nobody was offered it until now: its minimum time begins here.
  const granted = await release.asked('watchStage');
  expect(granted.input).toMatchObject({ stage: waiting, heldFor: null });
  expect(granted.input.openedAt).toBeGreaterThanOrEqual(heldUntil);
  watching = false;
  granted.answer(passed(waiting));
  const end = await release.end();
  expect(end.phase).toBe('completed');
  const told: readonly string[] = ['StageOpened', 'StageHeld', 'RolloutResumed'];
  const others = end.types.filter((type) => type === 'StageOpened').length - waiting - 2;
  expect(end.types.filter((type) => told.includes(type))).toEqual([
    ...Array.from({ length: waiting }, () => 'StageOpened'),
    ...['StageOpened', 'StageHeld', 'RolloutResumed', 'StageOpened'],
    ...Array.from({ length: others }, () => 'StageOpened'),
  ]);
});
