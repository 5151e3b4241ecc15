/** Event streams of releases that went every way there is, for tests without servers. */
import { planStages } from '../../domain/exposure.ts';
import type { RolloutPolicy } from '../../domain/policy.ts';
import type { Cell, CellResult, Content, Counts, StageEvidence, Verdict } from '../../domain/release.ts';
import type { JudgeStatus } from '../../domain/stage-rule.ts';
import type { NumberedEvent, ReleaseEvent } from '../../events/catalogue.ts';

const segment = 'suricata-7.0.10-00000000/fail-open';
const cell: Cell = {
  cellId: 'suricata-7.0.10-00000000/ids',
  engine: { name: 'suricata', version: '7.0.10', packageVersion: '1:7.0.10-1', digest: '0'.repeat(64) },
  mode: 'ids',
  devices: 3,
};
const content = (contentVersion: number): Content => ({ contentVersion, releaseId: 'r-1', artefacts: [] });
const result = (verdict: CellResult['verdict']): CellResult => ({
  ...{ cellId: cell.cellId, verdict, rulesExpected: 2, rulesLoaded: verdict === 'pass' ? 2 : 1, wallMs: 10 },
  gates: [
    {
      ...{ gate: 'rules-loaded', verdict, observed: verdict === 'pass' ? 2 : 1, operator: '==', limit: 2 },
      details: verdict === 'pass' ? [] : [{ rule: 7, words: 'unknown rule keyword' }],
    },
  ],
});
export const counts = (harmed: number, recovered: number): Counts => ({
  [segment]: { enrolled: 3, offered: 3, installed: 3, healthy: 3, harmed, recovered },
});
const evidence = (stage: number): StageEvidence => ({
  ...{ stage, lastTick: 10 + stage, counts: counts(0, 0), statA: 0.1, statB: 0.1, leading: 'crash/*', waitingFor: [] },
});
export const sampleVerdict: Verdict = {
  ...{ kind: 'halt', tick: 4, cell: 'blocked-traffic/*', metric: 'blocked-traffic', segment: null, x: 3, y: 0 },
  ...{ treatedHours: 0.01, controlHours: 1.5, statA: 120, statB: 25, thresholdA: 100, thresholdB: 20 },
  ...{ policyDigest: 'f'.repeat(64), firstTick: 0, lastTick: 4, codeVersion: 'test', firstHarmAt: 1_700_000_000_000 },
};

export type SampleKind = 'completed' | 'blocked' | 'halted' | 'halted-by-person' | 'cancelled';

