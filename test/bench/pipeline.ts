/**
 * `npm run bench -- pipeline`: what a release costs beside its engines, on servers of its own with the demo's fleet and plan.
 * Every figure stands beside a baseline measured in the same run.
 */
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { createRecordActivities } from '../../activities/record.ts';
import { simulateFleet } from '../../apps/cli/commands/fleet.ts';
import { bringDown, bringUp } from '../../apps/cli/commands/servers.ts';
import { bundleFolder } from '../../apps/cli/content.ts';
import { type Api, brokersOf, openApi, readStream } from '../../apps/cli/context.ts';
import { out, table } from '../../apps/cli/output.ts';
import { watchRelease } from '../../apps/cli/watch.ts';
import type { TelemetryRecord } from '../../domain/telemetry.ts';
import type { NumberedEvent, StoredEvent } from '../../events/catalogue.ts';
import type { Config } from '../../infra/config.ts';
import { loadFamily } from '../../infra/content/load-family.ts';
import { createEngines } from '../../infra/engines/catalogue.ts';
import { asNew, testFamily } from '../../infra/engines/local-matrix.ts';
import { acquirePacks } from '../../infra/engines/packs.ts';
import { createMatrixTools } from '../../infra/engines/tools.ts';
import { createKafka, silent } from '../../infra/kafka/client.ts';
import { createKafkaEventLog } from '../../infra/kafka/event-log.ts';
import { createProducer } from '../../infra/kafka/produce.ts';
import { topicName } from '../../infra/kafka/topics.ts';
import { stderrProgress } from '../../infra/servers/progress.ts';
import type { ReleaseStarted } from '../../services/api/contract.ts';
import { deriveFamily, distribution, examples, find, fresh } from './common.ts';

const demoPolicy = join(examples, 'demo', 'policy.yaml');
const progress = stderrProgress();
/** The newest engine of the demo's fleet. */
const engine = '8.0.7';

const release = async (api: Api, config: Config, folder: string, policy: string): Promise<Released> => {
  const bundle = await bundleFolder(folder, policy);
  const started = performance.now();
  const { releaseId } = await api.post<ReleaseStarted>('/releases', {
    ...{ bundle, releaseId: `bench-${randomUUID().slice(0, 8)}`, requestedBy: 'bench', note: '' },
  });
  const { state } = await watchRelease(api, releaseId, { timeoutMs: 120_000, justStarted: true, show: () => {} });
  const wallMs = performance.now() - started;
  const { events } = await readStream(config, releaseId);
  return { events, wallMs, phase: state?.phase ?? 'unknown' };
};
type Released = { readonly events: readonly StoredEvent[]; readonly wallMs: number; readonly phase: string };

const at = (event: StoredEvent): number => Date.parse(event.occurredAt);

/** A fleet of one engine, a family with one mode, two stages: everything but the engine and the wait for evidence is ours. */
const benchOverhead = async (releases: number) => {
  const config = await fresh('overhead');
  const dir = join(config.stateDir, 'input');
  const engines = [`suricata@${engine}`];
  const family = await deriveFamily(dir, {
    ...{ example: 'ips', name: 'ips', language: 'suricata', modes: ['ids'], engines },
  });
  const policy = join(dir, 'policy.yaml');
  await writeFile(
    policy,
    stringify({
      ...{ tickMs: '250ms', heartbeatMs: '500ms', firstSilenceMs: '1s', silenceMs: '2s', leaseMs: '5s', freshTicks: 8 },
      stages: [
        { name: 'canary', kind: 'canary', size: 8, minMs: '1ms', minDevices: 1 },
        { name: 'all', kind: 'all', size: 1, minMs: '1ms', minDevices: 1 },
      ],
    }),
  );
  const fleet = join(dir, 'fleet.yaml');
  const segments = [{ engine, failMode: 'fail-open', share: 1 }];
  const profiles = [{ name: 'office', share: 1 }];
  await writeFile(fleet, stringify({ devices: 20, segments, profiles, traffic: join(examples, 'field') }));
  await bringUp(config, progress);
  const api = openApi(config);
  await api.post('/families', { bundle: await bundleFolder(family, undefined) });
  const simulator = await simulateFleet(config, { file: fleet, family: 'ips', heartbeatMs: 500, progress });
  try {
    const overheads: number[] = [];
    const totals: number[] = [];
    for (let i = 0; i < releases; i += 1) {
      progress(`overhead: release ${i + 1} of ${releases}`);
      const { events, wallMs, phase } = await release(api, config, family, policy);
      if (phase !== 'completed') throw new Error(`a release of the benchmark ended as ${phase}`);
      const cell = find(events, 'MatrixCellPassed').data.result.wallMs;
      const sum = (type: 'StagePassed' | 'StageOpened') =>
        events.reduce((total, event) => total + (event.type === type ? at(event) : 0), 0);
      const evidence = sum('StagePassed') - sum('StageOpened');
      overheads.push(wallMs - cell - evidence);
      totals.push(wallMs);
    }
    const bare = await benchCell(family, releases);
    const event = await benchRecording(config);
    return { overhead: distribution(overheads), total: distribution(totals), bareCell: distribution(bare), event };
  } finally {
    await simulator.stop();
    await bringDown(config);
  }
};

