/**
 * `npm run bench -- aggregate`: what the aggregator costs. Memory per device of a fleet of a million, in a process of its own;
 * and reports to windows on real Kafka and PostgreSQL, beside kafkajs alone consuming and parsing the same records.
 */
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { ConsumerConfig, Kafka } from 'kafkajs';
import { checkout, openConfig } from '../../apps/cli/context.ts';
import { out, table } from '../../apps/cli/output.ts';
import { bucketSpace } from '../../domain/exposure.ts';
import { defaultPolicy } from '../../domain/policy.ts';
import { type EngineBuild, engineId, segmentKey } from '../../domain/release.ts';
import { reportsPerRequest, type Window } from '../../domain/telemetry.ts';
import { bucketOf } from '../../infra/cohort.ts';
import { createKafka, silent } from '../../infra/kafka/client.ts';
import { createTelemetryLog } from '../../infra/kafka/telemetry-log.ts';
import { createTopics, partitionsOf, topicName } from '../../infra/kafka/topics.ts';
import { migrate } from '../../infra/postgres/migrate.ts';
import { createPool, type Pool } from '../../infra/postgres/pool.ts';
import { discardServers, startServers } from '../../infra/servers/local.ts';
import { stderrProgress } from '../../infra/servers/progress.ts';
import { startAggregator } from '../../services/aggregator.ts';
import { median } from './median.ts';

const progress = stderrProgress();

type Memory = {
  readonly devices: number;
  readonly bytes: number;
  readonly bytesPerDevice: number;
  readonly tickMs: number;
  readonly snapshotMs: number;
  readonly snapshotBytesPerDevice: number;
};

const benchMemory = async (devices: number): Promise<Memory> => {
  progress(`memory: ${devices} devices`);
  const program = join(checkout, 'test', 'bench', 'aggregate', 'memory.ts');
  const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', program, String(devices)]);
  return JSON.parse(stdout);
};

const engine: EngineBuild = { name: 'ids', version: '8.0.7', packageVersion: '1:8.0.7-1', digest: 'ab'.repeat(32) };
const threshold = Math.floor(0.05 * bucketSpace);
/** Of the throughput. */
const devices = 20_000;
const heartbeats = 20;
/** Beside the reports: opening, and the clock records that close the last tick. */
const controls = 3;
const policy = { ...defaultPolicy, tickMs: 1_000 };

/** `lastTick`: its windows cover the last of the reports. */
type WrittenLog = { readonly records: number; readonly lastTick: number };

/** A fleet that polls, 5 % of it served, between the opening of a release and the end of the last tick. */
const writeLog = async (kafka: Kafka, prefix: string): Promise<WrittenLog> => {
  const telemetry = createTelemetryLog(kafka, prefix, 60_000);
  const stage = { kind: 'stage-opened', releaseId: 'r1', family: 'ips', stage: 0, salt: 'salt' } as const;
  const thresholds = { [segmentKey(engineId(engine), 'fail-open')]: threshold };
  const versions = { contentVersion: 2, rollbackVersion: 3 };
  const startedAt = Date.now();
  await telemetry.control({ ...stage, ...versions, thresholds, policy, startedAt });
  for (let beat = 1; beat <= heartbeats; beat += 1) {
    progress(`throughput: writing heartbeat ${beat} of ${heartbeats}`);
    for (let at = 0; at < devices; at += reportsPerRequest) {
      const reports = Array.from({ length: Math.min(reportsPerRequest, devices - at) }, (_, index) => {
        const deviceId = `device-${String(at + index).padStart(7, '0')}`;
        const served = beat === 2 && bucketOf('salt', deviceId) < threshold;
        const offer = served ? { releaseId: 'r1', contentVersion: 2 } : null;
        const body = {
          kind: 'poll',
          engine,
          failMode: 'fail-open',
          contentVersion: 1,
          directorVersion: 1,
          offer,
        } as const;
        return { deviceId, sequence: 1_800_000_000_000 + beat, body };
      });
      await telemetry.append(reports);
    }
  }
  const lastTick = Math.floor((Date.now() - startedAt) / policy.tickMs);
  await telemetry.control({ kind: 'clock' });
  await sleep(2 * policy.tickMs);
  await telemetry.control({ kind: 'clock' });
  await telemetry.close();
  return { records: devices * heartbeats + controls * partitionsOf('telemetry.reports.v1'), lastTick };
};

