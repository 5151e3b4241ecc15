/**
 * The shape of every event in zod, at the borders of the system: what comes from the log is checked against it, what a
 * workflow emits is typed by the catalogue. A type that differs from its schema does not compile (end of this file).
 */
import { z } from 'zod';
import type { ReleaseEvents, ReleaseEventType } from './catalogue.ts';

const text = z.string();
const count = z.number().int().min(0);
const sha256 = z.string().regex(/^[0-9a-f]{64}$/);
const segments = <T extends z.ZodType>(value: T) => z.record(text, value);
const triggeredBy = z.enum(['person', 'judge', 'lease', 'workflow']);
const decision = { triggeredBy, by: text, reasonCode: text, reason: text };
const scalar = z.union([z.number(), text]);

const finding = z.strictObject({
  code: text,
  message: text,
  observed: scalar.exactOptional(),
  operator: text.exactOptional(),
  limit: scalar.exactOptional(),
});
const contentFinding = finding.extend({ file: text.exactOptional(), line: count.exactOptional() });

export const policySchema = z.strictObject({
  unit: z.enum(['device', 'site']).exactOptional(),
  tickMs: count,
  heartbeatMs: count,
  firstSilenceMs: count,
  silenceMs: count,
  leaseMs: count,
  freshTicks: count,
  approvals: count,
  stages: z.array(
    z.strictObject({
      name: text,
      kind: z.enum(['canary', 'share', 'all']),
      size: z.number(),
      minMs: count,
      minDevices: count,
      promote: z.boolean().exactOptional(),
    }),
  ),
  judge: z.strictObject({ alphaA: z.number(), alphaB: z.number(), alphaHold: z.number() }),
});

export const engineSchema = z.strictObject({ name: text, version: text, packageVersion: text, digest: sha256 });
const artefact = z.strictObject({ engine: text, path: text, sha256, length: count });
const content = z.strictObject({ contentVersion: count, releaseId: text, artefacts: z.array(artefact) });
const cell = z.strictObject({
  cellId: text,
  engine: engineSchema,
  mode: z.enum(['ids', 'ips', 'scan']),
  protocols: z.record(text, z.boolean()).exactOptional(),
  devices: count,
});
const cellVerdict = z.enum(['pass', 'fail', 'void', 'error']);
const result = z.strictObject({
  cellId: text,
  verdict: cellVerdict,
  rulesExpected: count,
  rulesLoaded: count.nullable(),
  gates: z.array(
    z.strictObject({
      gate: text,
      verdict: cellVerdict,
      observed: scalar,
      operator: text,
      limit: scalar,
      details: z.array(
        z.strictObject({
          rule: scalar.exactOptional(),
          vector: text.exactOptional(),
          file: text.exactOptional(),
          line: count.exactOptional(),
          words: text,
        }),
      ),
    }),
  ),
  wallMs: z.number(),
  usage: z.strictObject({ wallMs: z.number(), peakBytes: z.number().nullable() }).exactOptional(),
  reused: z.strictObject({ from: text, at: text }).exactOptional(),
  observed: sha256.exactOptional(),
});
const waiver = z.strictObject({
  waiverId: text,
  family: text,
  kind: z.enum(['exclude', 'override']),
  target: text,
  sourceDigest: sha256.nullable(),
  reason: text,
  expiresAt: text,
  by: z.array(text),
  failures: z.array(text).exactOptional(),
});
const divergence = z.strictObject({
  rule: scalar,
  input: text,
  alerting: z.array(text),
  silent: z.array(text),
});
const stage = z.strictObject({ name: text, thresholds: segments(count), devices: segments(count) });
const counts = segments(
  z.strictObject({
    enrolled: count,
    offered: count,
    installed: count,
    healthy: count,
    harmed: count,
    recovered: count,
  }),
);
const verdict = z.strictObject({
  kind: z.enum(['hold', 'halt']),
  tick: count,
  cell: text,
  metric: text,
  segment: text.nullable(),
  x: count,
  y: count,
  treatedHours: z.number(),
  controlHours: z.number(),
  statA: z.number(),
  statB: z.number(),
  thresholdA: z.number(),
  thresholdB: z.number(),
  policyDigest: text,
  firstTick: count,
  lastTick: count,
  codeVersion: text,
  firstHarmAt: z.number().nullable(),
  inTick: z.tuple([count, count, z.number(), z.number()]).exactOptional(),
  attribution: z
    .strictObject({
      latchedBoth: z.array(text),
      latchedA: z.array(text),
      latchedB: z.array(text),
      suspects: z.array(text),
      leading: text.nullable(),
    })
    .exactOptional(),
});
const stageIndex = z.number().int().min(-1);

