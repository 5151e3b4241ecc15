/**
 * One release: build, matrix, signatures, approvals, stages, and its end. Decisions are domain/decide.ts and
 * domain/stage-rule.ts; this file says what happens in which order.
 *
 * Exposure up waits for the log: the stage's event is durable before the director is touched. Exposure down never waits:
 * the freeze comes first, then its record.
 */
import {
  ActivityFailure,
  ApplicationFailure,
  allHandlersFinished,
  CancellationScope,
  ChildWorkflowFailure,
  ContinueAsNew,
  condition,
  continueAsNew,
  isCancellation,
  rootCause,
  setHandler,
} from '@temporalio/workflow';
import type { Refusal } from '../activities/contract.ts';
import { type Command, decide } from '../domain/decide.ts';
import { enginesBehind, thresholdsFor } from '../domain/exposure.ts';
import { stopIdOf } from '../domain/ids.ts';
import { bakeLonger, type RolloutPolicy } from '../domain/policy.ts';
import type { EngineId, HeldFor, SegmentKey, StageOutcome, TriggeredBy, Verdict } from '../domain/release.ts';
import { isExposed, isTerminal, type ReleaseState } from '../domain/release-state.ts';
import type { Actor, Decision, ReleaseEvent } from '../events/catalogue.ts';
import { build, insist, publish, rollout, stopping, thawing, watching } from './activities.ts';
import * as messages from './messages.ts';
import { checkFleet, digestsOf, judgeMatrix, noteCell, notePlan, runMatrix } from './qualify.ts';
import { byWorkflow, createRecorder, type Recorded, type Recorder } from './recorder.ts';
import { fail, type ReleaseInput, type Run } from './run.ts';
import { createDisplay } from './show.ts';

export type ReleaseOutcome = {
  readonly releaseId: string;
  readonly phase: string;
  readonly reasonCode: string;
  readonly reason: string;
};

export async function releaseWorkflow(input: ReleaseInput): Promise<ReleaseOutcome> {
  const run = openRun(input);
  try {
    if (input.carried === null) {
      const { carried: _carried, ...request } = input;
      const { releaseId: _releaseId, ...triggered } = request;
      const person: Actor = { kind: 'person', id: input.requestedBy };
      run.recorder.emit(person, { type: 'ReleaseTriggered', data: triggered });
      await prepare(run);
    }
    if (!isTerminal(run.state())) await rollOut(run);
  } catch (error) {
    if (error instanceof ContinueAsNew) throw error;
    await CancellationScope.nonCancellable(() => abandon(run, error));
  }
  return CancellationScope.nonCancellable(async () => {
    const { releaseId, family } = input;
    if (isExposed(run.state())) await rollout.closeTelemetry({ releaseId, family });
    await run.recorder.flush();
    await condition(allHandlersFinished);
    const { phase, end } = run.state();
    return { releaseId, phase, reasonCode: end?.reasonCode ?? '', reason: end?.reason ?? '' };
  });
}

// ---- before anybody is offered anything