/** From the moment in which the consumer has its partitions. */
type Run = { readonly records: number; readonly ms: number; readonly cpuMs: number };
type Stopwatch = { start(): void; stop(): Run };

const stopwatch = (records: number): Stopwatch => {
  let since = 0;
  let cpu = process.cpuUsage();
  return {
    start: () => {
      since = performance.now();
      cpu = process.cpuUsage();
    },
    stop: () => {
      const { user, system } = process.cpuUsage(cpu);
      return { records, ms: performance.now() - since, cpuMs: (user + system) / 1000 };
    },
  };
};

/** The same client, whose consumers start the watch when they join. */
const watched = (kafka: Kafka, watch: Stopwatch): Kafka =>
  Object.create(kafka, {
    consumer: {
      value: (config: ConsumerConfig) => {
        const consumer = kafka.consumer(config);
        consumer.on(consumer.events.GROUP_JOIN, watch.start);
        return consumer;
      },
    },
  });

/** kafkajs as the services use it, and JSON.parse. */
const runBaseline = async (kafka: Kafka, prefix: string, records: number): Promise<Run> => {
  const watch = stopwatch(records);
  const consumer = watched(kafka, watch).consumer({ groupId: `baseline-${randomUUID()}`, maxWaitTimeInMs: 100 });
  await consumer.connect();
  await consumer.subscribe({ topic: topicName(prefix, 'telemetry.reports.v1'), fromBeginning: true });
  let seen = 0;
  const run = await new Promise<Run>((resolve) => {
    void consumer.run({
      ...{ autoCommit: false, partitionsConsumedConcurrently: 12 },
      eachBatch: async ({ batch }) => {
        for (const { value } of batch.messages) {
          const record: unknown = JSON.parse(value?.toString() ?? '');
          if (typeof record === 'object' && record !== null) seen += 1;
        }
        if (seen >= records) resolve(watch.stop());
      },
    });
  });
  await consumer.disconnect();
  return run;
};

/** The aggregator as it is, from nothing, until the last window of every partition is in Kafka. */
const runAggregator = async (kafka: Kafka, pool: Pool, prefix: string, { records, lastTick }: WrittenLog) => {
  await pool.query('delete from aggregator_snapshots');
  const watch = stopwatch(records);
  const windows = await waitForWindows(kafka, prefix, lastTick);
  const options = { pool, topicPrefix: prefix, log: silent, snapshotEveryMs: 30_000 };
  const aggregator = await startAggregator({ kafka: watched(kafka, watch), ...options });
  await windows.complete;
  const run = watch.stop();
  await aggregator.stop();
  await windows.stop();
  return run;
};

/** Of every partition the window of `lastTick`, written from now on. */
const waitForWindows = async (kafka: Kafka, prefix: string, lastTick: number) => {
  const topic = topicName(prefix, 'telemetry.windows.v1');
  const admin = kafka.admin();
  await admin.connect();
  const ends = new Map((await admin.fetchTopicOffsets(topic)).map(({ partition, high }) => [partition, Number(high)]));
  await admin.disconnect();
  const consumer = kafka.consumer({ groupId: `windows-${randomUUID()}`, maxWaitTimeInMs: 20 });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  const joined = new Promise<void>((resolve) => consumer.on(consumer.events.GROUP_JOIN, () => resolve()));
  const ended = new Set<number>();
  const complete = new Promise<void>((resolve) => {
    void consumer.run({
      autoCommit: false,
      eachMessage: async ({ partition, message }) => {
        if (Number(message.offset) < (ends.get(partition) ?? 0)) return;
        const window: Window = JSON.parse(message.value?.toString() ?? '');
        if (window.tick === lastTick) ended.add(window.partition);
        if (ended.size === partitionsOf('telemetry.reports.v1')) resolve();
      },
    });
  });
  await joined;
  return { complete, stop: () => consumer.disconnect() };
};

const perSecond = (runs: readonly Run[], of: (run: Run) => number): number =>
  median(runs.map((run) => (run.records * 1000) / of(run)));

