/**
 * A pipeline whose parts can be killed and started again one by one: servers of its own, and services in processes of their
 * own, as in an installation on several machines.
 */
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { inject } from 'vitest';
import { parse, stringify } from 'yaml';
import { openApi } from '../../apps/cli/context.ts';
import { beat, type Device, newDevice } from '../../apps/device/cycle.ts';
import { readTrustedRoot } from '../../apps/simulator/simulator.ts';
import type { DirectorDocument } from '../../domain/director.ts';
import { isExposed } from '../../domain/exposure.ts';
import { engineId, segmentKey } from '../../domain/release.ts';
import { isTerminal } from '../../domain/release-state.ts';
import { bucketOf } from '../../infra/cohort.ts';
import {
  discardServers,
  type LocalServers,
  type ServerName,
  serverNames,
  startServers,
} from '../../infra/servers/local.ts';
import { endProcess, freePort, type Identity, spawnServer, waitReady } from '../../infra/servers/processes.ts';
import { readServices } from '../../infra/servers/services-record.ts';
import { createFileBlobs } from '../../infra/store/blobs.ts';
import { openRepository } from '../../infra/tuf/client.ts';
import { createDirectorStore } from '../../infra/tuf/director-store.ts';
import { keysDirOf, type ServiceName, serviceNames, storeDirOf } from '../../services/all.ts';
import type { ReleaseAnswer } from '../../services/api/contract.ts';
import { cleanUp } from './clean-up.ts';
import { patient } from './patience.ts';
import { examples, type Pipeline, startPipeline, until } from './pipeline.ts';
import { collectDirectors, type Directors } from './soundness.ts';

const program = join(import.meta.dirname, '..', '..', 'services', 'main.ts');

/** A service in a process of its own, or a server of the test's own. */
export type Part = ServiceName | ServerName;

export type Rollout = NonNullable<DirectorDocument['rollout']>;

export type FaultyPipeline = {
  readonly pipeline: Pipeline;
  /** For what a test needs to keep. */
  readonly dir: string;
  readonly directors: Directors;
  /** As of the pipeline, with content that no engine is too slow for: a machine that is busy with faults measures nothing else. */
  readonly release: Pipeline['release'];
  /** SIGKILL; resolves when the process is gone. */
  kill(part: Part): Promise<void>;
  /** Resolves when it serves again. */
  start(part: Part): Promise<void>;
  /** The director of the family `ips` as the store has it. */
  director(): ReturnType<ReturnType<typeof createDirectorStore>['read']>;
  /** What the director grants in a stage of a release, once devices can fetch it. */
  granted(releaseId: string, stage: number): Promise<Rollout>;
  /** How many devices are inside. */
  insideOf(rollout: Rollout): number;
  /** Resolves when what the director grants has run out. */
  lapsed(): Promise<void>;
  /** A device that comes along now, with nothing but what it was shipped with. */
  pollAsNewDevice(): ReturnType<Awaited<ReturnType<typeof openRepository>>['poll']>;
  /** What a device of the cohort that still runs the content before would install now; null: nothing. */
  wantedByCohort(): Promise<number | null>;
  /** Devices that run this content. */
  running(contentVersion: number): number;
  stop(): Promise<void>;
};

/** A copy of an example whose budgets are no matter. */
const unhurried = async (example: string, folder: string): Promise<string> => {
  const source = join(examples, 'releases', example);
  await cp(source, folder, { recursive: true });
  const family = parse(await readFile(join(source, 'family.yaml'), 'utf8'));
  const base = relative(folder, join(source, family.base));
  const budgets = { load: 100, scan: 100, memory: 100 };
  await writeFile(join(folder, 'family.yaml'), stringify({ ...family, base, budgets }));
  return folder;
};

/** Throws what a release ended with that was to be granted. Nothing, when nobody can be asked. */
const expectUnderWay = async (config: Pipeline['config'], releaseId: string): Promise<void> => {
  const { release } = await openApi(config)
    .get<ReleaseAnswer>(`/releases/${releaseId}`)
    .catch(() => ({ release: null }));
  if (release !== null && isTerminal(release)) {
    const red = (release.matrix?.results ?? []).flatMap(({ cellId, gates }) =>
      gates.filter(({ verdict }) => verdict !== 'pass').map((gate) => `${cellId} ${JSON.stringify(gate)}`),
    );
    throw new Error(`${releaseId} ended: ${release.end?.reasonCode}: ${release.end?.reason} ${red.join('; ')}`);
  }
};

