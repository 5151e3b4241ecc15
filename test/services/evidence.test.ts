/** The evidence path on real servers: gateway, aggregator and judge, and what they must make of one telemetry log. */
import { randomBytes, randomUUID } from 'node:crypto';
import type { Kafka } from 'kafkajs';
import { afterAll, afterEach, beforeAll, expect, inject, test } from 'vitest';
import { emptyState, foldRecord } from '../../domain/at-risk.ts';
import { planStages } from '../../domain/exposure.ts';
import { acceptWindow, foldTicks, newSession, type TickResult } from '../../domain/judge/session.ts';
import { defaultPolicy, type RolloutPolicy } from '../../domain/policy.ts';
import type { EnrolledDevice } from '../../domain/ports.ts';
import { engineId, type FailMode, segmentKey, type Verdict } from '../../domain/release.ts';
import type { JudgeStatus } from '../../domain/stage-rule.ts';
import type { ControlRecord, DeviceReport, TelemetryRecord, Window } from '../../domain/telemetry.ts';
import { bucketOf } from '../../infra/cohort.ts';
import { digestOf } from '../../infra/content/digests.ts';
import { createKafka, silent } from '../../infra/kafka/client.ts';
import { createTelemetryLog } from '../../infra/kafka/telemetry-log.ts';
import { createTopics, deadLetterName, partitionsOf, topicName } from '../../infra/kafka/topics.ts';
import { createEvidenceReader, readEvidence } from '../../infra/postgres/evidence.ts';
import { createInventory } from '../../infra/postgres/inventory.ts';
import { readDecisionsToNotify } from '../../infra/postgres/judge.ts';
import { startAggregator } from '../../services/aggregator.ts';
import { startGateway } from '../../services/gateway.ts';
import { startJudge } from '../../services/judge.ts';
import { createDatabase, type TestDatabase } from '../support/database.ts';
import { engineA, gatewayPorts, newFleet, pollBody } from '../support/devices.ts';
import { allOf } from '../support/inventory-contract.ts';
import { readTopic } from '../support/kafka-log.ts';
import { patient } from '../support/patience.ts';

const codeVersion = 'test';
const fleetKey = randomBytes(32);
/** The largest that a device may report: one more would stop the inventory of its partition. */
const mostVersion = 2 ** 31 - 1;
/** Silence is out of the picture but where a test brings it in. */
const policy: RolloutPolicy = { ...defaultPolicy, tickMs: 200, firstSilenceMs: 600_000, silenceMs: 600_000 };

type Running = { stop(): Promise<void> };
type OnVerdict = (releaseId: string, verdict: Verdict) => Promise<void>;

const prefix = `evidence-${randomUUID()}.`;
let kafka: Kafka;
let database: TestDatabase;
let telemetry: ReturnType<typeof createTelemetryLog>;
let gateway: Awaited<ReturnType<typeof startGateway>>;
let fleet: ReturnType<typeof newFleet>;
const running = new Set<Running>();

// One log for all tests, each with releases of its own.
beforeAll(async () => {
  kafka = createKafka({ brokers: inject('kafkaBrokers'), clientId: 'test', log: silent });
  telemetry = createTelemetryLog(kafka, prefix);
  [database] = await Promise.all([createDatabase(), createTopics(kafka, prefix, silent)]);
  gateway = await startGateway({
    ...gatewayPorts(fleetKey),
    ...{ telemetry, port: 0, clockMs: 100, ackMs: 60_000, log: silent },
  });
  fleet = newFleet(gateway.url, fleetKey);
});
afterEach(async () => {
  await Promise.all([...running].map(stop));
});
afterAll(async () => {
  await gateway.stop();
  await telemetry.close();
  await database.close();
});

const stop = async (one: Running): Promise<void> => {
  running.delete(one);
  await one.stop();
};
const keep = <T extends Running>(one: T): T => {
  running.add(one);
  return one;
};
const aggregate = async () =>
  keep(
    await startAggregator({
      ...{ kafka, pool: database.openPool(), topicPrefix: prefix, log: silent },
      snapshotEveryMs: 100,
    }),
  );
const judge = async (onVerdict: OnVerdict = async () => {}) =>
  keep(
    await startJudge({ kafka, pool: database.openPool(), topicPrefix: prefix, log: silent, codeVersion, onVerdict }),
  );