/** Build, matrix, signatures, approvals, plan. Returns early when the release ended. */
const prepare = async (run: Run): Promise<void> => {
  const { releaseId, family, sourceDigest, policy } = run.input;
  const release = { releaseId, family, sourceDigest };
  const emit = (...events: ReleaseEvent[]) => run.recorder.emit(byWorkflow, ...events);
  const ended = () => isTerminal(run.state());

  emit({ type: 'BuildStarted', data: { sourceDigest } });
  const built = await untilCancelled(run, () => build.buildRelease(release));
  if (built === null) return;
  if (!built.ok) {
    emit({ type: 'BuildFailed', data: { findings: built.findings } });
    return fail(run, 'build-failed', `the content has ${built.findings.length} findings`);
  }
  const { bundle, gaps, excluded, waysBack } = built;
  emit(
    { type: 'BuildSucceeded', data: bundle },
    ...gaps.map((gap): ReleaseEvent => ({ type: 'CoverageGapRecorded', data: gap })),
    ...excluded.map((one): ReleaseEvent => ({ type: 'CellExcluded', data: one })),
  );

  const matrix = await untilCancelled(run, () => runMatrix(run, digestsOf(waysBack)));
  if (matrix === null || ended()) return;
  if (!(await untilCancelled(run, () => judgeMatrix(run, matrix)))) return;

  const { contentVersion, artefacts, bundleDigest } = bundle;
  const signed = await untilCancelled(run, () =>
    publish.signRelease({ releaseId, family, bundleDigest, contentVersion, artefacts, waysBack }),
  );
  if (signed === null) return;
  const { signatures, threshold, release: content, rollback, previous } = signed;
  const covers = [content.contentVersion, rollback.contentVersion];
  emit(...signatures.map((signature): ReleaseEvent => ({ type: 'SignatureAdded', data: { ...signature, covers } })), {
    type: 'ManifestSigned',
    data: { threshold, signatures: signatures.length, release: content, rollback },
  });
  const published = await untilCancelled(run, () =>
    publish.publishContent({ releaseId, family, release: content, rollback }),
  );
  if (published === null) return;
  const rollbackVersion = rollback.contentVersion;
  emit({ type: 'ManifestPublished', data: { contentVersion, rollbackVersion, ...published } });

  if (policy.approvals > 0) {
    emit({ type: 'ApprovalRequested', data: { needed: policy.approvals } });
    await condition(() => (run.state().approvals?.by.length ?? 0) >= policy.approvals || ended());
  }
  const engines = artefacts.map(({ engine }) => engine);
  const planned = await untilCancelled(run, () => rollout.planRollout({ releaseId, family, policy, engines }));
  if (planned === null) return;
  emit({ type: 'RolloutPlanned', data: { ...planned, previous } });
};

/** null when a person cancelled the release meanwhile: what the work did is of no consequence, nobody was offered it. */
const untilCancelled = async <T>(run: Run, work: () => Promise<T>): Promise<T | null> => {
  for (;;) {
    if (isTerminal(run.state())) return null;
    const result = await run.unlessInterrupted(work);
    if (result.done) return isTerminal(run.state()) ? null : result.value;
  }
};

// ---- stages

const rollOut = async (run: Run): Promise<void> => {
  const stages = run.state().rollout?.stages ?? [];
  const index = run.state().rollout?.passed ?? 0;
  const grant: Grant = { is: 'asked' };
  for (;;) {
    const passed = await runStage(run, index, grant);
    if (passed === 'halt') return haltRelease(run);
    if (index + 1 < stages.length) {
      await continueAsNew<typeof releaseWorkflow>({ ...run.input, carried: run.recorder.recorded() });
    }
    // Frozen, or found against, after the last look: the stage goes on as one that is held.
    if (await complete(run, passed.engines)) return;
  }
};

/** How the first grant of a stage stands. */
type Grant = { is: 'asked' | 'refused' | 'given' };

/**
 * Opens and watches one stage until it has passed and this run has nothing left to do, or the release has to be halted.
 * `engines`: those of the field when the last stage passed.
 */
