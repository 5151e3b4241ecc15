/**
 * `npm run bench -- load`: how long it takes from the report that crosses the judge's threshold to the frozen director document
 * on disk, while 10,000 signed reports a second come in, with all services in one process and a tick of 250 ms. Whether
 * anything falls behind meanwhile.
 */
import { randomUUID } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { availableParallelism, loadavg } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { stringify } from 'yaml';
import { bringDown, bringUp } from '../../apps/cli/commands/servers.ts';
import { bundleFolder } from '../../apps/cli/content.ts';
import { type Api, brokersOf, checkout, openApi, readStream } from '../../apps/cli/context.ts';
import { out, table } from '../../apps/cli/output.ts';
import { watchRelease } from '../../apps/cli/watch.ts';
import { decodeTelemetry, type Window } from '../../domain/telemetry.ts';
import type { Config } from '../../infra/config.ts';
import { digestOf } from '../../infra/content/digests.ts';
import { acquirePacks } from '../../infra/engines/packs.ts';
import { createKafka, silent } from '../../infra/kafka/client.ts';
import { eachRecord } from '../../infra/kafka/read.ts';
import { partitionsOf, topicName } from '../../infra/kafka/topics.ts';
import { createPool, type Pool } from '../../infra/postgres/pool.ts';
import { readServers, startServers } from '../../infra/servers/local.ts';
import { spawnServer, waitReady } from '../../infra/servers/processes.ts';
import { stderrProgress, step } from '../../infra/servers/progress.ts';
import { readServices } from '../../infra/servers/services-record.ts';
import type { ServiceName } from '../../services/all.ts';
import type { ReleaseStarted } from '../../services/api/contract.ts';
import { type Distribution, deriveFamily, distribution, find, fresh, inInventory, withEnv } from './common.ts';
import type { FamilyPlan, Second } from './fleet/plan.ts';
import { startFleet } from './fleet/process.ts';
import { type Crossing, createHarmReader, findCrossing, type Started } from './load/crossing.ts';
import { aggregatorLag, growthOf, sampleLag, type WrittenWindow } from './load/lag.ts';

export type LoadOptions = {
  readonly halts: number;
  /** The load lasts at least this long. */
  readonly minutes: number;
  readonly devices: number;
  readonly reportsPerSecond: number;
  /** Gateway and aggregator in a process of their own: who takes what the fleet says delays nobody who acts on it. */
  readonly apart: boolean;
};

const progress = stderrProgress();
const tickMs = 250;

/** Releases of different families roll out at the same time; each has devices of its own. */
const families = [
  { example: 'yara', name: 'yara', language: 'yara', modes: ['scan'], engines: ['yara-x@1.20.0'] },
  { example: 'ips', name: 'ips', language: 'suricata', modes: ['ids'], engines: ['suricata@8.0.7'] },
  { example: 'av', name: 'av', language: 'clamav', modes: ['scan'], engines: ['clamav@1.4.6'] },
] as const;

/** The canary is large and stays: a benchmark of halts needs no later stage. HOLD would freeze first; it is out of reach. */
const policyOf = (heartbeatMs: number) => ({
  ...{
    tickMs,
    heartbeatMs,
    firstSilenceMs: 2 * heartbeatMs,
    silenceMs: 2 * heartbeatMs,
    leaseMs: '60s',
    freshTicks: 20,
  },
  judge: { alphaHold: 1e-9 },
  stages: [
    { name: 'canary', kind: 'canary', size: 60, minMs: '5m', minDevices: 8 },
    { name: 'all', kind: 'all', size: 1, minMs: '5m', minDevices: 8 },
  ],
});

type Halt = {
  readonly started: Started;
  readonly tick: number;
  /** Workflow's time of RegressionDetected, ms. */
  readonly detectedAt: number;
  readonly frozenAt: number;
};

/** Measures and prints; `failed`: what the aims are not reached by. */
export const benchLoad = (options: LoadOptions): Promise<Result> =>
  // Read by the services' process, which is started here.
  withEnv('SIGREL_CLOCK_MS', String(tickMs), () => measure(options));

type Result = { readonly figures: object; readonly failed: readonly string[] };

