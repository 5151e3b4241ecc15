/** Paths of a release through its matrix, and through the field as it is later, on the real Temporal server, with scripted activities. */
import { describe, expect, test } from 'vitest';
import type { Cell, CellResult, Waiver } from '../../domain/release.ts';
import { always, built, dataOf } from '../support/release-paths.ts';
import { cellOf, evidence, final, passed, scriptedReleasesOf, tested } from '../support/scripted.ts';
import { sampleVerdict } from '../support/streams.ts';

const releases = scriptedReleasesOf('release-matrix');

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

  test('an override that is taken back in mid-release holds it, until it is there again and somebody resumes', async () => {
    const id = 'override-withdrawn';
    let looks = 0;
    let withdrawn = true;
    const release = await releases.start(id, {
      answers: {
        runMatrixCell: async ({ cell }) => red(cell, ['budget-load']),
        readOverrides: async () => {
          looks += 1; // the matrix, the first stage, the second one
          return { overrides: looks > 2 && withdrawn ? [] : overridesOf(id, 'budget-load') };
        },
      },
    });
    const held = await release.inPhase('held');
    expect(held).toMatchObject({ rollout: { stage: 0, passed: 1 }, hold: { reasonCode: 'engine-untested' } });
    await release.command('resume', 'sre');
    await expect.poll(async () => (await release.inPhase('held')).seq).toBeGreaterThan(held.seq + 1);
    withdrawn = false;
    await release.command('resume', 'sre');
    const end = await release.end();
    expect(end.phase).toBe('completed');
    expect(dataOf(end, 'StageHeld')).toHaveLength(2);
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