/** The same cell on this machine without anything around it. */
const benchCell = async (folder: string, times: number): Promise<number[]> => {
  const loaded = await loadFamily(folder);
  if (!loaded.ok) throw new Error('the family of the benchmark cannot be read');
  const { family } = loaded;
  const [pack] = await acquirePacks(progress, [`suricata@${engine}`]);
  if (!pack) throw new Error('there is no engine');
  const dir = await mkdtemp(join(tmpdir(), 'sigrel-bench-cell-'));
  const tools = asNew(createMatrixTools(createEngines(progress), dir));
  const found: number[] = [];
  for (let i = 0; i < times; i += 1) {
    const started = performance.now();
    await testFamily(tools, family, [pack.build], { previous: family.rules, from: 'bench' });
    found.push(performance.now() - started);
  }
  await rm(dir, { recursive: true });
  return found;
};

/** One event, hashed, encoded and acknowledged by Kafka, against the same bytes sent by the client alone. */
const benchRecording = async (config: Config) => {
  const kafka = createKafka({ brokers: brokersOf(config), clientId: 'bench', log: silent });
  const producer = createProducer(kafka);
  const { topicPrefix } = config.kafka;
  const { recordEvents } = createRecordActivities({ log: createKafkaEventLog({ kafka, producer, topicPrefix }) });
  const topic = topicName(topicPrefix, 'release.events.v1');
  const ours: number[] = [];
  const bare: number[] = [];
  let prevHash: string | null = null;
  const releaseId = `bench-events-${randomUUID().slice(0, 8)}`;
  for (let seq = 1; seq <= 300; seq += 1) {
    const event: NumberedEvent = {
      ...{ eventId: `${releaseId}#${seq}`, streamId: releaseId, seq, schemaVersion: 1, correlationId: releaseId },
      ...{ occurredAt: new Date().toISOString(), actor: { kind: 'workflow', id: 'bench' }, causationId: null },
      workflow: { workflowId: releaseId, runId: releaseId },
      type: 'BuildStarted',
      data: { sourceDigest: 'a'.repeat(64) },
    };
    const started = performance.now();
    const { headHash } = await recordEvents({ prevHash, events: [event] });
    ours.push(performance.now() - started);
    prevHash = headHash;
    const value = Buffer.alloc(JSON.stringify(event).length + 150, 'x');
    const sent = performance.now();
    await producer.send(topic, [{ key: 'bench-bare', value }]);
    bare.push(performance.now() - sent);
  }
  await producer.close();
  // The first ones open connections.
  return { recorded: distribution(ours.slice(50)), bareSend: distribution(bare.slice(50)) };
};