const measure = async (options: LoadOptions): Promise<Result> => {
  const { devices, reportsPerSecond } = options;
  const config = await fresh('load');
  const heartbeatMs = Math.round((1_000 * devices) / reportsPerSecond);
  const dir = join(config.stateDir, 'input');
  if (options.apart) await startApart(config, ['gateway', 'aggregator']);
  await bringUp(config, progress);
  const api = openApi(config);
  const pool = createPool(readServers(config.stateDir).postgres?.address ?? '', 'bench', silent);
  try {
    const folders = new Map<string, string>();
    for (const family of families) {
      const folder = await deriveFamily(dir, family);
      folders.set(family.name, folder);
      await api.post('/families', { bundle: await bundleFolder(folder, undefined) });
    }
    const policy = join(dir, 'policy.yaml');
    await writeFile(policy, stringify(policyOf(heartbeatMs)));
    const { gateway, repository } = readServices(config.stateDir);
    const plans = await familyPlans(devices);
    const fleet = await step(progress, `${devices} devices are heard for the first time`, async () => {
      const started = await startFleet({
        ...{ gatewayUrl: gateway?.url ?? '', repositoryUrl: repository?.url ?? '', stateDir: config.stateDir },
        ...{ families: plans, heartbeatMs, batch: 200, seed: 'load' },
        rates: { crash: 0, 'blocked-traffic': 0, 'update-failure': 0 },
        silence: { perHeartbeat: 0, heartbeats: 0 },
      });
      await inInventory(pool, plans);
      return started;
    });
    fleet.harm({ kind: 'blocks' });
    const kafka = createKafka({ brokers: brokersOf(config), clientId: 'bench', log: silent });
    // What a cell is tested for the first time takes some ten seconds, with every core: not part of what is measured.
    await Promise.all(families.map(({ name }) => halted(config, api, folders.get(name) ?? '', policy)));
    const lag = await sampleLag(kafka, pool, config.kafka.topicPrefix);
    const first = fleet.seconds.length;
    const began = Date.now();
    const loadBefore = loadavg()[0];
    const halts: Halt[] = [];
    let begun = 0;
    try {
      await Promise.all(
        families.map(async ({ name }) => {
          while (begun < options.halts) {
            begun += 1;
            progress(`halt ${begun} of ${options.halts}`);
            halts.push(await halted(config, api, folders.get(name) ?? '', policy));
          }
        }),
      );
      await sleep(Math.max(0, began + options.minutes * 60_000 - Date.now()));
    } finally {
      await lag.stop();
    }
    const seconds = fleet.seconds.slice(first);
    await fleet.stop();
    const { crossings, windows } = await step(progress, 'the log once more, for the reports that crossed', () =>
      recompute(config, halts),
    );
    const decided = await decidedAt(pool);
    const behind = aggregatorLag(lag.samples, windows);
    return report(options, {
      ...{ halts, crossings, windows, decided, seconds, loadBefore, loadAfter: loadavg()[0] },
      aggregator: behind.map(({ records }) => records),
      judge: lag.samples.map(({ judge }) => judge),
    });
  } finally {
    await pool.end();
    await bringDown(config);
  }
};

/** Some services in a process of their own, before `bringUp` starts the others. */
const startApart = async (config: Config, names: readonly ServiceName[]): Promise<void> => {
  const given = { temporal: config.temporal.address, kafka: config.kafka.brokers, postgres: config.postgres.url };
  await startServers({ stateDir: config.stateDir, given, namespaces: [config.temporal.namespace], progress });
  const log = join(config.stateDir, 'logs', 'services-apart.log');
  const { identity } = spawnServer(
    process.execPath,
    [join(checkout, 'services', 'main.ts'), '--only', names.join(',')],
    { log, env: { ...process.env, SIGREL_STATE_DIR: config.stateDir } },
  );
  const recorded = async () => names.every((name) => readServices(config.stateDir)[name]);
  await waitReady(names.join(' and '), identity, log, recorded, 120_000);
};

const familyPlans = async (devices: number): Promise<readonly FamilyPlan[]> => {
  const packs = await acquirePacks(
    progress,
    families.flatMap(({ engines }) => engines),
  );
  return families.map(({ name, engines }): FamilyPlan => {
    const pack = packs.find(({ build, wanted }) => engines.some((engine) => engine === `${build.name}@${wanted}`));
    if (!pack) throw new Error(`there is no engine ${engines.join(', ')}`);
    const segments = (['fail-open', 'fail-closed'] as const).map((failMode) => ({
      ...{ engine: pack.build, failMode, share: 0.5 },
    }));
    return { family: name, devices: Math.round(devices / families.length), segments };
  });
};

