/**
 * `npm run bench -- gateway`: how many reports per second the gateway checks, puts durably into a real Kafka and answers, in
 * batches of 100 over open connections, beside kafkajs alone producing the same records in the same process and run. Broker,
 * gateway and load share the machine, each a process of its own.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Kafka, Producer } from 'kafkajs';
import { note, out, table } from '../../apps/cli/output.ts';
import { createKafka, keyPartitioner, silent } from '../../infra/kafka/client.ts';
import { createTelemetryLog } from '../../infra/kafka/telemetry-log.ts';
import { createTopics, topicName } from '../../infra/kafka/topics.ts';
import { createMemoryAcknowledgements } from '../../infra/memory/acknowledgements.ts';
import { createMemorySites } from '../../infra/memory/sites.ts';
import { discardServers, startServers } from '../../infra/servers/local.ts';
import type { Progress } from '../../infra/servers/progress.ts';
import { type GatewayStatus, startGateway } from '../../services/gateway.ts';
import { heartbeatOf, type Load, type LoadDone } from './gateway/relay.ts';
import { median } from './median.ts';

export type GatewayBenchOptions = { readonly reports: number; readonly rounds: number };

const aim = 20_000;
const devices = 10_000;
const perBatch = 100;
const connections = 16;
/** As the gateway's own log hands them to kafkajs under load. */
const recordsPerSend = 4_000;
const topic = 'telemetry.reports.v1';

type Measured = { readonly perSecond: number; readonly cpuUsPerReport: number };
type Round = {
  readonly baseline: Measured;
  readonly gateway: Measured & {
    readonly load: Omit<LoadDone, 'latencies'>;
    readonly p50Ms: number;
    readonly p99Ms: number;
  };
  readonly status: GatewayStatus;
};

/** `failed`: below the aim in the median round, or a report without its answer. */
export const benchGateway = async (
  options: GatewayBenchOptions,
  progress: Progress,
): Promise<{ readonly figures: object; readonly failed: readonly string[] }> => {
  const stateDir = await mkdtemp(join(tmpdir(), 'sigrel-bench-gateway-'));
  const given = { temporal: '127.0.0.1:1', postgres: 'postgres://nobody@127.0.0.1:1/none' }; // nothing asks them
  const relay = fork(join(import.meta.dirname, 'gateway', 'relay.ts'));
  const loadBefore = loadavg()[0] ?? 0;
  try {
    const servers = await startServers({ stateDir, given, progress });
    const kafka = createKafka({ brokers: servers.kafka.brokers, clientId: 'bench', log: silent });
    const rounds: Round[] = [];
    await runRound(kafka, relay, { ...options, reports: Math.min(options.reports, 50_000) }); // everything compiled and connected
    for (let round = 1; round <= options.rounds; round += 1) {
      progress(`round ${round} of ${options.rounds}: ${options.reports} reports`);
      rounds.push(await runRound(kafka, relay, options));
    }
    return report(rounds, options, loadBefore);
  } finally {
    relay.kill();
    await discardServers(stateDir);
    await rm(stateDir, { recursive: true, force: true });
  }
};

const runRound = async (kafka: Kafka, relay: ChildProcess, options: GatewayBenchOptions): Promise<Round> => {
  const prefix = `bench-${randomUUID().slice(0, 8)}.`;
  await createTopics(kafka, prefix, silent);
  const fleetKey = randomBytes(32);
  const telemetry = createTelemetryLog(kafka, prefix);
  const gateway = await startGateway({
    ...{ telemetry, port: 0, clockMs: 1_000, ackMs: 10_000, log: silent },
    keys: async () => [{ epoch: 1, key: fleetKey, acceptedUntil: null }],
    revoked: async () => new Map(),
    sites: createMemorySites(),
    acknowledgements: createMemoryAcknowledgements(),
    offers: async () => () => 60_000,
    // A long run compressed into seconds: here a device says more per second than any real one.
    limits: { deviceRate: { perSecond: 1_000, burst: 10_000 } },
  });
  try {
    const load: Load = {
      ...{ url: gateway.url, fleetKey: fleetKey.toString('hex'), devices, perBatch, connections },
      ...{ batches: Math.ceil(options.reports / perBatch), sequence: Date.now() },
    };
    const baseline = await produceAlone(kafka, prefix, load);
    relay.send(load);
    await heard(relay);
    const cpu = process.cpuUsage();
    relay.send('go');
    const [{ latencies, ...done }] = (await heard(relay)) as [LoadDone];
    const sorted = latencies.toSorted((a, b) => a - b);
    const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
    return {
      baseline,
      gateway: {
        ...measured(load.batches * perBatch, done.wallMs, cpu),
        ...{ load: done, p50Ms: at(0.5), p99Ms: at(0.99) },
      },
      status: gateway.status(),
    };
  } finally {
    await gateway.stop();
    await telemetry.close();
    await removeTopics(kafka, prefix);
  }
};