/** Harmful reports as the broker stamps them, while they arrive. */
const tailHarm = async (config: Config) => {
  const kafka = createKafka({ brokers: brokersOf(config), clientId: 'bench-tail', log: silent });
  const consumer = kafka.consumer({ groupId: `bench-${randomUUID()}`, maxWaitTimeInMs: 100 });
  const harm: { readonly deviceId: string; readonly at: number; readonly contentVersion: number }[] = [];
  await consumer.connect();
  await consumer.subscribe({
    topic: topicName(config.kafka.topicPrefix, 'telemetry.reports.v1'),
    fromBeginning: false,
  });
  await consumer.run({
    autoCommit: false,
    eachBatch: async ({ batch }) => {
      for (const { value, timestamp } of batch.messages) {
        const record: TelemetryRecord = JSON.parse(value?.toString() ?? '{}');
        if (!('report' in record) || record.report.body.kind !== 'blocked-traffic') continue;
        const { deviceId, body } = record.report;
        harm.push({ deviceId, at: Number(timestamp), contentVersion: body.contentVersion });
      }
    },
  });
  return { harm, stop: () => consumer.disconnect() };
};

/** Three harmed canaries in large segments are enough for both keys, two only hold. */
const crossingDevices = 3;

const benchFreeze = async (halts: number) => {
  const config = await fresh('freeze');
  await bringUp(config, progress);
  const api = openApi(config);
  await api.post('/families', { bundle: await bundleFolder(join(examples, 'families', 'ips'), undefined) });
  const file = join(examples, 'demo', 'fleet.yaml');
  const simulator = await simulateFleet(config, { file, family: 'ips', heartbeatMs: 2_000, progress });
  const tail = await tailHarm(config);
  try {
    const fromFirst: number[] = [];
    const fromCrossing: number[] = [];
    for (let i = 0; i < halts; i += 1) {
      progress(`freeze: halt ${i + 1} of ${halts}`);
      const { events, phase } = await release(api, config, join(examples, 'releases', 'blocks-field'), demoPolicy);
      if (phase !== 'halted') throw new Error(`a release that blocks traffic ended as ${phase}`);
      const { frozenAt } = find(events, 'ExposureFrozen').data;
      const { contentVersion } = find(events, 'BuildSucceeded').data;
      const first = new Map<string, number>();
      for (const one of tail.harm) {
        if (one.contentVersion !== contentVersion) continue;
        first.set(one.deviceId, Math.min(one.at, first.get(one.deviceId) ?? one.at));
      }
      const order = [...first.values()].sort((a, b) => a - b);
      const [earliest] = order;
      const crossing = order[crossingDevices - 1];
      if (earliest === undefined || crossing === undefined) throw new Error('the harmful reports were not seen');
      fromFirst.push(frozenAt - earliest);
      fromCrossing.push(frozenAt - crossing);
    }
    return { fromFirst: distribution(fromFirst), fromCrossing: distribution(fromCrossing) };
  } finally {
    await tail.stop();
    await simulator.stop();
    await bringDown(config);
  }
};

/** Measures and prints; returns every figure. */
export const benchPipeline = async (counts: { readonly halts: number; readonly releases: number }): Promise<object> => {
  const { overhead, total, bareCell, event } = await benchOverhead(counts.releases);
  const freeze = await benchFreeze(counts.halts);
  const tickMs = 1_000;
  const result = {
    unit: 'ms',
    overhead: { ...overhead, total, baseline: { name: 'the same cell alone', ...bareCell } },
    recordEvent: {
      ...event.recorded,
      baseline: { name: 'the same bytes sent by kafkajs alone, acks=all', ...event.bareSend },
    },
    freezeFromCrossingReport: { ...freeze.fromCrossing, baseline: { name: 'one tick of the judge', median: tickMs } },
    freezeFromFirstHarmfulReport: { ...freeze.fromFirst, baseline: { name: 'one tick of the judge', median: tickMs } },
  };
  const rows = (
    [
      ['overhead of a release: one cell, no bakes', result.overhead],
      ['recording one event', result.recordEvent],
      ['crossing report to frozen director', result.freezeFromCrossingReport],
      ['first harmful report to frozen director', result.freezeFromFirstHarmfulReport],
    ] as const
  ).map(([what, { n, median, worst, baseline }]) => [
    what,
    String(n),
    median.toFixed(median < 10 ? 1 : 0),
    worst.toFixed(worst < 10 ? 1 : 0),
    (median / baseline.median).toFixed(1),
    baseline.name,
  ]);
  const columns = ['what', 'n', 'median ms', 'worst ms', 'ratio', 'to the baseline'].map((name, index) => ({
    name,
    right: index > 0 && index < 5,
  }));
  out(table(columns, rows));
  return result;
};
