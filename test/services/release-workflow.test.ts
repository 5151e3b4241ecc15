/** Every path of a release, on the real Temporal server, with scripted activities: which events, in which order, which end. */
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import type { Cell, CellResult, StageOutcome, Waiver } from '../../domain/release.ts';
import type { ReleaseEventType } from '../../events/catalogue.ts';
import {
  cellOf,
  evidence,
  final,
  holdVerdict,
  passed,
  type ScriptedRelease,
  type ScriptedReleases,
  startScriptedReleases,
  tested,
} from '../support/scripted.ts';
import { sampleVerdict } from '../support/streams.ts';

const cleared = [holdVerdict.cell];
/** What a watch over the first stage ends with while these cells hold. */
const heldByJudge = (cells: readonly string[] = cleared): StageOutcome => ({
  ...{ outcome: 'held', reason: 'hold', verdict: holdVerdict, cells, evidence: evidence(0) },
});

let releases: ScriptedReleases;
beforeAll(async () => {
  releases = await startScriptedReleases(inject('temporalAddress'), 'release-workflow');
});
afterAll(async () => {
  await releases?.stop();
});

const always = () => true;
const built: readonly ReleaseEventType[] = ['ReleaseTriggered', 'BuildStarted', 'BuildSucceeded'];
const signed: readonly ReleaseEventType[] = [
  ...built,
  ...(['MatrixPlanned', 'MatrixCellPassed', 'MatrixCellPassed', 'MatrixPassed'] as const),
  ...(['SignatureAdded', 'SignatureAdded', 'ManifestSigned', 'ManifestPublished'] as const),
];
const planned: readonly ReleaseEventType[] = [...signed, 'RolloutPlanned'];
const watched: readonly ReleaseEventType[] = ['StageEvidenceRecorded', 'StagePassed'];
const stage: readonly ReleaseEventType[] = ['StageOpened', ...watched];
const completed: readonly ReleaseEventType[] = ['RolloutCompleted', 'ReleaseCompleted'];
const rolledBack: readonly ReleaseEventType[] = [
  ...(['ExposureFrozen', 'RollbackPublished', 'HaltVerified', 'ReleaseHalted'] as const),
];

/** Each of `later` happened after as many of `earlier`. */
const expectAfter = (
  { happened }: ScriptedRelease,
  later: ScriptedRelease['happened'][number],
  earlier: ScriptedRelease['happened'][number],
) => {
  let balance = 0;
  for (const what of happened) {
    if (what === earlier) balance += 1;
    if (what === later) balance -= 1;
    expect(balance, `${later} before ${earlier} in ${happened.join(', ')}`).toBeGreaterThanOrEqual(0);
  }
  expect(happened).toContain(later);
};
const position = ({ happened }: ScriptedRelease, what: ScriptedRelease['happened'][number]) => {
  expect(happened).toContain(what);
  return happened.indexOf(what);
};
const refusal = (code: string) => ({ cause: { type: code } });
const dataOf = (ended: Awaited<ReturnType<ScriptedRelease['end']>>, type: ReleaseEventType) =>
  ended.stream.events.filter((event) => event.type === type).map((event) => event.data);

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

