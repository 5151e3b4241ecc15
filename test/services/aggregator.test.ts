/** Aggregators as processes that are killed while they share the work: what they leave in Kafka and PostgreSQL. */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, inject, onTestFinished, test } from 'vitest';
import { emptyState, foldRecord } from '../../domain/at-risk.ts';
import { planStages } from '../../domain/exposure.ts';
import { acceptWindow, foldTicks, newSession } from '../../domain/judge/session.ts';
import { defaultPolicy, type RolloutPolicy } from '../../domain/policy.ts';
import { engineId, segmentKey, type Verdict } from '../../domain/release.ts';
import type { ControlRecord, DeviceReport, TelemetryRecord, Window } from '../../domain/telemetry.ts';
import { bucketOf } from '../../infra/cohort.ts';
import { digestOf } from '../../infra/content/digests.ts';
import { createKafka, silent } from '../../infra/kafka/client.ts';
import { createTelemetryLog } from '../../infra/kafka/telemetry-log.ts';
import { createTopics, partitionsOf, topicName } from '../../infra/kafka/topics.ts';
import { createEvidenceReader, readEvidence } from '../../infra/postgres/evidence.ts';
import { createInventory } from '../../infra/postgres/inventory.ts';
import { startJudge } from '../../services/judge.ts';
import { createDatabase } from '../support/database.ts';
import { engineA, pollBody } from '../support/devices.ts';
import { allOf } from '../support/inventory-contract.ts';
import { readTopic } from '../support/kafka-log.ts';
import { patient } from '../support/patience.ts';
import { startNode } from '../support/plain-node.ts';
import { below, seeded, seedOfRun } from '../support/random.ts';

const policy: RolloutPolicy = { ...defaultPolicy, tickMs: 200, firstSilenceMs: 1_500, silenceMs: 2_500 };
const segment = segmentKey(engineId(engineA), 'fail-open');
const devices = Array.from({ length: 240 }, (_, n) => `device-${n}`);
const [stage] = planStages([{ name: 'canary', kind: 'canary', size: 12, minMs: 1, minDevices: 1 }], {
  [segment]: devices.map((id) => bucketOf('salt', id)),
});
const canaries = devices.filter((id) => bucketOf('salt', id) < (stage?.thresholds[segment] ?? 0));

const program = `
  import { startAggregator } from './services/aggregator.ts';
  import { createKafka, silent } from './infra/kafka/client.ts';
  import { createPool } from './infra/postgres/pool.ts';
  const [brokers, url, topicPrefix] = process.argv.slice(1);
  const kafka = createKafka({ brokers: brokers.split(','), clientId: 'aggregator', log: silent });
  const pool = createPool(url, 'aggregator', silent);
  await startAggregator({ kafka, pool, topicPrefix, log: silent, snapshotEveryMs: 300 });
  console.log('started');
`;

