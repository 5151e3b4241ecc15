/** The whole pipeline for tests: all services in this process on the test run's servers, and a small simulated fleet. */
import { randomUUID } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import pg from 'pg';
import { inject } from 'vitest';
import { parse, stringify } from 'yaml';
import { bundleFolder } from '../../apps/cli/content.ts';
import { type Api, openApi } from '../../apps/cli/context.ts';
import { watchRelease } from '../../apps/cli/watch.ts';
import { readFleetFile } from '../../apps/simulator/fleet-file.ts';
import { readTrustedRoot, type Simulator, startSimulator } from '../../apps/simulator/simulator.ts';
import type { ReleaseState } from '../../domain/release-state.ts';
import { type StreamReport, verifyStream } from '../../events/verify.ts';
import { type Config, readConfig } from '../../infra/config.ts';
import { readKeyRing } from '../../infra/device-auth.ts';
import { acquirePacks, packsOf } from '../../infra/engines/packs.ts';
import { createKafka, silent } from '../../infra/kafka/client.ts';
import { createKafkaEventLog } from '../../infra/kafka/event-log.ts';
import { createProducer } from '../../infra/kafka/produce.ts';
import { createLog } from '../../infra/logging.ts';
import { forgetServices, readServices, recordServices } from '../../infra/servers/services-record.ts';
import { keysDirOf, type RunningServices, type ServiceName, startServices, storeDirOf } from '../../services/all.ts';
import type { ReleaseStarted } from '../../services/api/contract.ts';
import { cleanUp } from './clean-up.ts';
import { patient } from './patience.ts';

export const examples = join(import.meta.dirname, '..', '..', 'examples');

/** The demo's plan, quicker: what a test waits for is a condition, and these are only how often it is looked at. */
export const quickPolicy = {
  tickMs: '500ms',
  heartbeatMs: '1s',
  firstSilenceMs: '4s',
  silenceMs: '4s',
  leaseMs: '3s',
  freshTicks: 6,
  stages: [
    { name: 'canary', kind: 'canary', size: 8, minMs: '1s', minDevices: 8 },
    { name: '50 %', kind: 'share', size: 0.5, minMs: '1s', minDevices: 20 },
    { name: 'holdback', kind: 'all', size: 1, minMs: '1s', minDevices: 20 },
  ],
};

export type Pipeline = {
  readonly config: Config;
  /** Environment of a process of this pipeline. */
  readonly env: Readonly<Record<string, string>>;
  readonly api: Api;
  readonly policyFile: string;
  readonly simulator: Simulator;
  readonly services: RunningServices;
  /** Starts a release of an example, or of a folder by its absolute path; throws what the api refuses. `policy`: changes of the quick one. */
  readonly release: (example: string, id: string, policy?: object) => Promise<string>;
  /** Waits until the release has ended or `until` holds. Throws when it has lost patience. */
  readonly wait: (releaseId: string, until?: (state: ReleaseState) => boolean) => Promise<ReleaseState>;
  /** The stream as Kafka has it. */
  readonly stream: (releaseId: string) => Promise<StreamReport>;
  stop(): Promise<void>;
};

/** Addresses: servers of the test's own. `only`: services in this process; the others are the test's. */
export type PipelineOptions = {
  readonly namespace: string;
  readonly devices: number;
  readonly temporalAddress?: string;
  readonly kafkaBrokers?: readonly string[];
  readonly postgresUrl?: string;
  readonly only?: readonly ServiceName[];
  /** On top of the environment of every process. */
  readonly env?: Readonly<Record<string, string>>;
  /** Called when the services of this process run and before the fleet is enrolled. */
  readonly beforeFleet?: (env: Readonly<Record<string, string>>) => Promise<void>;
};

/** Leaves nothing behind when it fails. */
export const startPipeline = async (options: PipelineOptions): Promise<Pipeline> => {
  /** What ends what was begun, the last first. */
  const ends: (() => unknown)[] = [];
  const stop = () => cleanUp(ends.toReversed());
  try {
    return { ...(await begin(options, ends)), stop };
  } catch (error) {
    await stop().catch(() => {}); // what it failed for is the reason
    throw error;
  }
};