/** A whole stream, numbered from 1, one second between events. */
export const sampleStream = (kind: SampleKind, policy: RolloutPolicy): NumberedEvent[] => {
  const by = { triggeredBy: 'workflow', by: 'release' } as const;
  const stages = planStages(policy.stages, { [segment]: [97, 98, 99] });
  const head: ReleaseEvent[] = [
    {
      type: 'ReleaseTriggered',
      data: {
        ...{ family: 'ips', requestedBy: 'ann', note: 'sample', sourceDigest: 'a'.repeat(64), policy },
        policyDigest: 'b'.repeat(64),
      },
    },
    { type: 'BuildStarted', data: { sourceDigest: 'a'.repeat(64) } },
    {
      type: 'BuildSucceeded',
      data: { bundleDigest: 'c'.repeat(64), rules: 2, vectors: 2, contentVersion: 2, artefacts: [] },
    },
    { type: 'MatrixPlanned', data: { cells: [cell], fleetDevices: 3 } },
  ];
  const blocked: ReleaseEvent[] = [
    { type: 'MatrixCellFailed', data: { result: result('fail') } },
    { type: 'MatrixFailed', data: { failed: [cell.cellId], wallMs: 20 } },
    { type: 'ReleaseFailed', data: { ...by, reasonCode: 'matrix-failed', reason: '1 of 1 cells did not pass' } },
  ];
  const approved: ReleaseEvent[] = [
    { type: 'MatrixCellPassed', data: { result: result('pass') } },
    { type: 'MatrixPassed', data: { cells: 1, wallMs: 20 } },
    { type: 'SignatureAdded', data: { keyId: 'k1', signer: 'release-key-1', covers: [2, 3] } },
    { type: 'ManifestSigned', data: { threshold: 2, signatures: 2, release: content(2), rollback: content(3) } },
    { type: 'ManifestPublished', data: { contentVersion: 2, rollbackVersion: 3, targetsVersion: 2 } },
    ...(policy.approvals > 0 ? [{ type: 'ApprovalRequested', data: { needed: policy.approvals } } as const] : []),
    ...Array.from(
      { length: policy.approvals },
      (_, i): ReleaseEvent => ({
        type: 'ApprovalGranted',
        data: { by: `boss-${i + 1}`, note: '', granted: i + 1, needed: policy.approvals },
      }),
    ),
  ];
  const signed: ReleaseEvent[] = [
    ...approved,
    { type: 'RolloutPlanned', data: { salt: 'salt', stages, previous: content(1) } },
  ];
  const open = (stage: number): ReleaseEvent => ({
    type: 'StageOpened',
    data: { stage, name: stages[stage]?.name ?? '', thresholds: stages[stage]?.thresholds ?? {} },
  });
  const passes = stages.flatMap((stage, index): ReleaseEvent[] => [
    open(index),
    { type: 'StageEvidenceRecorded', data: evidence(index) },
    {
      type: 'StagePassed',
      data: { ...by, reasonCode: 'stage-rule', reason: 'every condition is met', stage: index, name: stage.name },
    },
  ]);
  const halted: ReleaseEvent[] = [
    open(0),
    { type: 'RegressionDetected', data: { ...sampleVerdict, stage: 0 } },
    { type: 'ExposureFrozen', data: { directorVersion: 3, frozenAt: 1_700_000_002_000, triggeredBy: 'judge' } },
    { type: 'RollbackPublished', data: { rollbackVersion: 3, directorVersion: 4 } },
    { type: 'HaltVerified', data: { counts: counts(3, 3), recovered: true, waitedMs: 4000 } },
    {
      type: 'ReleaseHalted',
      data: { triggeredBy: 'judge', by: 'judge', reasonCode: 'regression-blocked-traffic', reason: 'regression' },
    },
  ];
  const completed: ReleaseEvent[] = [
    ...passes,
    { type: 'RolloutCompleted', data: { counts: counts(0, 0) } },
    { type: 'ReleaseCompleted', data: { contentVersion: 2 } },
  ];
  const asked = { triggeredBy: 'person', by: 'sre', reasonCode: 'person-halt', reason: 'customers call' } as const;
  const haltedByPerson: ReleaseEvent[] = [
    open(0),
    { type: 'StageEvidenceRecorded', data: evidence(0) },
    { type: 'HaltRequested', data: { ...asked, stage: 0 } },
    { type: 'ExposureFrozen', data: { directorVersion: 3, frozenAt: 1_700_000_012_500, triggeredBy: 'person' } },
    { type: 'RollbackPublished', data: { rollbackVersion: 3, directorVersion: 4 } },
    { type: 'HaltVerified', data: { counts: counts(2, 1), recovered: false, waitedMs: 4000 } },
    { type: 'ReleaseHalted', data: asked },
  ];
  const tails: Readonly<Record<SampleKind, readonly ReleaseEvent[]>> = {
    completed: [...signed, ...completed],
    blocked,
    halted: [...signed, ...halted],
    'halted-by-person': [...signed, ...haltedByPerson],
    cancelled: [...approved, { type: 'ReleaseCancelled', data: { ...asked, reasonCode: 'person-cancel' } }],
  };
  return number([...head, ...tails[kind]]);
};

export const number = (events: readonly ReleaseEvent[], streamId = 'r-1'): NumberedEvent[] =>
  events.map((event, index) => ({
    ...event,
    eventId: `${streamId}#${index + 1}`,
    streamId,
    seq: index + 1,
    schemaVersion: 1,
    occurredAt: new Date(1_700_000_000_000 + index * 1000).toISOString(),
    actor: { kind: 'workflow', id: 'release' },
    causationId: index === 0 ? null : `${streamId}#${index}`,
    correlationId: streamId,
    workflow: { workflowId: `release/${streamId}`, runId: 'run-1' },
  }));

/** A judge that has seen one stage and nothing wrong. */
export const judgeStatus = (changes: Partial<JudgeStatus> = {}): JudgeStatus => ({
  ...{ releaseId: 'r1', lastTick: 5, lastWindowClosedAt: 0, stage: 0, statA: 0, statB: 0, leading: '' },
  ...{ counts: {}, exposed: {}, openTrials: {}, firstHarmAt: null, holds: [], halt: null, refused: null },
  promote: { cell: 'crash/*', value: 30, limit: 20 },
  ...changes,
});