const benchThroughput = async (stateDir: string, rounds: number) => {
  await discardServers(stateDir);
  // No workflow takes part.
  const servers = await startServers({ stateDir, given: { temporal: 'none' }, progress });
  const kafka = createKafka({ brokers: servers.kafka.brokers, clientId: 'bench', log: silent });
  const pool = createPool(servers.postgres.url, 'bench', silent);
  try {
    const prefix = 'bench.';
    await migrate(pool, silent);
    await createTopics(kafka, prefix, silent);
    const written = await writeLog(kafka, prefix);
    const baseline: Run[] = [];
    const ours: Run[] = [];
    // The first round of both warms up the machine code.
    for (let round = 0; round <= rounds; round += 1) {
      progress(`throughput: round ${round} of ${rounds}`);
      const bare = await runBaseline(kafka, prefix, written.records);
      const run = await runAggregator(kafka, pool, prefix, written);
      if (round === 0) continue;
      baseline.push(bare);
      ours.push(run);
    }
    return { records: written.records, baseline, ours };
  } finally {
    await pool.end();
    await servers.stop();
    await discardServers(stateDir);
    await rm(stateDir, { recursive: true, force: true });
  }
};

const aims = { memoryMb: 300, share: 0.6 };

/** Measures and prints; `failed`: the aims that are not reached. */
export const benchAggregate = async (): Promise<{ readonly figures: object; readonly failed: readonly string[] }> => {
  const memory = await benchMemory(1_000_000);
  const { records, baseline, ours } = await benchThroughput(
    join(openConfig(undefined).stateDir, 'bench', 'aggregate'),
    5,
  );
  const wall = (run: Run) => run.ms;
  const core = (run: Run) => run.cpuMs;
  const figures = {
    memory,
    throughput: {
      records,
      perSecond: perSecond(ours, wall),
      perCoreSecond: perSecond(ours, core),
      share: perSecond(ours, wall) / perSecond(baseline, wall),
      shareOfCore: perSecond(ours, core) / perSecond(baseline, core),
      baseline: {
        name: 'kafkajs consuming and JSON.parse of the same records',
        perSecond: perSecond(baseline, wall),
        perCoreSecond: perSecond(baseline, core),
      },
      runs: { ours, baseline },
    },
  };
  const { throughput } = figures;
  const percent = (share: number) => `${(share * 100).toFixed(0)} %`;
  const round = (value: number) => value.toFixed(0);
  out(
    table(
      [{ name: 'what' }, { name: 'figure', right: true }, { name: 'baseline', right: true }, { name: 'limit' }],
      [
        [
          `memory of ${memory.devices.toLocaleString('en')} devices, MB`,
          round(memory.bytes / 1e6),
          ...['', `<= ${aims.memoryMb}`],
        ],
        ['bytes per device', round(memory.bytesPerDevice), '', ''],
        ['one tick of all of them, ms of a core', memory.tickMs.toFixed(1), '', ''],
        ['snapshot of one partition on the event loop, ms of a core', memory.snapshotMs.toFixed(1), '', ''],
        [
          'reports to windows per second of a core',
          round(throughput.perCoreSecond),
          round(throughput.baseline.perCoreSecond),
          '',
        ],
        [
          'share of the baseline, per second of a core',
          percent(throughput.shareOfCore),
          '',
          `>= ${percent(aims.share)}`,
        ],
        ['reports to windows per second', round(throughput.perSecond), round(throughput.baseline.perSecond), ''],
        ['share of the baseline, per second', percent(throughput.share), '', `>= ${percent(aims.share)}`],
      ],
    ),
  );
  const missed = (what: string, share: number) =>
    share >= aims.share ? [] : [`${what}: ${percent(share)} of the baseline, aim ${percent(aims.share)}`];
  const failed = [
    ...(memory.bytes <= aims.memoryMb * 1e6 ? [] : [`${round(memory.bytes / 1e6)} MB, aim ${aims.memoryMb}`]),
    ...missed('per second of a core', throughput.shareOfCore),
    ...missed('per second', throughput.share),
  ];
  for (const why of failed) out(`not reached: ${why}`);
  return { figures: { ...figures, failed }, failed };
};