const runStage = async (
  run: Run,
  index: number,
  grant: Grant,
): Promise<'halt' | { readonly engines: readonly EngineId[] }> => {
  const { releaseId, family, policy } = run.input;
  let granted = false;
  let passed = false;
  /** The field as it was when it was looked at last, before everybody gets the content. */
  let fleet: { readonly engines: readonly EngineId[]; readonly at: number } | null = null;
  /** The stop that stands. */
  let stopId: string | null = null;
  let thaw: Promise<unknown> | null = null;
  /** A verdict refused a grant: it is asked for again when the watch has found the verdict, or that it is gone. */
  let against: HeldFor | null = null;
  for (;;) {
    const state = run.state();
    const seen = run.attention();
    if (state.phase === 'halting') return 'halt';
    if (state.phase === 'paused' || (state.phase === 'held' && state.hold?.reasonCode === 'hold')) {
      // Each time, frozen or not: who asked for this stop waits for its answer.
      stopId = await freeze(run, state.phase === 'paused' ? 'person' : 'judge');
      if (thaw === null) {
        if (state.phase === 'paused') await condition(() => run.attention() !== seen);
        else {
          // Evidence gathered since the HOLD may clear it; whatever people ask for comes first.
          const watched = await run.unlessInterrupted(() => watchStage(run, index), seen);
          if (watched.done) noteOutcome(run, index, watched.value);
        }
        continue;
      }
      // A thaw that was interrupted may still take effect, after this freeze: it is waited for, then frozen once more.
      const over: Promise<unknown> = thaw;
      if ((await run.unlessInterrupted(() => over, seen)).done) thaw = null;
      continue;
    }
    if (stopId !== null && against === null && state.phase !== 'held') {
      const stop: string = stopId;
      const thawed = await run.unlessInterrupted(async () => {
        await run.recorder.flush();
        const asked = thawing.thawExposure({ releaseId, family, stopId: stop, clearedCells: clearedCells(run) });
        thaw = asked.catch(() => {});
        return asked;
      });
      if (!thawed.done) continue;
      thaw = null;
      const { refused } = thawed.value;
      // By a late attempt of an earlier stop of this release: the one that is lifted is the last one.
      if (refused?.kind === 'stopped') stopId = await freeze(run, 'workflow');
      else if (refused !== undefined) against = noteRefusal(run, index, refused);
      else {
        stopId = null;
        // The stage may have passed before the stop, long ago: field and evidence are looked at as they are now.
        passed = false;
        fleet = null;
        // What this stage adds was not granted when the judge's verdict came between: it is asked for again, which changes
        // nothing where it was.
        granted = false;
      }
      continue;
    }
    if (state.phase === 'held' && state.hold?.reasonCode === untested) {
      await condition(() => run.attention() !== seen);
      continue;
    }
    // What was refused is asked for again when the watch has seen the end of why.
    if (!granted && against === null && state.phase !== 'held') {
      const engines = await testedFleet(run, index, seen);
      if (engines === null) continue;
      const opened = await run.unlessInterrupted(() => openStage(run, index, engines));
      if (!opened.done) continue;
      const { refused } = opened.value;
      granted = refused === undefined;
      noteGrant(run, index, grant, granted);
      if (refused !== undefined) against = noteRefusal(run, index, refused);
      continue;
    }
    if (passed) {
      // What is asked before everything is recorded and everybody is answered is dealt with here: the next run, or the
      // end, begins with nothing half done.
      const settled = () => condition(() => run.recorder.isDurable() && allHandlersFinished());
      if ((await run.unlessInterrupted(settled)).done) return { engines: fleet?.engines ?? [] };
      continue;
    }
    const heldFor = against;
    against = null;
    const watched = await run.unlessInterrupted(() => watchStage(run, index, heldFor));
    if (!watched.done) continue;
    const isLast = index + 1 === state.rollout?.stages.length;
    const isRecent = fleet !== null && Date.now() - fleet.at <= Math.max(policy.tickMs, sameMomentMs);
    if (watched.value.outcome === 'passed' && isLast && !isRecent) {
      // What follows gives the content to everybody: no engine may get it that came, or was excluded, during this stage. A
      // matrix may take minutes, so that the evidence is looked at once more.
      const engines = await testedFleet(run, index, seen);
      if (engines !== null) fleet = { engines, at: Date.now() };
      continue;
    }
    passed = noteOutcome(run, index, watched.value);
  }
};

/** `against`: what the watch has to see the end of although the release is not held for it yet. */
const watchStage = (run: Run, index: number, against: HeldFor | null = null): Promise<StageOutcome> => {
  const { releaseId, family, policy } = run.input;
  const { phase, hold, rollout: plan } = run.state();
  const reasonCode = hold?.reasonCode;
  const reason = reasonCode === 'hold' || reasonCode === 'frozen' ? reasonCode : 'no-data';
  return watching.watchStage.executeWithOptions({ summary: `stage ${stageName(run, index)}` }, [
    {
      ...{ releaseId, family, stage: index },
      policy: bakeLonger(policy, run.state()),
      openedAt: Date.parse(plan?.openedAt ?? ''),
      promote: run.promotion() !== null,
      clearedCells: clearedCells(run),
      heldFor: phase === 'held' ? { reason, cells: hold?.cells ?? [] } : against,
    },
  ]);
};

/** Fleet and evidence were looked at at once. */
const sameMomentMs = 10_000;