const halted = async (config: Config, api: Api, folder: string, policy: string): Promise<Halt> => {
  const bundle = await bundleFolder(folder, policy);
  const { releaseId } = await api.post<ReleaseStarted>('/releases', {
    ...{ bundle, releaseId: `bench-${randomUUID().slice(0, 8)}`, requestedBy: 'bench', note: '' },
  });
  const { state } = await watchRelease(api, releaseId, { timeoutMs: 300_000, justStarted: true, show: () => {} });
  if (state?.phase !== 'halted') throw new Error(`a release that blocks traffic ended as ${state?.phase ?? 'unknown'}`);
  const { events } = await readStream(config, releaseId);
  const detected = find(events, 'RegressionDetected');
  const { contentVersion } = find(events, 'BuildSucceeded').data;
  const startedAt = Date.parse(state.rollout?.startedAt ?? '');
  return {
    started: { releaseId, contentVersion, startedAt, tickMs },
    tick: detected.data.tick,
    detectedAt: Date.parse(detected.occurredAt),
    frozenAt: find(events, 'ExposureFrozen').data.frozenAt,
  };
};

/** Both logs from their beginning: which report crossed, and when each window was written. */
const recompute = async (config: Config, halts: readonly Halt[]) => {
  const kafka = createKafka({ brokers: brokersOf(config), clientId: 'bench', log: silent });
  const nameOf = (topic: Parameters<typeof topicName>[1]) => topicName(config.kafka.topicPrefix, topic);
  const readMs = { timeoutMs: 1_800_000 };
  const reader = createHarmReader(halts.map(({ started }) => started));
  await eachRecord(
    kafka,
    nameOf('telemetry.reports.v1'),
    { ...readMs, whole: true },
    ({ partition, offset, appendedAt, value }) =>
      reader.take(partition, Number(offset), appendedAt, decodeTelemetry(value)),
  );
  const windows: WrittenWindow[] = [];
  await eachRecord(kafka, nameOf('telemetry.windows.v1'), { ...readMs, whole: true }, ({ appendedAt, value }) => {
    const window: Window = JSON.parse(new TextDecoder().decode(value));
    windows.push({ window, appendedAt });
  });
  const byRelease = Map.groupBy(windows, ({ window }) => window.releaseId);
  const crossings = halts.map(({ started, tick }) => {
    const own = (byRelease.get(started.releaseId) ?? []).map(({ window }) => window);
    const crossing = findCrossing(started, own, reader.harmOf(started.releaseId), digestOf);
    if (crossing.tick === tick) return crossing;
    throw new Error(`${started.releaseId} was halted at tick ${tick}; its log gives tick ${crossing.tick}`);
  });
  return { crossings, windows };
};

const decidedAt = async (pool: Pool): Promise<ReadonlyMap<string, number>> => {
  const { rows } = await pool.query<{ release_id: string; decided_at: Date }>(
    `select release_id, decided_at from decisions where kind = 'halt'`,
  );
  return new Map(rows.map((row) => [row.release_id, row.decided_at.getTime()]));
};

// ---- what is said

type Measured = {
  readonly halts: readonly Halt[];
  readonly crossings: readonly Crossing[];
  readonly windows: readonly WrittenWindow[];
  readonly decided: ReadonlyMap<string, number>;
  readonly seconds: readonly Second[];
  readonly loadBefore: number | undefined;
  readonly loadAfter: number | undefined;
  readonly aggregator: readonly number[];
  readonly judge: readonly number[];
};

const aimMs = 1_000;