describe.concurrent('a release that is blocked before anybody is offered it', () => {
  test('findings of the build', async () => {
    const findings = [{ code: 'syntax', message: 'no rule', file: 'a.rules', line: 1 }];
    const release = await releases.start('build-findings', {
      answers: { buildRelease: async () => ({ ok: false, findings }) },
    });
    const end = await release.end();
    expect(end).toMatchObject({ phase: 'blocked', reasonCode: 'build-failed' });
    expect(end.types).toEqual(['ReleaseTriggered', 'BuildStarted', 'BuildFailed', 'ReleaseFailed']);
    expect(release.happened).not.toContain('planMatrix');
    expect(release.happened).not.toContain('closeTelemetry');
  });

  test.each([
    ['red', 'matrix-failed', 'MatrixCellFailed', 'MatrixFailed'],
    ['error', 'matrix-failed', 'MatrixCellErrored', 'MatrixFailed'],
    ['void', 'matrix-void', 'MatrixCellFailed', 'MatrixVoided'],
  ] as const)('a cell that is %s', async (kind, reasonCode, cellEvent, matrixEvent) => {
    const release = await releases.start(`cell-${kind}`, { asked: { runMatrixCell: always } });
    const first = await release.asked('runMatrixCell');
    const second = await release.asked('runMatrixCell');
    first.answer(tested(first.input.cell));
    await release.until('MatrixCellPassed');
    if (kind === 'error') second.fail(final('the engine is gone'));
    else second.answer(tested(second.input.cell, kind === 'red' ? 'fail' : 'void'));
    const end = await release.end();
    expect(end).toMatchObject({ phase: 'blocked', reasonCode });
    expect(end.types).toEqual([...built, 'MatrixPlanned', 'MatrixCellPassed', cellEvent, matrixEvent, 'ReleaseFailed']);
    expect(JSON.stringify(dataOf(end, matrixEvent))).toContain(second.input.cell.cellId);
    if (kind === 'error') expect(JSON.stringify(dataOf(end, cellEvent))).toContain('the engine is gone');
    expect(release.happened).not.toContain('signRelease');
  });

  test('cells that passed and do different things on the same input', async () => {
    const divergence = (alerting: string[], silent: string[]) => ({ rule: 7, input: 'empty', alerting, silent });
    const release = await releases.start('diverging', {
      answers: {
        compareCells: async ({ observed }) => {
          expect(observed).toEqual([]); // these cells have no details in a store
          return { divergences: [divergence(['old/ids'], ['new/ids', 'newest/ids'])], different: ['old/ids'] };
        },
      },
    });
    const end = await release.end();
    expect(end).toMatchObject({ phase: 'blocked', reasonCode: 'matrix-failed' });
    expect(end.types).toEqual([
      ...[...built, 'MatrixPlanned', 'MatrixCellPassed', 'MatrixCellPassed', 'DivergenceFound'],
      ...['MatrixFailed', 'ReleaseFailed'],
    ]);
    // Who is right is not known: the fewer are named.
    expect(dataOf(end, 'MatrixFailed')).toMatchObject([{ failed: ['old/ids'] }]);
    expect(release.happened).not.toContain('signRelease');
  });

  const red = (cell: Cell, gates: readonly string[], verdict: CellResult['verdict'] = 'fail') => {
    const { result, ...more } = tested(cell, verdict);
    const failed = gates.map((gate) => ({
      ...({ gate, verdict: 'fail', observed: 1, operator: '==', limit: 0, details: [] } as const),
    }));
    return { ...more, result: { ...result, gates: failed } };
  };
  const overridesOf = (family: string, ...failures: string[]): readonly Waiver[] =>
    ['ids', 'ips'].map((mode) => {
      const target = `suricata-7.0.10-00000000/${mode}`;
      return {
        ...{ waiverId: target, family, kind: 'override', target, sourceDigest: '0'.repeat(64), reason: 'r' },
        ...{ failures, expiresAt: '2999-01-01', by: ['ann', 'bob'] },
      };
    });

  test.each(['void', 'error'] as const)(
    'a cell that is %s stays so, whatever two people have decided',
    async (verdict) => {
      const id = `${verdict}-override`;
      const release = await releases.start(id, {
        answers: {
          runMatrixCell: async ({ cell }) => red(cell, ['controls'], verdict),
          readOverrides: async () => ({ overrides: overridesOf(id, 'controls') }),
        },
      });
      const end = await release.end();
      expect(end).toMatchObject({ phase: 'blocked', reasonCode: verdict === 'void' ? 'matrix-void' : 'matrix-failed' });
      expect(end.types).not.toContain('CellOverridden');
    },
  );

  test('a cell that turns void in mid-rollout is not covered by an override either', async () => {
    let plans = 0;
    const other = (cell: Cell): Cell => ({ ...cell, cellId: cell.cellId.replace('7.0.10', '8.0.7') });
    const release = await releases.start('void-later', {
      answers: {
        planMatrix: async () => {
          plans += 1; // the matrix, the first stage, the second one
          const cells = ['ids', 'ips'].map((mode) => cellOf(mode as Cell['mode']));
          return { cells: plans < 3 ? cells : [...cells, ...cells.map(other)], fleetDevices: 3 };
        },
        runMatrixCell: async ({ cell }) =>
          cell.cellId.includes('8.0.7') ? red(cell, ['controls'], 'void') : tested(cell),
        readOverrides: async () => ({
          overrides: overridesOf('void-later', 'controls').map((one) => ({
            ...one,
            target: one.target.replace('7.0.10', '8.0.7'),
          })),
        }),
      },
    });
    const held = await release.inPhase('held');
    expect(held.hold?.reason).toContain('suricata-8.0.7-00000000/ids');
    await release.command('halt', 'sre');
    expect((await release.end()).types).not.toContain('CellOverridden');
  });

  test('an override lets pass what was wrong when it was asked for, and nothing that went wrong since', async () => {
    const endWith = async (id: string, gates: readonly string[]) => {
      const release = await releases.start(id, {
        answers: {
          runMatrixCell: async ({ cell }) => red(cell, gates),
          readOverrides: async () => ({ overrides: overridesOf(id, 'budget-load', 'must-match') }),
        },
      });
      return release.end();
    };
    const known = await endWith('override-known', ['budget-load']);
    expect(known.phase).toBe('completed');
    expect(known.types.filter((type) => type === 'CellOverridden')).toHaveLength(2);
    const other = await endWith('override-other', ['budget-load', 'goodware']);
    expect(other).toMatchObject({ phase: 'blocked', reasonCode: 'matrix-failed' });
    expect(other.types).not.toContain('CellOverridden');
  });

  test('engines that qualified anew are an event, each once, before the matrix is judged', async () => {
    const news = { engine: 'suricata-7.0.10-00000000', packageVersion: '1', digest: '0'.repeat(64), runner: 'r' };
    const release = await releases.start('requalified', {
      answers: {
        runMatrixCell: async ({ cell }) => ({ ...tested(cell), requalified: { ...news, controls: '1 accepted' } }),
      },
    });
    const end = await release.end();
    expect(end.phase).toBe('completed');
    expect(dataOf(end, 'EnginesRequalified')).toEqual([{ engines: [{ ...news, controls: '1 accepted' }] }]);
    expect(end.types.indexOf('EnginesRequalified')).toBeLessThan(end.types.indexOf('MatrixPassed'));
  });

  test('no cells: nothing was tested, so nothing passed', async () => {
    const release = await releases.start('no-cells', {
      answers: { planMatrix: async () => ({ cells: [], fleetDevices: 0 }) },
    });
    const end = await release.end();
    expect(end).toMatchObject({ phase: 'blocked', reasonCode: 'matrix-void' });
    expect(end.types).toEqual([...built, 'MatrixPlanned', 'MatrixVoided', 'ReleaseFailed']);
  });

  test('a matrix that cannot be planned is a failure of the pipeline', async () => {
    const release = await releases.start('no-plan', {
      answers: { planMatrix: () => Promise.reject(final('the inventory cannot be read')) },
    });
    const end = await release.end();
    expect(end).toMatchObject({
      phase: 'failed',
      reasonCode: 'pipeline-failed',
      reason: 'the inventory cannot be read',
    });
    expect(end.types).toEqual([...built, 'ReleaseFailed']);
  });
});