/** Engines of the field when all of them were tested; null when not, which holds the stage, or when somebody interrupts. */
const testedFleet = async (run: Run, index: number, seen: number): Promise<readonly EngineId[] | null> => {
  const checked = await run.unlessInterrupted(() => checkFleet(run), seen);
  if (!checked.done) return null;
  const { engines, problem } = checked.value;
  if (problem === null) return engines;
  holdStage(run, index, { triggeredBy: 'workflow', by: 'release', reasonCode: untested, reason: problem });
  return null;
};

/** The field has an engine that was not tested with this content. */
const untested = 'engine-untested';

const clearedCells = (run: Run): readonly string[] => run.state().rollout?.clearedCells ?? [];
const stageName = (run: Run, index: number): string => run.state().rollout?.stages[index]?.name ?? String(index);

/** `engines`: those of the field now. Devices of one that was excluded meanwhile stay as they are: nobody newly takes the release. */
const openStage = async (
  run: Run,
  index: number,
  engines: readonly EngineId[],
): Promise<{ readonly refused?: Refusal }> => {
  const { releaseId, family, policy } = run.input;
  const { rollout: plan, manifest } = run.state();
  const stage = plan?.stages[index];
  if (!plan || !stage || !manifest) throw ApplicationFailure.nonRetryable(`no plan for stage ${index}`, 'SRP_BUG_PLAN');
  const { name } = stage;
  // What is open already was granted as recorded: it is asked for again, and not decided again.
  const opened = plan.stage >= index;
  const thresholds = opened ? plan.thresholds : thresholdsFor(plan.thresholds, plan.stages, index, engines);
  if (!opened) emitStageOpened(run, index, thresholds);
  await run.recorder.flush();
  return rollout.openStage.executeWithOptions({ summary: `grant stage ${name}` }, [
    {
      ...{ releaseId, family, stage: index, thresholds },
      // The judge plans by it, too: it has to last as long as the watch.
      policy: bakeLonger(policy, run.state()),
      salt: plan.salt,
      release: manifest.release,
      rollbackVersion: manifest.rollback.contentVersion,
      startedAt: Date.parse(plan.startedAt),
      clearedCells: plan.clearedCells,
    },
  ]);
};

const emitStageOpened = (run: Run, index: number, thresholds: Readonly<Record<SegmentKey, number>>): void => {
  const data = { stage: index, name: stageName(run, index), thresholds };
  run.recorder.emit(byWorkflow, { type: 'StageOpened', data });
};

/**
 * While a stage was refused nobody was offered it: with its first grant it opens once more, and its minimum time begins. When
 * somebody stopped it in the same moment, that stands, and it opens with the grant after the stop.
 */
const noteGrant = (run: Run, index: number, grant: Grant, granted: boolean): void => {
  if (!granted) {
    if (grant.is === 'asked') grant.is = 'refused';
    return;
  }
  const { phase, rollout } = run.state();
  if (grant.is === 'refused') {
    if (phase !== 'rolling') return;
    emitStageOpened(run, index, rollout?.thresholds ?? {});
  }
  grant.is = 'given';
};

/** For what is no verdict of the judge. */
const holdStage = (run: Run, index: number, decision: Decision): void => {
  const stage = { stage: index, name: stageName(run, index), verdict: null };
  run.recorder.emit(byWorkflow, { type: 'StageHeld', data: { ...decision, ...stage } });
};

/** A person froze the family, whose freeze is no part of this release: the stage is held until it is lifted. */
const holdFrozen = (run: Run, index: number, reason: string): void =>
  holdStage(run, index, { triggeredBy: 'person', by: 'freeze', reasonCode: 'frozen', reason });

/** What is in the way of a grant holds the stage, for everybody to see. A verdict the watch finds, and holds or halts for it. */
const noteRefusal = (run: Run, index: number, { kind, why }: Refusal): HeldFor | null => {
  if (kind === 'verdict') return { reason: 'hold', cells: [] };
  if (kind === 'frozen') holdFrozen(run, index, why);
  else holdStage(run, index, { triggeredBy: 'lease', by: 'release', reasonCode: 'no-data', reason: why });
  return null;
};