const report = (options: LoadOptions, measured: Measured) => {
  const { halts, crossings, seconds, aggregator, judge } = measured;
  const spans = spansOf(measured);
  const total = spans.find(({ name }) => name === inAll)?.ms ?? distribution([]);
  const baseline = { name: 'half a tick: what a fold at ticks costs by itself', median: tickMs / 2 };
  out(
    table(
      ['from the crossing report to the frozen document', 'n', 'median ms', 'p99 ms', 'worst ms'].map(
        (name, index) => ({
          name,
          right: index > 0,
        }),
      ),
      spans.map(({ name, ms }) => [
        name,
        String(ms.n),
        ...[ms.median, ms.p99, ms.worst].map((value) => value.toFixed(0)),
      ]),
    ),
  );
  const accepted = seconds.map((second) => second.accepted);
  const rate = accepted.reduce((a, b) => a + b, 0) / Math.max(1, accepted.length);
  const lost = seconds.reduce((sum, { failed, skipped, refused }) => sum + failed + skipped + refused, 0);
  const answers = distribution(seconds.map(({ answerMs }) => answerMs.median));
  const ofTick = (options.reportsPerSecond * tickMs) / 1_000;
  const lags = [
    { name: 'aggregator, records', ...growthOf(aggregator), worst: Math.max(0, ...aggregator), allowed: 2 * ofTick },
    {
      name: 'judge, windows',
      ...growthOf(judge),
      worst: Math.max(0, ...judge),
      allowed: 2 * partitionsOf('telemetry.reports.v1') * families.length,
    },
  ];
  out(
    table(
      ['behind the log', 'first quarter', 'last quarter', 'worst'].map((name, index) => ({ name, right: index > 0 })),
      lags.map(({ name, first, last, worst }) => [name, first.toFixed(0), last.toFixed(0), worst.toFixed(0)]),
    ),
  );
  const minutes = seconds.length / 60;
  out(
    `${rate.toFixed(0)} reports/s accepted over ${minutes.toFixed(1)} min from ${options.devices} devices, answered in ${answers.median.toFixed(0)} ms; ${lost} refused, failed or not sent; load of the machine ${measured.loadBefore?.toFixed(1)} before, ${measured.loadAfter?.toFixed(1)} after`,
  );
  const failed = [
    ...(total.p99 > aimMs ? [`p99 is ${total.p99.toFixed(0)} ms, aim ${aimMs} ms`] : []),
    ...(rate < 0.98 * options.reportsPerSecond
      ? [`${rate.toFixed(0)} reports/s, asked for ${options.reportsPerSecond}`]
      : []),
    ...lags
      .filter(({ first, last, allowed }) => last > first + allowed)
      .map(({ name, first, last }) => `the lag of the ${name} grew from ${first.toFixed(0)} to ${last.toFixed(0)}`),
  ];
  for (const why of failed) out(`not reached: ${why}`);
  const figures = {
    unit: 'ms',
    ...{ tickMs, devices: options.devices, minutes, cores: availableParallelism(), apart: options.apart },
    freezeFromCrossingReport: {
      ...total,
      baseline,
      spans: Object.fromEntries(spans.map(({ name, ms }) => [name, ms])),
    },
    reports: { perSecond: rate, asked: options.reportsPerSecond, lost, answerMs: answers, seconds: accepted },
    lag: { growth: lags, aggregator, judge },
    halts: halts.map((halt, index) => ({ ...halt, crossing: crossings[index] })),
    machineLoad: { before: measured.loadBefore, after: measured.loadAfter },
    failed,
  };
  return { figures, failed };
};

const inAll = 'in all';

/** Where the time goes. */
const spansOf = ({ halts, crossings, windows, decided }: Measured) => {
  const written = Map.groupBy(windows, ({ window }) => `${window.releaseId} ${window.tick}`);
  const rows = halts.flatMap(({ started, tick, detectedAt, frozenAt }, index) => {
    const crossing = crossings[index];
    const decision = decided.get(started.releaseId);
    if (!crossing || decision === undefined) return [];
    const windowsAt = Math.max(
      ...(written.get(`${started.releaseId} ${tick}`) ?? []).map(({ appendedAt }) => appendedAt),
    );
    return [
      { crossed: crossing.report.appendedAt, tickEnd: crossing.tickEnd, windowsAt, decision, detectedAt, frozenAt },
    ];
  });
  const span = (name: string, of: (row: (typeof rows)[number]) => number): { name: string; ms: Distribution } => ({
    name,
    ms: distribution(rows.map(of)),
  });
  return [
    span(inAll, (row) => row.frozenAt - row.crossed),
    span('after the end of its tick', (row) => row.frozenAt - row.tickEnd),
    span('  crossing report to the end of its tick', (row) => row.tickEnd - row.crossed),
    span('  to the windows of all partitions', (row) => row.windowsAt - row.tickEnd),
    span('  to the decision of the judge', (row) => row.decision - row.windowsAt),
    span('  to the workflow that has it', (row) => row.detectedAt - row.decision),
    span('  to the frozen document on disk', (row) => row.frozenAt - row.detectedAt),
  ];
};