test(`aggregators that are killed again and again leave the windows and decisions of one that is not (seed ${seedOfRun})`, async () => {
  const random = seeded(seedOfRun);
  const prefix = `aggregator-${randomUUID()}.`;
  const brokers = inject('kafkaBrokers');
  const kafka = createKafka({ brokers, clientId: 'test', log: silent });
  const [database] = await Promise.all([createDatabase(), createTopics(kafka, prefix, silent)]);
  onTestFinished(() => database.close());
  const telemetry = createTelemetryLog(kafka, prefix);
  onTestFinished(() => telemetry.close());
  const judge = await startJudge({
    ...{ kafka, pool: database.openPool(), topicPrefix: prefix, log: silent, codeVersion: 'test' },
    onVerdict: async () => {},
  });
  onTestFinished(() => judge.stop());

  const start = () => startNode(program, [brokers.join(','), database.url, prefix]);
  const running = [start(), start()];
  const startsWell = (one: ReturnType<typeof start>) =>
    expect.poll(() => one.said.out + one.said.error, patient).toBe('started\n');
  await Promise.all(running.map(startsWell));

  // ---- a fleet that talks all the time
  const sequences = new Map<string, number>();
  const report = (deviceId: string, body: DeviceReport['body']): DeviceReport => {
    const sequence = (sequences.get(deviceId) ?? 0) + 1;
    sequences.set(deviceId, sequence);
    return { deviceId, sequence, body };
  };
  const control = (record: ControlRecord) => telemetry.control(record);
  await telemetry.append(devices.map((id) => report(id, pollBody())));
  const stageOpened: ControlRecord = {
    ...{ kind: 'stage-opened', releaseId: 'r1', family: 'ips', stage: 0, salt: 'salt', contentVersion: 2 },
    ...{ rollbackVersion: 3, thresholds: stage?.thresholds ?? {}, policy, startedAt: Date.now() },
  };
  await control(stageOpened);
  let beats = 0;
  let crashing: readonly string[] = [];
  const talking = new AbortController();
  const beat = async (): Promise<void> => {
    const heard = devices.filter(() => below(random, 3) === 0);
    const polls = heard.map((id) => {
      const offered = canaries.includes(id);
      return report(
        id,
        pollBody(offered ? { offer: { releaseId: 'r1', contentVersion: 2 } } : { version: 1 + below(random, 2) }),
      );
    });
    const harm = crashing.map((id) => report(id, { kind: 'crash', contentVersion: 2, words: 'it broke' }));
    crashing = [];
    const reports = [...polls, ...harm];
    // What a gateway could not acknowledge comes again.
    await telemetry.append(below(random, 4) === 0 ? [...reports, ...reports.slice(0, 20)] : reports);
    await control({ kind: 'clock' });
    beats += 1;
  };
  const talk = (async () => {
    while (!talking.signal.aborted) {
      await beat();
      await sleep(20 + below(random, 80));
    }
  })();
  onTestFinished(async () => {
    talking.abort();
    await talk;
  });

  // ---- processes that die in the middle of it
  const status = createEvidenceReader(database.pool);
  const lastTick = async () => (await status.judgeStatus('r1'))?.lastTick ?? -1;
  const goOn = async (ticks: number): Promise<void> => {
    const from = await lastTick();
    await expect.poll(lastTick, patient).toBeGreaterThanOrEqual(from + ticks);
  };
  await goOn(3);
  const kills = 5;
  for (let kill = 0; kill < kills; kill += 1) {
    const until = beats + below(random, 8);
    await expect.poll(() => beats, { ...patient, interval: 1 }).toBeGreaterThanOrEqual(until);
    const [victim] = running.splice(below(random, running.length), 1);
    victim?.child.kill('SIGKILL');
    if (kill === 1) running.push(start());
    running.push(start());
    if (kill === 2) crashing = canaries.slice(0, 9);
    await goOn(1 + below(random, 3));
  }
  await Promise.all(running.map(startsWell));
  talking.abort();
  await talk;
  await control({ kind: 'release-ended', releaseId: 'r1' });
  await control({ kind: 'clock' });

  // ---- the same log, folded by one process that nobody disturbs
  const log = await readTopic(kafka, topicName(prefix, 'telemetry.reports.v1'));
  const partitions = partitionsOf('telemetry.reports.v1');
  const states = Array.from({ length: partitions }, (_, partition) => emptyState(partition, partitions));
  const expected = log.flatMap(({ partition, offset, appendedAt, value }) => {
    const record: TelemetryRecord = JSON.parse(value);
    const state = states[partition] ?? emptyState(partition, partitions);
    return [...foldRecord(state, record, appendedAt, offset, bucketOf).windows];
  });
  const session = newSession('r1');
  const results = expected.flatMap((window) => {
    acceptWindow(session, window, digestOf(window));
    return foldTicks(session, { digestOf, codeVersion: 'test' });
  });
  await expect.poll(lastTick, patient).toBe(results.at(-1)?.evidence.tick);

  const written = await readTopic(kafka, topicName(prefix, 'telemetry.windows.v1'));
  const place = ({ tick, partition }: Window) => `${partition}/${tick}`;
  const places = new Map<string, Set<string>>();
  for (const { value } of written) {
    const key = place(JSON.parse(value));
    places.set(key, (places.get(key) ?? new Set()).add(value));
  }
  const once = new Map([...places].map(([key, values]) => [key, [...values]]));
  expect(once).toEqual(new Map(expected.map((window) => [place(window), [JSON.stringify(window)]])));
  // They did die in the middle: some windows were written again.
  expect(written.length).toBeGreaterThan(once.size);

  expect(await readEvidence(database.pool, 'r1')).toEqual(results.map(({ evidence }) => evidence));
  const { rows } = await database.pool.query<{ kind: string; verdict: Verdict }>('select kind, verdict from decisions');
  const verdicts = results.flatMap((result) => result.verdicts);
  const decisions = (all: readonly { kind: string; verdict: Verdict }[]) =>
    new Map(all.map((one) => [`${one.kind} ${one.verdict.cell}`, one.verdict]));
  expect(rows).toHaveLength(verdicts.length);
  expect(decisions(rows)).toEqual(decisions(verdicts.map((verdict) => ({ kind: verdict.kind, verdict }))));
  expect(verdicts.map(({ kind }) => kind)).toContain('halt');

  // The inventory is what each device said last, whoever read it.
  const lastPolls = new Map<string, number>();
  for (const { value } of log) {
    const record: TelemetryRecord = JSON.parse(value);
    if ('report' in record && record.report.body.kind === 'poll')
      lastPolls.set(record.report.deviceId, record.report.body.contentVersion);
  }
  const stored = async () => {
    // As gateways do all the time: what is due is written when a record comes.
    await control({ kind: 'clock' });
    const found = await allOf(createInventory(database.pool).devices());
    return found.map(({ deviceId, contentVersion }) => [deviceId, contentVersion]);
  };
  await expect.poll(stored, patient).toEqual([...lastPolls].toSorted(([a], [b]) => (a < b ? -1 : 1)));
});