/** Why a stage that was held goes on. */
const whyReleased = (hold: ReleaseState['hold']) => {
  if (hold?.reasonCode === 'hold') {
    return {
      ...({ triggeredBy: 'judge', by: 'judge', reasonCode: 'hold-cleared' } as const),
      reason: `evidence since the hold: neither ${hold.cells.join(', ')} nor a critical cell got worse`,
    };
  }
  const decision = { triggeredBy: 'workflow', by: 'release' } as const;
  if (hold?.reasonCode === 'frozen') return { ...decision, reasonCode: 'thawed', reason: 'the freeze was lifted' };
  return { ...decision, reasonCode: 'evidence-fresh', reason: 'windows arrive again' };
};

/** Records what a watch ended with; true when the stage passed. */
const noteOutcome = (run: Run, index: number, outcome: StageOutcome): boolean => {
  const emit = (...events: ReleaseEvent[]) => run.recorder.emit(byWorkflow, ...events);
  const stage = { stage: index, name: stageName(run, index) };
  const evidence: ReleaseEvent = { type: 'StageEvidenceRecorded', data: outcome.evidence };
  switch (outcome.outcome) {
    case 'passed': {
      const asked = run.promotion();
      const decision = asked
        ? { triggeredBy: 'person' as const, by: asked.by, reasonCode: 'person-promote', reason: asked.reason }
        : {
            triggeredBy: 'workflow' as const,
            by: 'release',
            reasonCode: 'stage-rule',
            reason: 'every condition is met',
          };
      // A stop after it had passed makes it no other stage.
      if ((run.state().rollout?.passed ?? 0) <= index)
        emit(evidence, { type: 'StagePassed', data: { ...decision, ...stage } });
      run.clearPromotion();
      return true;
    }
    case 'regression':
      emit(evidence);
      noteRegression(run.recorder, outcome.verdict);
      return false;
    case 'held': {
      if (outcome.reason === 'frozen') {
        emit(evidence);
        holdFrozen(run, index, outcome.evidence.waitingFor[0]?.message ?? 'the family is frozen');
        return false;
      }
      const noData = outcome.reason === 'no-data';
      const reason = noData
        ? (outcome.evidence.waitingFor.find(({ code }) => code === 'judge-refuses')?.message ??
          `no complete window since tick ${outcome.evidence.lastTick}`)
        : `the judge holds the stage: ${outcome.verdict?.metric} in ${outcome.verdict?.segment ?? 'the whole fleet'}`;
      const by = noData ? 'release' : 'judge';
      const triggeredBy: TriggeredBy = noData ? 'lease' : 'judge';
      emit(
        evidence,
        ...(noData
          ? [{ type: 'LeaseLapsed', data: { stage: index, lastTick: outcome.evidence.lastTick, reason } } as const]
          : []),
        {
          type: 'StageHeld',
          data: {
            ...{ triggeredBy, by, reasonCode: outcome.reason, reason, verdict: outcome.verdict, ...stage },
            ...(noData ? {} : { cells: outcome.cells }),
          },
        },
      );
      return false;
    }
    case 'released': {
      const { phase, hold } = run.state();
      if (phase !== 'held') return false;
      emit(evidence, { type: 'RolloutResumed', data: { ...whyReleased(hold), stage: index } });
      return false;
    }
  }
};

/** `engines`: those of the field now. False: it was refused, and nothing has changed. */
const complete = async (run: Run, engines: readonly EngineId[]): Promise<boolean> => {
  const { releaseId, family } = run.input;
  const signed = run.state().manifest?.release;
  if (!signed) throw ApplicationFailure.nonRetryable('no signed content', 'SRP_BUG_MANIFEST');
  // Steady content goes to every device of the engines that it has something for: those that took part in every stage.
  const { rollout: plan } = run.state();
  const behind = enginesBehind(plan?.thresholds ?? {}, plan?.stages.at(-1));
  const artefacts = signed.artefacts.filter(({ engine }) => engines.includes(engine) && !behind.has(engine));
  const content = { ...signed, artefacts };
  run.close();
  const { counts, refused } = await CancellationScope.nonCancellable(() =>
    rollout.completeRollout({ releaseId, family, release: content }),
  );
  if (refused !== undefined) {
    run.reopen();
    // Freeze and verdict are met again at once, where the stage is asked for and watched.
    if (refused.kind === 'stale') noteRefusal(run, run.state().rollout?.stage ?? 0, refused);
    return false;
  }
  run.recorder.emit(
    byWorkflow,
    { type: 'RolloutCompleted', data: { counts } },
    { type: 'ReleaseCompleted', data: { contentVersion: content.contentVersion } },
  );
  return true;
};