// ---- a fleet and a release

const failModes: readonly FailMode[] = ['fail-open', 'fail-closed'];
const segments = failModes.map((failMode) => segmentKey(engineId(engineA), failMode)).sort();
const devices = Array.from({ length: 200 }, (_, n) => `device-${n}`);
const failModeOf = (id: string): FailMode => failModes[devices.indexOf(id) % 2] ?? 'fail-open';

const poll = (ids: readonly string[], changes: Parameters<typeof pollBody>[0] = {}) =>
  fleet.send(ids.map((id) => [id, pollBody({ ...changes, failMode: failModeOf(id) })] as const));
const say = (ids: readonly string[], kind: 'installed' | 'healthy' | 'reverted', contentVersion = 2) =>
  fleet.send(ids.map((id) => [id, { kind, contentVersion }] as const));
const harm = (ids: readonly string[], kind: 'crash' | 'blocked-traffic' = 'crash') =>
  fleet.send(ids.map((id) => [id, { kind, contentVersion: 2, words: 'it broke' }] as const));

/** Five canaries in each of the two segments, then a quarter of the fleet. */
const stages = planStages(
  [
    { name: 'canary', kind: 'canary', size: 5, minMs: 1_000, minDevices: 5 },
    { name: '25 %', kind: 'share', size: 0.25, minMs: 1_000, minDevices: 5 },
  ],
  Object.fromEntries(
    failModes.map((failMode) => [
      segmentKey(engineId(engineA), failMode),
      devices.filter((id) => failModeOf(id) === failMode).map((id) => bucketOf('salt', id)),
    ]),
  ),
);
const insideOf = (stage: number) =>
  devices.filter((id) => {
    const segment = segmentKey(engineId(engineA), failModeOf(id));
    return bucketOf('salt', id) < (stages[stage]?.thresholds[segment] ?? 0);
  });
const canaries = insideOf(0);

type StageOpened = Extract<ControlRecord, { kind: 'stage-opened' }>;
const opened = (releaseId: string, changes: Partial<StageOpened> = {}): StageOpened => ({
  ...{ kind: 'stage-opened', releaseId, family: 'ips', stage: 0, salt: 'salt', contentVersion: 2, rollbackVersion: 3 },
  ...{ thresholds: stages[changes.stage ?? 0]?.thresholds ?? {}, policy, startedAt: Date.now() },
  ...changes,
});

const statusOf = (releaseId: string) => createEvidenceReader(database.pool).judgeStatus(releaseId);
const waitForStatus = (releaseId: string, expected: object) =>
  expect.poll(() => statusOf(releaseId), patient).toMatchObject(expected);
const passTick = async (releaseId: string, ticks = 1): Promise<void> => {
  const now = (await statusOf(releaseId))?.lastTick ?? -1;
  await expect
    .poll(async () => (await statusOf(releaseId))?.lastTick ?? -1, patient)
    .toBeGreaterThanOrEqual(now + ticks);
};
const eachSegment = <T>(value: T) => Object.fromEntries(segments.map((segment) => [segment, value]));
const decisionsOf = async (releaseId: string) => {
  const { rows } = await database.pool.query<{ kind: string; verdict: Verdict; notified: boolean }>(
    `select kind, verdict, notified_at is not null as notified from decisions where release_id = $1 order by kind, cell`,
    [releaseId],
  );
  return rows;
};

// ---- the same log, folded in memory by one process that is never interrupted

const readLog = async () =>
  (await readTopic(kafka, topicName(prefix, 'telemetry.reports.v1'))).map((record) => ({
    ...record,
    telemetry: JSON.parse(record.value) as TelemetryRecord,
  }));

const recompute = async (releaseId: string) => {
  const partitions = partitionsOf('telemetry.reports.v1');
  const states = Array.from({ length: partitions }, (_, partition) => emptyState(partition, partitions));
  const windows = (await readLog()).flatMap((record) => {
    const state = states[record.partition];
    if (state === undefined) throw new Error(`there is no partition ${record.partition}`);
    return foldRecord(state, record.telemetry, record.appendedAt, record.offset, bucketOf).windows;
  });
  const session = newSession(releaseId);
  const results: TickResult[] = [];
  const context = { digestOf, codeVersion };
  for (const window of windows.filter((one) => one.releaseId === releaseId)) {
    acceptWindow(session, window, digestOf(window));
    results.push(...foldTicks(session, context));
  }
  return {
    evidence: results.map((result) => result.evidence),
    status: results.at(-1)?.status,
    verdicts: results.flatMap((result) => result.verdicts),
  };
};