const begin = async (options: PipelineOptions, ends: (() => unknown)[]): Promise<Omit<Pipeline, 'stop'>> => {
  const stateDir = await mkdtemp(join(tmpdir(), 'sigrel-pipeline-'));
  ends.push(() => rm(stateDir, { recursive: true, force: true }));
  const brokers = options.kafkaBrokers ?? inject('kafkaBrokers');
  const database = `pipeline_${randomUUID().replaceAll('-', '')}`;
  const serverUrl = options.postgresUrl ?? inject('postgresUrl');
  await administer(serverUrl, `create database ${database}`);
  ends.push(() => administer(serverUrl, `drop database ${database} with (force)`));
  const postgres = new URL(serverUrl);
  postgres.pathname = `/${database}`;
  const env = {
    SIGREL_STATE_DIR: stateDir,
    SIGREL_TEMPORAL_ADDRESS: options.temporalAddress ?? inject('temporalAddress'),
    SIGREL_TEMPORAL_NAMESPACE: options.namespace,
    SIGREL_KAFKA_BROKERS: brokers.join(','),
    SIGREL_TOPIC_PREFIX: `${options.namespace}-${randomUUID().slice(0, 8)}.`,
    SIGREL_POSTGRES_URL: postgres.href,
    SIGREL_CLOCK_MS: '250',
    ...options.env,
  };
  const config = readConfig(env, stateDir);
  const log = createLog({ file: join(stateDir, 'logs', 'in-process.log'), level: 'info' });
  ends.push(() => log.close());
  const services = await startServices({
    config,
    servers: { temporal: env.SIGREL_TEMPORAL_ADDRESS, temporalUi: null, kafka: brokers, postgres: postgres.href },
    ...(options.only ? { only: options.only } : {}),
    codeVersion: 'test',
    logOf: log.of,
    progress: () => {},
  });
  ends.push(
    () => forgetServices(stateDir),
    () => services.stop(),
  );
  const urls = Object.entries(services.urls).map(([name, url]) => [name, { url }]);
  await recordServices(stateDir, Object.fromEntries(urls));
  await options.beforeFleet?.(env);
  const urlOf = (name: ServiceName): string => readServices(stateDir)[name]?.url ?? '';
  const api = openApi(config);
  await api.post('/families', { bundle: await bundleFolder(join(examples, 'families', 'ips'), undefined) });

  const policyFile = join(stateDir, 'policy.yaml');
  await writeFile(policyFile, stringify(quickPolicy));
  const fleetFile = join(stateDir, 'fleet.yaml');
  const fleet = parse(await readFile(join(examples, 'demo', 'fleet.yaml'), 'utf8'));
  await writeFile(fleetFile, stringify({ ...fleet, devices: options.devices, traffic: join(examples, 'field') }));
  const simulator = await startSimulator({
    fleet: await readFleetFile(fleetFile),
    packs: await acquirePacks(() => {}, packsOf(['suricata'])),
    keys: () => readKeyRing(keysDirOf(stateDir)),
    family: 'ips',
    gatewayUrl: urlOf('gateway'),
    repositoryUrl: urlOf('repository'),
    trustedRoot: await readTrustedRoot(storeDirOf(stateDir)),
    dir: join(stateDir, 'simulator'),
    heartbeatMs: 1_000,
    ownClients: 5,
  });
  ends.push(() => simulator.stop());
  await simulator.enrolled;
  await until(async () => (await api.get<{ devices: number }>('/fleet')).devices === options.devices);

  const kafka = createKafka({ brokers, clientId: 'test', log: silent });
  const events = createKafkaEventLog({
    kafka,
    producer: createProducer(kafka),
    topicPrefix: config.kafka.topicPrefix,
  });
  return {
    ...{ config, env, api, policyFile, simulator, services },
    release: async (example, releaseId, policy) => {
      const file = policy ? join(stateDir, `${releaseId}-policy.yaml`) : policyFile;
      if (policy) await writeFile(file, stringify({ ...quickPolicy, ...policy }));
      const bundle = await bundleFolder(resolve(examples, 'releases', example), file);
      const request = { bundle, releaseId, requestedBy: 'rita', note: example };
      return (await api.post<ReleaseStarted>('/releases', request)).releaseId;
    },
    wait: (releaseId, holds) => waitFor(api, releaseId, holds),
    stream: async (releaseId) => verifyStream(releaseId, await events.read(releaseId)),
  };
};

const administer = async (serverUrl: string, statement: string): Promise<void> => {
  const client = new pg.Client({ connectionString: serverUrl });
  try {
    await client.connect();
    await client.query(statement);
  } finally {
    await client.end();
  }
};

const waitFor = async (
  api: Api,
  releaseId: string,
  holds: ((state: ReleaseState) => boolean) | undefined,
): Promise<ReleaseState> => {
  let found: ReleaseState | null = null;
  if (holds === undefined) {
    const options = { timeoutMs: patient.timeout, justStarted: true, show: () => {} };
    const { state, ended } = await watchRelease(api, releaseId, options);
    if (!ended || !state) throw new Error(`${releaseId} has not ended: ${JSON.stringify(state?.phase)}`);
    return state;
  }
  await until(async () => {
    found = await api.get<{ release: ReleaseState }>(`/releases/${releaseId}`).then(
      ({ release }) => release,
      () => null,
    );
    return found !== null && holds(found);
  });
  if (found === null) throw new Error(`${releaseId} was not found`);
  return found;
};

/** Waits until `holds`; throws when it has lost patience. */
export const until = async (holds: () => Promise<boolean> | boolean): Promise<void> => {
  const deadline = Date.now() + patient.timeout;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`waited in vain for: ${holds.toString()}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
};