// ---- stopping

/** Returns the id of this stop. */
const freeze = async (run: Run, triggeredBy: TriggeredBy): Promise<string> => {
  const { releaseId, family } = run.input;
  const { halt, hold, seq } = run.state();
  // Each one leaves an event, so that the next one has another number.
  const stopId = stopIdOf(releaseId, seq);
  const reason = halt?.reason ?? hold?.reason ?? 'paused';
  const frozen = await stopping.freezeExposure({ releaseId, family, triggeredBy, reason, stopId });
  run.recorder.emit(byWorkflow, { type: 'ExposureFrozen', data: { ...frozen, triggeredBy } });
  run.noteFrozen(frozen.directorVersion);
  return stopId;
};

/** How long harmed devices are waited for, at least (late harm shows as trouble or as silence) and at most. */
const recoveryWait = ({ heartbeatMs, firstSilenceMs, silenceMs }: RolloutPolicy) => {
  const settleMs = Math.max(2 * heartbeatMs, firstSilenceMs, silenceMs);
  return { settleMs, waitMs: Math.max(15 * heartbeatMs, 3 * settleMs) };
};

/** Freeze, then the record, then the previous content under its new version, then the proof that devices recovered. */
const haltRelease = (run: Run): Promise<void> =>
  CancellationScope.nonCancellable(async () => {
    const { releaseId, family, policy } = run.input;
    const { halt, manifest } = run.state();
    const triggeredBy: TriggeredBy = halt?.verdict ? 'judge' : halt?.by === 'release' ? 'workflow' : 'person';
    await insist(() => freeze(run, triggeredBy));
    if (manifest) {
      const { rollback } = manifest;
      const published = await insist(() => stopping.publishRollback({ releaseId, family, rollback }));
      const rollbackVersion = rollback.contentVersion;
      run.recorder.emit(byWorkflow, { type: 'RollbackPublished', data: { rollbackVersion, ...published } });
      const waiting = { releaseId, family, rollbackVersion, ...recoveryWait(policy) };
      const verified = await insist(() => watching.verifyHalt(waiting));
      run.recorder.emit(byWorkflow, { type: 'HaltVerified', data: verified });
    }
    const by = halt?.by ?? 'release';
    const reasonCode = halt?.reasonCode ?? 'halted';
    run.recorder.emit(byWorkflow, {
      type: 'ReleaseHalted',
      data: { triggeredBy, by, reasonCode, reason: halt?.reason ?? '' },
    });
  });

/** The workflow itself cannot go on: what was exposed is halted and rolled back, everything else ends as failed. */
const abandon = async (run: Run, error: unknown): Promise<void> => {
  const state = run.state();
  if (isTerminal(state)) return;
  const cancelled = isCancellation(error);
  if (!cancelled && !(error instanceof ActivityFailure) && !(error instanceof ChildWorkflowFailure)) {
    if (!(error instanceof ApplicationFailure)) throw error; // a bug in this code: the workflow task is retried after a fix
  }
  const reason = cancelled ? 'the workflow was cancelled in Temporal' : (rootCause(error) ?? String(error));
  const decision = { triggeredBy: 'workflow', by: 'release', reason } as const;
  if (isExposed(state)) {
    const reasonCode = cancelled ? 'workflow-cancelled' : 'pipeline-failed';
    const stage = state.rollout?.stage ?? null;
    if (state.phase !== 'halting') {
      run.recorder.emit(byWorkflow, { type: 'HaltRequested', data: { ...decision, reasonCode, stage } });
    }
    return haltRelease(run);
  }
  if (cancelled) {
    run.recorder.emit(byWorkflow, {
      type: 'ReleaseCancelled',
      data: { ...decision, reasonCode: 'workflow-cancelled' },
    });
  } else fail(run, 'pipeline-failed', reason);
};