/** Only of a release that has ended: its windows are all that there will ever be. */
const expectRecomputable = async (releaseId: string): Promise<readonly Verdict[]> => {
  const { evidence, status, verdicts } = await recompute(releaseId);
  expect(evidence.length).toBeGreaterThan(3);
  await expect.poll(async () => (await statusOf(releaseId))?.lastTick, patient).toBe(status?.lastTick);
  expect(await readEvidence(database.pool, releaseId)).toEqual(evidence);
  expect(await statusOf(releaseId)).toEqual(status);
  const inOrder = (all: readonly Verdict[]) =>
    all.toSorted((a, b) => `${a.kind} ${a.cell}`.localeCompare(`${b.kind} ${b.cell}`));
  expect(inOrder((await decisionsOf(releaseId)).map(({ verdict }) => verdict))).toEqual(inOrder(verdicts));
  return verdicts;
};

// ---- the tests

test('polls fill the inventory, and a device that changes changes its row', async () => {
  await aggregate();
  await poll(devices);
  const inventory = createInventory(database.pool);
  const row = (deviceId: string, contentVersion = 1): EnrolledDevice => ({
    ...{ deviceId, engine: engineA, failMode: failModeOf(deviceId), contentVersion },
  });
  const rows = (versionOf: (id: string) => number) => devices.toSorted().map((id) => row(id, versionOf(id)));
  await expect.poll(() => allOf(inventory.devices()), patient).toEqual(rows(() => 1));
  await poll(canaries, { version: mostVersion });
  const after = rows((id) => (canaries.includes(id) ? mostVersion : 1));
  await expect.poll(() => allOf(inventory.devices()), patient).toEqual(after);
});

test('what is no report is refused with a reason and kept aside, and its neighbours are taken', async () => {
  const report: DeviceReport = { deviceId: 'loner', sequence: 1, body: { kind: 'healthy', contentVersion: 1 } };
  const signed = fleet.sign(report);
  const malformed = { ...signed, body: { ...signed.body, contentVersion: '1' } };
  const stolen = { ...signed, deviceId: 'another' };
  const { status, body } = await fleet.post([malformed, signed, stolen]);
  expect(status).toBe(200);
  expect(body).toEqual({
    results: [
      { status: 'rejected', reason: expect.stringMatching(/^body\.contentVersion: /) },
      { status: 'accepted' },
      { status: 'rejected', reason: expect.stringContaining('MAC') },
    ],
  });
  const { results } = body as { results: { reason?: string }[] };
  // Kept beside the answer, which does not wait for it.
  const refused = () => readTopic(kafka, deadLetterName(prefix, 'telemetry.reports.v1'));
  await expect.poll(async () => (await refused()).length, patient).toBe(2);
  expect((await refused()).map((record) => JSON.parse(record.value))).toEqual([
    { reason: results[0]?.reason, received: JSON.stringify(malformed) },
    { reason: results[2]?.reason, received: JSON.stringify(stolen) },
  ]);
  const taken = (await readLog()).flatMap(({ telemetry: record }) => ('report' in record ? [record.report] : []));
  expect(taken.filter((one) => ['loner', 'another'].includes(one.deviceId))).toEqual([report]);
});