describe.concurrent('the field as a stage opens, and before everybody gets the content', () => {
  const cellFor = (engine: string): Cell => ({
    cellId: `suricata-${engine}-00000000/ids`,
    engine: { name: 'suricata', version: engine, packageVersion: '1', digest: '0'.repeat(64) },
    ...{ mode: 'ids', devices: 1 },
  });
  const segmentOf = (engine: string) => `suricata-${engine}-00000000/fail-open`;

  const artefact = (engine: string) => ({
    ...{ engine: `suricata-${engine}-00000000`, path: engine, sha256: '0'.repeat(64), length: 1 },
  });
  const stagesOf = (count: number) =>
    Array.from({ length: count }, (_, n) => ({
      name: `${n}`,
      kind: 'share' as const,
      size: 1,
      minMs: 1,
      minDevices: 1,
    }));

  /**
   * Two engines in a release. `engines`: which of the field are there, plan by plan (the matrix, then before each stage, then before the end).
   */
  const rollOut = async (id: string, stages: number, engines: (plan: number) => readonly string[]) => {
    let plans = 0;
    const opened: Readonly<Record<string, number>>[] = [];
    let steady: readonly string[] = [];
    const content = (contentVersion: number) => ({
      ...{ contentVersion, releaseId: id, artefacts: ['6.0.1', '7.0.10'].map(artefact) },
    });
    const bundle = { bundleDigest: '0'.repeat(64), rules: 2, vectors: 2, contentVersion: 2 };
    const release = await releases.start(id, {
      policy: { stages: stagesOf(stages) },
      answers: {
        buildRelease: async () => ({
          ok: true,
          bundle: { ...bundle, artefacts: ['6.0.1', '7.0.10'].map(artefact) },
          ...{ gaps: [], excluded: [], waysBack: [] },
        }),
        planMatrix: async () => ({ cells: engines(plans++).map(cellFor), fleetDevices: 2 }),
        runMatrixCell: async ({ cell }) => tested(cell, cell.cellId.includes('9.9.9') ? 'fail' : 'pass'),
        signRelease: async () => ({
          ...{ threshold: 1, signatures: [{ keyId: 'k', signer: 'k' }] },
          ...{ release: content(2), rollback: content(3), previous: content(1) },
        }),
        planRollout: async ({ policy }) => ({
          salt: 'salt',
          stages: policy.stages.map(({ name }, index) => {
            const both = { [segmentOf('6.0.1')]: index + 1, [segmentOf('7.0.10')]: index + 1 };
            return { name, thresholds: both, devices: both };
          }),
        }),
        openStage: async ({ thresholds }) => {
          opened.push(thresholds);
          return { directorVersion: opened.length };
        },
        completeRollout: async ({ release: { artefacts } }) => {
          steady = artefacts.map(({ engine }) => engine);
          return { directorVersion: 9, counts: {} };
        },
      },
    });
    const granted = () => opened.map((one) => [one[segmentOf('6.0.1')], one[segmentOf('7.0.10')]]);
    return { release, granted, steady: () => steady };
  };
  const both = ['6.0.1', '7.0.10'];
  const six = 'suricata-6.0.1-00000000';
  const seven = 'suricata-7.0.10-00000000';

  test('all that is there takes part', async () => {
    const { release, granted, steady } = await rollOut('whole-field', 2, () => both);
    expect((await release.end()).phase).toBe('completed');
    expect(granted()).toEqual([
      [1, 1],
      [2, 2],
    ]);
    expect(steady()).toEqual([six, seven]);
  });

  test('an engine that is excluded in mid-release is offered nothing more, and is no part of the steady content', async () => {
    const { release, granted, steady } = await rollOut('excluded', 2, (plan) => (plan < 2 ? both : ['7.0.10']));
    const end = await release.end();
    expect(end.phase).toBe('completed');
    expect(granted()).toEqual([
      [1, 1],
      [1, 2],
    ]);
    expect(dataOf(end, 'StageOpened').at(-1)).toMatchObject({
      thresholds: { [segmentOf('6.0.1')]: 1, [segmentOf('7.0.10')]: 2 },
    });
    expect(steady()).toEqual([seven]);
  });

  test('one that comes back after it missed a stage does not skip its canary: it waits for the next release', async () => {
    const { release, granted, steady } = await rollOut('back', 3, (plan) => (plan === 1 ? ['7.0.10'] : both));
    expect((await release.end()).phase).toBe('completed');
    expect(granted()).toEqual([
      [0, 1],
      [0, 2],
      [0, 3],
    ]);
    expect(steady()).toEqual([seven]);
  });

  test('one that is excluded during the last stage gets nothing by its end', async () => {
    const { release, steady } = await rollOut('excluded-last', 2, (plan) => (plan < 3 ? both : ['7.0.10']));
    expect((await release.end()).phase).toBe('completed');
    expect(steady()).toEqual([seven]);
  });

  test('one that nobody tested and that comes during the last stage holds the end of it', async () => {
    let there = true;
    const { release, steady } = await rollOut('new-last', 2, (plan) =>
      plan < 3 || !there ? both : [...both, '9.9.9'],
    );
    const held = await release.inPhase('held');
    expect(held).toMatchObject({ rollout: { stage: 1, passed: 1 }, hold: { reasonCode: 'engine-untested' } });
    expect(steady()).toEqual([]);
    there = false;
    await release.command('resume', 'sre');
    const end = await release.end();
    expect(end.phase).toBe('completed');
    expect(end.types.indexOf('MatrixReopened')).toBeGreaterThan(end.types.lastIndexOf('StageOpened'));
  });

  test('what the judge finds while the field is tested once more, before everybody gets it, stops the release', async () => {
    let watched = 0;
    const release = await releases.start('late-regression', {
      answers: {
        watchStage: async ({ stage }) => {
          watched += 1; // both stages pass; then the last one is looked at once more
          return watched < 3
            ? passed(stage)
            : { outcome: 'regression', verdict: sampleVerdict, evidence: evidence(stage) };
        },
      },
    });
    const end = await release.end();
    expect(end.phase).toBe('halted');
    expect(end.types.filter((type) => type === 'StagePassed')).toHaveLength(1);
    expect(release.happened).not.toContain('completeRollout');
  });

  test('when no engine is left nothing was tested that anybody runs: the rollout is held', async () => {
    let none = true;
    const { release } = await rollOut('none-left', 2, (plan) => (plan >= 2 && none ? [] : both));
    expect((await release.inPhase('held')).hold?.reason).toContain('no engine is left');
    none = false;
    await release.command('resume', 'sre');
    expect((await release.end()).phase).toBe('completed');
  });

  test('a field that cannot be looked at holds what runs well, and does not roll it back', async () => {
    let plans = 0;
    const release = await releases.start('field-unknown', {
      answers: {
        planMatrix: async () => {
          plans += 1;
          if (plans === 3) throw final('a pack has changed');
          return { cells: [cellFor('7.0.10')], fleetDevices: 1 };
        },
      },
    });
    await release.inPhase('held');
    expect((await release.state()).hold).toMatchObject({
      ...{ reasonCode: 'engine-untested', reason: expect.stringContaining('a pack has changed') },
    });
    await release.command('resume', 'sre');
    const end = await release.end();
    expect(end.phase).toBe('completed');
    expect(end.types).not.toContain('ReleaseHalted');
  });

  test('cells are compared as the field is now: a difference that has left it stops nobody', async () => {
    const divergence = { rule: 7, input: 'empty', alerting: ['old/ids'], silent: ['new/ids', 'newest/ids'] };
    let compared = 0;
    const release = await releases.start('difference-left', {
      answers: {
        compareCells: async () => {
          compared += 1; // the matrix, the first stage, the second one, and again
          return compared === 3
            ? { divergences: [divergence], different: ['old/ids'] }
            : { divergences: [], different: [] };
        },
      },
    });
    await release.inPhase('held');
    await release.command('resume', 'sre');
    const end = await release.end();
    expect(end.phase).toBe('completed');
    expect(dataOf(end, 'DivergenceFound')).toEqual([{ divergences: [divergence] }, { divergences: [] }]);
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