/** True when the verdict is news. */
const noteRegression = (recorder: Recorder, verdict: Verdict): boolean => {
  const state = recorder.state();
  if (state === null || isTerminal(state) || state.phase === 'halting' || !isExposed(state)) return false;
  const judge: Actor = { kind: 'judge', id: verdict.codeVersion };
  recorder.emit(judge, { type: 'RegressionDetected', data: { ...verdict, stage: state.rollout?.stage ?? 0 } });
  return true;
};

// ---- a run and its messages

const nothingRecorded: Recorded = { state: null, seq: 0, headHash: null };

const openRun = (input: ReleaseInput): Run => {
  const recorder = createRecorder(input.releaseId, input.carried ?? nothingRecorded, createDisplay());
  let attention = 0;
  let promotion: messages.PersonRequest | null = null;
  let frozen = 0;
  let closed = false;

  const state = (): ReleaseState => {
    const current = recorder.state();
    if (current === null) throw ApplicationFailure.retryable('the release was not triggered yet', 'SRP_RULE_NOT_READY');
    return current;
  };
  const decided = (command: Command): readonly ReleaseEvent[] => {
    const decision = decide(state(), command);
    if (!decision.ok) throw ApplicationFailure.nonRetryable(decision.message, decision.code);
    if (!closed || state().phase === 'halting') return decision.events;
    const why = `release ${input.releaseId} has passed every stage and is being completed; ${command.kind} comes too late`;
    throw ApplicationFailure.nonRetryable(why, 'SRP_RULE_PHASE');
  };
  const validate = (command: Command): void => {
    decided(command);
  };
  const accept = (command: Command): void => {
    recorder.emit({ kind: 'person', id: command.by }, ...decided(command));
    attention += 1;
  };
  const answer = (): messages.Answer => ({ phase: state().phase, seq: state().seq });

  setHandler(
    messages.approve,
    (request) => {
      accept({ kind: 'approve', ...request });
      return answer();
    },
    { validator: (request) => validate({ kind: 'approve', ...request }) },
  );
  const onRequest = (
    definition: typeof messages.pause,
    kind: Exclude<Command['kind'], 'approve'>,
    after?: (request: messages.PersonRequest) => Promise<void> | void,
  ) =>
    setHandler(
      definition,
      async (request) => {
        const before = frozen;
        accept({ kind, ...request });
        // Who asks for a stop is answered when it is in force.
        const isStopped = () => frozen > before || !(state().phase === 'paused' || state().phase === 'halting');
        if (kind === 'pause' || kind === 'halt') await condition(isStopped);
        await after?.(request);
        return answer();
      },
      { validator: (request) => validate({ kind, ...request }) },
    );
  onRequest(messages.pause, 'pause');
  onRequest(messages.resume, 'resume');
  onRequest(messages.halt, 'halt');
  onRequest(messages.cancel, 'cancel');
  onRequest(messages.promote, 'promote', (request) => {
    promotion = request;
  });
  setHandler(messages.regressionVerdict, (verdict) => {
    if (!closed && noteRegression(recorder, verdict)) attention += 1;
  });
  setHandler(messages.matrixPlanned, (plan) => notePlan(recorder, plan));
  setHandler(messages.matrixCellFinished, (result) => noteCell(recorder, result));
  setHandler(messages.currentState, () => recorder.state());

  return {
    input,
    recorder,
    state,
    attention: () => attention,
    unlessInterrupted: async (work, seen = attention) => {
      const scope = new CancellationScope();
      const running = scope.run(work).then((value) => ({ done: true as const, value }));
      const interrupted = condition(() => attention !== seen).then(() => ({ done: false as const }));
      // The one that loses the race may still fail, which is of no consequence.
      for (const promise of [running, interrupted]) promise.catch(() => {});
      const result = await Promise.race([running, interrupted]);
      if (!result.done) scope.cancel();
      return result;
    },
    promotion: () => promotion,
    clearPromotion: () => {
      promotion = null;
    },
    noteFrozen: () => {
      frozen += 1;
    },
    close: () => {
      closed = true;
    },
    reopen: () => {
      closed = false;
    },
  };
};