test('a harmful release is halted with the numbers that stand in the database, and ends', async () => {
  await aggregate();
  const said: { releaseId: string; verdict: Verdict }[] = [];
  await judge(async (releaseId, verdict) => {
    said.push({ releaseId, verdict });
    const same = ({ verdict: one }: { verdict: Verdict }) => one.kind === verdict.kind && one.cell === verdict.cell;
    if (said.filter(same).length < 3) throw new Error('not now');
  });
  const saidOf = (kind: Verdict['kind']) => said.filter((one) => one.verdict.kind === kind);

  await poll(devices);
  await telemetry.control(opened('r1'));
  const offers = await poll(canaries, { offer: { releaseId: 'r1', contentVersion: 2 } });
  for (const { acknowledgedForMs } of offers) {
    expect(acknowledgedForMs).toBeGreaterThan(0);
    expect(acknowledgedForMs).toBeLessThanOrEqual(60_000);
  }
  await say(canaries, 'installed');
  await say(canaries.slice(1), 'healthy');
  const healthyIn = (segment: string) =>
    canaries.slice(1).filter((id) => segmentKey(engineId(engineA), failModeOf(id)) === segment).length;
  const served = { enrolled: 100, offered: 5, installed: 5, harmed: 0, recovered: 0 };
  await waitForStatus('r1', {
    stage: 0,
    counts: Object.fromEntries(segments.map((segment) => [segment, { ...served, healthy: healthyIn(segment) }])),
    exposed: eachSegment(5),
    openTrials: eachSegment(5),
    ...{ firstHarmAt: null, holds: [], halt: null },
  });
  expect(said).toEqual([]);

  const harmed = canaries.slice(0, 8);
  await harm(harmed);
  await expect
    .poll(async () => {
      const decisions = await decisionsOf('r1');
      const kinds = new Set(decisions.map(({ kind }) => kind));
      return kinds.size === 2 && decisions.every(({ notified }) => notified);
    }, patient)
    .toBe(true);
  const [halt, ...holds] = (await decisionsOf('r1')).map((decision) => decision.verdict) as [Verdict, ...Verdict[]];
  // Refused twice, then taken; the same words each time.
  expect(saidOf('halt')).toEqual(Array(3).fill({ releaseId: 'r1', verdict: halt }));
  for (const verdict of holds) {
    const said = saidOf('hold').filter((one) => one.verdict.cell === verdict.cell);
    expect(said).toEqual(Array(3).fill({ releaseId: 'r1', verdict }));
  }
  const status = (await statusOf('r1')) as JudgeStatus;
  const byCell = (a: Verdict, b: Verdict) => a.cell.localeCompare(b.cell);
  expect(status.halt).toEqual(halt);
  expect(status.holds.map(({ verdict }) => verdict).sort(byCell)).toEqual(holds.sort(byCell));

  // Its counts are those of the evidence up to its tick, its first harm the first harmful record of the log.
  const evidence = (await readEvidence(database.pool, 'r1')).filter((one) => one.tick <= halt.tick);
  const crashes = evidence.flatMap((one) =>
    segments.filter((segment) => [null, segment].includes(halt.segment)).map((segment) => one.leaves[segment]?.crash),
  );
  const sum = (column: 0 | 1 | 2 | 3) => crashes.reduce((total, leaf) => total + (leaf?.[column] ?? 0), 0);
  expect(halt).toMatchObject({ metric: 'crash', x: sum(0), y: 0, codeVersion, firstTick: 0, lastTick: halt.tick });
  expect(halt.x).toBeGreaterThan(1);
  expect(halt.treatedHours).toBeCloseTo(sum(2), 12);
  expect(halt.controlHours).toBeCloseTo(sum(3), 12);
  expect(halt.statA).toBeGreaterThanOrEqual(halt.thresholdA);
  expect(halt.statB).toBeGreaterThanOrEqual(halt.thresholdB);
  const firstHarm = (await readLog()).flatMap(({ telemetry: record, appendedAt }) =>
    'report' in record && record.report.body.kind === 'crash' ? [appendedAt] : [],
  );
  expect(status.firstHarmAt).toBe(Math.min(...firstHarm));

  await say(harmed, 'healthy', 3);
  const total = (counts: JudgeStatus['counts'], name: 'harmed' | 'recovered') =>
    segments.reduce((all, segment) => all + (counts[segment]?.[name] ?? 0), 0);
  const harmAndRecovery = async () => {
    const { counts } = (await statusOf('r1')) as JudgeStatus;
    return [total(counts, 'harmed'), total(counts, 'recovered')];
  };
  await expect.poll(harmAndRecovery, patient).toEqual([8, 8]);

  await telemetry.control({ kind: 'release-ended', releaseId: 'r1' });
  await telemetry.control(opened('r1', { stage: 1 })); // said again too late: it stays closed
  await telemetry.control(opened('r2'));
  await waitForStatus('r2', { counts: eachSegment({ ...served, offered: 0, installed: 0, healthy: 0 }) });
  await passTick('r2', 3);
  const ended = (await readLog()).filter(
    ({ telemetry: record }) => 'control' in record && record.control.kind === 'release-ended',
  );
  const last = (await readEvidence(database.pool, 'r1')).at(-1);
  expect(ended).toHaveLength(partitionsOf('telemetry.reports.v1'));
  for (const { partition, lastOffset } of last?.offsets ?? []) {
    expect(Number(lastOffset)).toBeLessThan(ended.find((record) => record.partition === partition)?.offset ?? 0);
  }
  expect(await readDecisionsToNotify(database.pool)).toEqual([]);
  await telemetry.control({ kind: 'release-ended', releaseId: 'r2' });
  await expectRecomputable('r1');
  expect(await expectRecomputable('r2')).toEqual([]);
});