/** What the relay says next. Rejects when it ends instead. */
const heard = async (relay: ChildProcess): Promise<unknown[]> => {
  const over = new AbortController();
  const ended = async (): Promise<never> => {
    if (relay.exitCode === null && relay.signalCode === null) await once(relay, 'exit', { signal: over.signal });
    throw new Error(`the relay's process ended with ${relay.signalCode ?? relay.exitCode}`);
  };
  try {
    return await Promise.race([once(relay, 'message', { signal: over.signal }), ended()]);
  } finally {
    over.abort();
  }
};

/** The same records, written as text before the time runs, by kafkajs in this process. */
const produceAlone = async (kafka: Kafka, prefix: string, load: Load): Promise<Measured> => {
  const records = load.batches * load.perBatch;
  const messages = Array.from({ length: records }, (_, index) => {
    const report = heartbeatOf(index % devices, load.sequence + Math.floor(index / devices));
    return { key: report.deviceId, value: JSON.stringify({ report }) };
  });
  const producer: Producer = kafka.producer({ createPartitioner: keyPartitioner, allowAutoTopicCreation: false });
  await producer.connect();
  const cpu = process.cpuUsage();
  const started = performance.now();
  for (let at = 0; at < messages.length; at += recordsPerSend) {
    await producer.send({
      topic: topicName(prefix, topic),
      acks: -1,
      messages: messages.slice(at, at + recordsPerSend),
    });
  }
  const found = measured(records, performance.now() - started, cpu);
  await producer.disconnect();
  return found;
};

const measured = (reports: number, wallMs: number, before: NodeJS.CpuUsage): Measured => {
  const used = process.cpuUsage(before);
  return { perSecond: (1_000 * reports) / wallMs, cpuUsPerReport: (used.user + used.system) / reports };
};

const removeTopics = async (kafka: Kafka, prefix: string): Promise<void> => {
  const admin = kafka.admin();
  await admin.connect();
  const topics = (await admin.listTopics()).filter((name) => name.startsWith(prefix));
  await admin.deleteTopics({ topics });
  await admin.disconnect();
};

const report = (rounds: readonly Round[], options: GatewayBenchOptions, loadBefore: number) => {
  const gateway = median(rounds.map((round) => round.gateway.perSecond));
  const baseline = median(rounds.map((round) => round.baseline.perSecond));
  const sent = Math.ceil(options.reports / perBatch) * perBatch;
  const unanswered = rounds.filter(({ gateway: { load }, status }) => {
    const { received, accepted } = status.reports;
    const all = sent + devices; // each was heard once before the time began to run
    return load.answers.accepted !== sent || accepted !== all || received !== all;
  }).length;
  const row = (name: string, of: (round: Round) => number, digits = 0): string[] => {
    const values = rounds.map(of);
    return [name, ...[median(values), Math.min(...values), Math.max(...values)].map((value) => value.toFixed(digits))];
  };
  out(
    table(
      [
        { name: `${rounds.length} rounds of ${sent} reports in batches of ${perBatch}` },
        ...['median', 'least', 'most'].map((name) => ({ name, right: true })),
      ],
      [
        row('gateway, reports per second', (round) => round.gateway.perSecond),
        row('kafkajs alone, records per second', (round) => round.baseline.perSecond),
        row('gateway of kafkajs alone, %', (round) => (100 * round.gateway.perSecond) / round.baseline.perSecond),
        row('gateway, processor time per report (us)', (round) => round.gateway.cpuUsPerReport, 1),
        row('kafkajs alone, processor time per record (us)', (round) => round.baseline.cpuUsPerReport, 1),
        row('answer to a batch, median (ms)', (round) => round.gateway.p50Ms, 1),
        row('answer to a batch, 99th percentile (ms)', (round) => round.gateway.p99Ms, 1),
      ],
    ),
  );
  const failed = [
    ...(gateway < aim ? [`${Math.round(gateway)} reports per second, aim ${aim}`] : []),
    ...(unanswered > 0 ? [`in ${unanswered} rounds not every report was accepted`] : []),
  ];
  note(`aim: at least ${aim} reports per second; ${failed.length === 0 ? 'reached' : failed.join('; ')}`);
  const cores = availableParallelism();
  return { figures: { aim, gateway, baseline, cores, loadBefore, options, rounds, failed }, failed };
};