/** `own`: servers of this pipeline's own, the others are the run's. `apart`: services in processes of their own. */
export const startFaultyPipeline = async (options: {
  readonly namespace: string;
  readonly devices: number;
  readonly own: readonly ServerName[];
  readonly apart: readonly ServiceName[];
  /** Where Kafka's own broker keeps its data, when not with the others. */
  readonly kafkaDir?: string;
  /** Of each process of a service: arguments of Node before the program, and more environment. */
  readonly processOf?: (service: ServiceName) => {
    readonly args: readonly string[];
    readonly env: Readonly<Record<string, string>>;
  };
}): Promise<FaultyPipeline> => {
  const { namespace, devices, own, apart } = options;
  const dir = await mkdtemp(join(tmpdir(), `sigrel-${namespace}-`));
  const processes = new Map<ServiceName, Identity>();
  let servers: LocalServers | null = null;
  let pipeline: Pipeline | null = null;
  let directors: Directors | null = null;

  const launch = async (env: Readonly<Record<string, string>>, service: ServiceName): Promise<void> => {
    const log = join(dir, `${service}.log`);
    const { args, env: more } = options.processOf?.(service) ?? { args: [], env: {} };
    const { identity } = spawnServer(process.execPath, [...args, program, '--only', service], {
      log,
      env: { ...process.env, ...env, ...more },
    });
    processes.set(service, identity);
    const recorded = async () => readServices(env.SIGREL_STATE_DIR ?? '')[service]?.process.pid === identity.pid;
    await waitReady(service, identity, log, recorded, patient.timeout);
  };
  const killService = async (service: ServiceName): Promise<void> => {
    const identity = processes.get(service);
    if (identity) await endProcess(identity, 0); // no grace: SIGKILL at once
    processes.delete(service);
  };
  const stop = async (): Promise<void> => {
    await cleanUp([
      ...[...processes.keys()].map((service) => () => killService(service)),
      () => directors?.stop(),
      // Not possible in full while a server that a failed test killed is gone.
      () => pipeline?.stop(),
      () => discardServers(dir),
      () => rm(dir, { recursive: true, force: true }),
    ]);
  };

  try {
    if (options.kafkaDir !== undefined) await symlink(options.kafkaDir, join(dir, 'kafka'));
    const given = {
      ...(own.includes('temporal') ? {} : { temporal: inject('temporalAddress') }),
      ...(own.includes('kafka') ? {} : { kafka: inject('kafkaBrokers') }),
      ...(own.includes('postgres') ? {} : { postgres: inject('postgresUrl') }),
    };
    servers = await startServers({ stateDir: dir, given, namespaces: [namespace], progress: () => {} });
    pipeline = await startPipeline({
      ...{ namespace, devices },
      temporalAddress: servers.temporal.address,
      kafkaBrokers: servers.kafka.brokers,
      postgresUrl: servers.postgres.url,
      only: serviceNames.filter((name) => !apart.includes(name)),
      // A gateway that comes back is found where it was.
      env: { SIGREL_GATEWAY_PORT: String(await freePort()) },
      beforeFleet: async (env) => {
        await Promise.all(apart.map((service) => launch(env, service)));
      },
    });
    const { config, env, simulator } = pipeline;
    const storeDir = storeDirOf(config.stateDir);
    directors = collectDirectors(config.stateDir, 'ips');
    const store = createDirectorStore({
      ...{ dir: storeDir, keysDir: keysDirOf(config.stateDir), now: Date.now },
      blobs: createFileBlobs(join(storeDir, 'blobs')),
    });
    const director = () => store.read('ips');
    const running = servers;
    const isInside = ({ salt, thresholds }: Rollout, { deviceId, engine, failMode }: Device): boolean =>
      isExposed(bucketOf(salt, deviceId), thresholds[segmentKey(engineId(engine), failMode)] ?? 0);
    const isServer = (part: Part): part is ServerName => serverNames.some((name) => name === part);
    const { release } = pipeline;
    return {
      ...{ pipeline, dir, directors, director, stop },
      release: async (example, id, policy) =>
        release(await unhurried(example, join(dir, 'content', example)), id, policy),
      kill: (part) => (isServer(part) ? running.kill(part) : killService(part)),
      start: (part) => (isServer(part) ? running.start(part) : launch(env, part)),
      granted: async (releaseId, stage) => {
        let found: Rollout | null = null;
        await until(async () => {
          const { rollout, mode } = (await director()).document;
          found = rollout?.content.releaseId === releaseId && mode === 'rolling' ? rollout : null;
          if (found !== null && found.stage > stage) throw new Error(`stage ${stage} of ${releaseId} is over already`);
          if (found === null) await expectUnderWay(config, releaseId);
          return found?.stage === stage;
        });
        if (found === null) throw new Error(`nothing of ${releaseId} is granted`);
        return found;
      },
      insideOf: (rollout) => simulator.devices.filter((device) => isInside(rollout, device)).length,
      lapsed: () => until(async () => (await director()).expiresAt < Date.now()),
      pollAsNewDevice: async () => {
        const client = await openRepository({
          baseUrl: readServices(config.stateDir).repository?.url ?? '',
          dir: await mkdtemp(join(dir, 'device-')),
          trustedRoot: await readTrustedRoot(storeDir),
        });
        return client.poll('ips');
      },
      wantedByCohort: async () => {
        const { document } = await director();
        const { rollout, steady } = document;
        if (rollout === null) throw new Error('nothing rolls out');
        const inside = simulator.devices.find((device) => isInside(rollout, device));
        if (inside === undefined) throw new Error('the cohort is empty');
        const { contentVersion } = steady;
        return beat({ ...newDevice(inside), contentVersion }, document).wants?.content.contentVersion ?? null;
      },
      running: (version) => simulator.devices.filter((device) => device.contentVersion === version).length,
    };
  } catch (error) {
    await stop().catch(() => {}); // what it failed for is the reason
    throw error;
  }
};