test('services that are stopped, lose their state or hand over give the evidence of an uninterrupted run', async () => {
  const impatient = { ...policy, firstSilenceMs: 1_000, silenceMs: 1_500 };
  let refused: Verdict | null = null;
  const first = [
    await aggregate(),
    await judge(async (releaseId, verdict) => {
      if (releaseId === 'r3' && verdict.kind === 'halt') refused = verdict;
      throw new Error('nobody is there');
    }),
  ];
  await poll(devices);
  const startedAt = Date.now();
  await telemetry.control(opened('r3', { policy: impatient, startedAt }));
  await poll(canaries, { offer: { releaseId: 'r3', contentVersion: 2 } });
  await say(canaries, 'installed');
  await passTick('r3', 2);
  const snapshots = async () =>
    (await database.pool.query(`select 1 from aggregator_snapshots where position('"r3"'::bytea in state) > 0`)).rows
      .length;
  await expect.poll(snapshots, patient).toBe(partitionsOf('telemetry.reports.v1'));
  await database.pool.query('create table older as select * from aggregator_snapshots');
  await poll(devices.filter((id) => !canaries.includes(id)));
  await harm(canaries.slice(0, 6));
  await expect.poll(() => refused, patient).not.toBeNull();

  // Both end; the log goes on. What the aggregator wrote last is lost, of some partitions everything.
  await Promise.all(first.map(stop));
  await poll(devices);
  await harm(canaries.slice(6, 8), 'blocked-traffic');
  await database.pool.query(`truncate aggregator_snapshots`);
  await database.pool.query(`insert into aggregator_snapshots select * from older where partition % 3 <> 0`);
  const taken: Verdict[] = [];
  const take: OnVerdict = async (releaseId, verdict) => {
    if (releaseId === 'r3') taken.push(verdict);
  };
  const second = await Promise.all([aggregate(), judge(take)]);
  await expect.poll(() => taken.filter((verdict) => verdict.kind === 'halt'), patient).toEqual([refused]);
  await passTick('r3', 2);

  // Others come to share the work, then the first ones leave, in the middle of a wider stage.
  await telemetry.control(opened('r3', { stage: 1, policy: impatient, startedAt }));
  const third = Promise.all([aggregate(), judge(take)]);
  await poll(insideOf(1), { offer: { releaseId: 'r3', contentVersion: 2 } });
  await third;
  await harm(insideOf(1).slice(-3));
  await Promise.all(second.map(stop));
  await waitForStatus('r3', { stage: 1 });
  await poll(devices);
  // Trials of canaries that were offered the content at the beginning, before everything, have ended meanwhile.
  const silenceTrials = async () =>
    (await readEvidence(database.pool, 'r3')).flatMap((one) =>
      segments.map((segment) => one.leaves[segment]?.['silence-first']?.[2] ?? 0),
    );
  await expect.poll(async () => Math.max(...(await silenceTrials())), patient).toBeGreaterThan(0);
  await telemetry.control({ kind: 'release-ended', releaseId: 'r3' });

  const verdicts = await expectRecomputable('r3');
  expect(verdicts.find((verdict) => verdict.kind === 'halt')).toEqual(refused);
  // The interruptions did happen: windows were written again, and always the same.
  const windows = (await readTopic(kafka, topicName(prefix, 'telemetry.windows.v1')))
    .map((record): Window => JSON.parse(record.value))
    .filter((window) => window.releaseId === 'r3');
  const places = new Set(windows.map(({ tick, partition }) => `${tick}/${partition}`));
  expect(windows.length).toBeGreaterThan(places.size);
  expect(new Set(windows.map(digestOf)).size).toBe(places.size);
});