export const dataSchemas = {
  ReleaseTriggered: z.strictObject({
    family: text,
    requestedBy: text,
    note: text,
    sourceDigest: sha256,
    policy: policySchema,
    policyDigest: sha256,
  }),
  ReleaseRefused: z.strictObject(decision),
  ReleaseQueued: z.strictObject({ behind: text }),
  BuildStarted: z.strictObject({ sourceDigest: sha256 }),
  BuildSucceeded: z.strictObject({
    bundleDigest: sha256,
    rules: count,
    vectors: count,
    contentVersion: count,
    artefacts: z.array(artefact),
  }),
  BuildFailed: z.strictObject({ findings: z.array(contentFinding) }),
  CoverageGapRecorded: z.strictObject({
    engine: text,
    version: text,
    rules: z.array(z.strictObject({ rule: scalar, words: text })),
    devices: count,
  }),
  CellExcluded: z.strictObject({ waiver, engine: text, devices: count }),
  MatrixPlanned: z.strictObject({ cells: z.array(cell), fleetDevices: count }),
  MatrixCellPassed: z.strictObject({ result }),
  MatrixCellFailed: z.strictObject({ result }),
  MatrixCellErrored: z.strictObject({ result }),
  MatrixReopened: z.strictObject({ cells: z.array(cell) }),
  DivergenceFound: z.strictObject({ divergences: z.array(divergence) }),
  CellOverridden: z.strictObject({ waiver, cellId: text, gates: z.array(text) }),
  FirstUseRecorded: z.strictObject({
    engines: z.array(z.strictObject({ engine: text, features: z.array(text) })),
  }),
  EnginesRequalified: z.strictObject({
    engines: z.array(
      z.strictObject({ engine: text, packageVersion: text, digest: sha256, runner: text, controls: text }),
    ),
  }),
  MatrixVoided: z.strictObject({ cells: z.array(text), reason: text }),
  MatrixPassed: z.strictObject({ cells: count, wallMs: z.number() }),
  MatrixFailed: z.strictObject({ failed: z.array(text), wallMs: z.number() }),
  SignatureAdded: z.strictObject({ keyId: text, signer: text, covers: z.array(count) }),
  ManifestSigned: z.strictObject({ threshold: count, signatures: count, release: content, rollback: content }),
  ManifestPublished: z.strictObject({ contentVersion: count, rollbackVersion: count, targetsVersion: count }),
  ApprovalRequested: z.strictObject({ needed: count }),
  ApprovalGranted: z.strictObject({ by: text, note: text, granted: count, needed: count }),
  RolloutPlanned: z.strictObject({ salt: text, stages: z.array(stage), previous: content }),
  StageOpened: z.strictObject({ stage: count, name: text, thresholds: segments(count) }),
  StageEvidenceRecorded: z.strictObject({
    stage: count,
    lastTick: z.number().int().min(-1),
    counts,
    statA: z.number(),
    statB: z.number(),
    leading: text,
    waitingFor: z.array(finding),
  }),
  StagePassed: z.strictObject({ ...decision, stage: count, name: text }),
  StageHeld: z.strictObject({
    ...decision,
    stage: count,
    name: text,
    verdict: verdict.nullable(),
    cells: z.array(text).exactOptional(),
  }),
  RolloutPaused: z.strictObject({ ...decision, stage: stageIndex }),
  RolloutResumed: z.strictObject({ ...decision, stage: stageIndex }),
  LeaseLapsed: z.strictObject({ stage: count, lastTick: z.number().int().min(-1), reason: text }),
  RolloutCompleted: z.strictObject({ counts }),
  RegressionDetected: verdict.extend({ stage: count }),
  HaltRequested: z.strictObject({ ...decision, stage: stageIndex.nullable() }),
  ExposureFrozen: z.strictObject({ directorVersion: count, frozenAt: z.number(), triggeredBy }),
  RollbackPublished: z.strictObject({ rollbackVersion: count, directorVersion: count }),
  HaltVerified: z.strictObject({ counts, recovered: z.boolean(), waitedMs: z.number() }),
  ReleaseHalted: z.strictObject(decision),
  ReleaseCompleted: z.strictObject({ contentVersion: count }),
  ReleaseFailed: z.strictObject(decision),
  ReleaseCancelled: z.strictObject(decision),
} satisfies { [T in ReleaseEventType]: z.ZodType };

export const eventTypes = Object.keys(dataSchemas) as ReleaseEventType[];

/** The version of the shapes above; older ones are brought here by an upcaster after their hash was checked. */
export const currentVersion = 1;

export const envelopeSchema = z.strictObject({
  eventId: text.min(1),
  streamId: text.min(1),
  seq: z.number().int().min(1),
  type: z.enum(eventTypes as [ReleaseEventType, ...ReleaseEventType[]]),
  schemaVersion: z.literal(currentVersion),
  occurredAt: z.iso.datetime(),
  actor: z.strictObject({ kind: z.enum(['person', 'workflow', 'judge', 'service']), id: text }),
  causationId: text.nullable(),
  correlationId: text,
  workflow: z.strictObject({ workflowId: text, runId: text }),
  data: z.unknown(),
  prevHash: sha256,
  hash: sha256,
});

// The schemas and the catalogue say the same, in both directions, or this does not compile.
type Writable<T> = T extends object ? { -readonly [K in keyof T]: Writable<T[K]> } : T;
type Same<A, B> = [A] extends [B] ? ([B] extends [A] ? true : false) : false;
type Disagreement = {
  [T in ReleaseEventType]: Same<z.infer<(typeof dataSchemas)[T]>, Writable<ReleaseEvents[T]>> extends true ? never : T;
}[ReleaseEventType];
true satisfies [Disagreement] extends [never] ? true : Disagreement;
