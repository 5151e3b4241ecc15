/** The services of one state folder, all or some of them in this process. */
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { Client, Connection } from '@temporalio/client';
import { DefaultLogger, NativeConnection, Runtime } from '@temporalio/worker';
import { SigrelError } from '../domain/errors.ts';
import type { Config } from '../infra/config.ts';
import { readKeyRing } from '../infra/device-auth.ts';
import { createEngines } from '../infra/engines/catalogue.ts';
import { createMatrixTools } from '../infra/engines/tools.ts';
import { createKafka, type Log } from '../infra/kafka/client.ts';
import { createKafkaEventLog } from '../infra/kafka/event-log.ts';
import { createKafkaFamilyLog, readFamilyEvents } from '../infra/kafka/family-log.ts';
import { createProducer } from '../infra/kafka/produce.ts';
import { createTelemetryLog } from '../infra/kafka/telemetry-log.ts';
import { createTopics } from '../infra/kafka/topics.ts';
import { createAcknowledgements } from '../infra/postgres/acknowledgements.ts';
import { createEvidenceReader } from '../infra/postgres/evidence.ts';
import { createInventory } from '../infra/postgres/inventory.ts';
import { migrate } from '../infra/postgres/migrate.ts';
import { readArrivedPartitions } from '../infra/postgres/pending.ts';
import { createPool } from '../infra/postgres/pool.ts';
import { createReleaseHistory } from '../infra/postgres/releases.ts';
import { readRevoked } from '../infra/postgres/revocations.ts';
import { createDeviceSites } from '../infra/postgres/sites.ts';
import { createWaivers } from '../infra/postgres/waivers.ts';
import { createWatches } from '../infra/postgres/watches.ts';
import type { Progress } from '../infra/servers/progress.ts';
import { createFileBlobs } from '../infra/store/blobs.ts';
import { createDirectorStore } from '../infra/tuf/director-store.ts';
import { createDirectorView } from '../infra/tuf/director-view.ts';
import { startAggregator } from './aggregator.ts';
import { createFactReader, startAlarms } from './alarms.ts';
import { signalRegression } from './api/releases.ts';
import { startApi } from './api/server.ts';
import { createEndings } from './endings.ts';
import { bundleFreeze, startFreezer } from './freezer.ts';
import { startGateway } from './gateway.ts';
import { startJudge } from './judge.ts';
import { startLeaseRenewal } from './lease.ts';
import { keysDirOf, type ServiceName, serviceNames, storeDirOf } from './names.ts';
import { createOfferCheck } from './offers.ts';
import { startProjector } from './projector.ts';
import { startRepository } from './repository.ts';
import { bundleWorkflows, startWorker } from './worker.ts';

export { keysDirOf, type ServiceName, serviceNames, storeDirOf };

/** Where the servers are that the services need. */
export type ServerAddresses = {
  readonly temporal: string;
  readonly temporalUi: string | null;
  readonly kafka: readonly string[];
  readonly postgres: string;
};

export type RunningServices = {
  readonly urls: Readonly<Partial<Record<ServiceName, string>>>;
  /** Rejects when a service cannot go on. */
  readonly failed: Promise<never>;
  /** Waits for what is under way, in the order in which data flows. */
  stop(): Promise<void>;
};

/** How long an acknowledgement of an offer holds: a device that got it late asks again. */
const ackMs = 10_000;
const snapshotEveryMs = 30_000;
/** How long a renewal waits for its record: shorter than what is left of the shortest lease when it is due. */
const renewalRecordMs = 1_500;

/** Starts these services (all, when not given) after the database and the topics are there. Throws SRP_DEP_*. */
export const startServices = async (options: {
  readonly config: Config;
  readonly servers: ServerAddresses;
  readonly only?: readonly ServiceName[];
  readonly codeVersion: string;
  readonly logOf: (component: string) => Log;
  readonly progress: Progress;
}): Promise<RunningServices> => {
  const { config, servers, logOf, progress, codeVersion } = options;
  const wanted = new Set<ServiceName>(options.only ?? serviceNames);
  const { topicPrefix } = config.kafka;
  const { namespace } = config.temporal;
  const endings = createEndings(logOf('services'));
  const until = <T extends { stop(): Promise<void> }>(service: T): T => {
    endings.add(() => service.stop());
    return service;
  };

  const storeDir = storeDirOf(config.stateDir);
  const keysDir = keysDirOf(config.stateDir);
  const blobs = createFileBlobs(join(storeDir, 'blobs'));
  const director = createDirectorStore({ dir: storeDir, keysDir, blobs, now: Date.now });
  const kafka = (component: string) =>
    createKafka({ brokers: servers.kafka, clientId: `sigrel-${component}`, log: logOf(component) });
  const urls: Partial<Record<ServiceName, string>> = {};
  let failed = new Promise<never>(() => {});
  try {
    const pool = createPool(servers.postgres, 'services', logOf('postgres'));
    endings.add(() => pool.end());
    const engines = createEngines(progress);
    const bundle = wanted.has('worker') ? bundleWorkflows() : null;
    const freezeBundle = wanted.has('freezer') ? bundleFreeze() : null;
    await Promise.all([
      ...[bundle, freezeBundle],
      migrate(pool, logOf('postgres')),
      createTopics(kafka('setup'), topicPrefix, logOf('kafka')),
    ]);
    const evidence = createEvidenceReader(pool);
    const watches = createWatches(pool);
    const inventory = createInventory(pool);
    const waivers = createWaivers(pool);
    const telemetryLog = (component: string) => {
      const telemetry = createTelemetryLog(kafka(component), topicPrefix);
      endings.add(() => telemetry.close());
      return telemetry;
    };
    const connection =
      wanted.has('api') || wanted.has('judge')
        ? await Connection.connect({ address: servers.temporal, connectTimeout: '10s' })
        : null;
    if (connection) endings.add(() => connection.close());
    const temporal = connection && new Client({ connection, namespace });

    if (wanted.has('repository')) {
      urls.repository = until(await startRepository({ storeDir, port: config.repositoryPort })).url;
    }
    if (wanted.has('projector')) {
      until(await startProjector({ kafka: kafka('projector'), pool, topicPrefix, log: logOf('projector') }));
    }
    if (wanted.has('judge') && temporal) {
      until(
        await startJudge({
          ...{ kafka: kafka('judge'), pool, topicPrefix, log: logOf('judge'), codeVersion },
          onVerdict: (releaseId, verdict) => signalRegression(temporal, releaseId, verdict),
        }),
      );
    }
    if (wanted.has('aggregator')) {
      const log = logOf('aggregator');
      until(await startAggregator({ kafka: kafka('aggregator'), pool, topicPrefix, log, snapshotEveryMs }));
    }
    if (wanted.has('gateway')) {
      const { gatewayPort: port, clockMs, gatewayRates: limits } = config;
      const log = logOf('gateway');
      urls.gateway = until(
        await startGateway({
          ...{ telemetry: telemetryLog('gateway'), port, clockMs, ackMs, limits, log },
          keys: () => readKeyRing(keysDir),
          revoked: () => readRevoked(pool),
          sites: createDeviceSites(pool),
          acknowledgements: createAcknowledgements(pool),
          offers: createOfferCheck(createDirectorView(director, storeDir), Date.now, log),
        }),
      ).url;
    }
    const familyLog = (component: string, timeoutMs: number) => {
      const producer = createProducer(kafka(component));
      endings.add(() => producer.close());
      return createKafkaFamilyLog({ producer, topicPrefix, timeoutMs });
    };
    const arrived = (releaseId: string, tick: number) => readArrivedPartitions(pool, releaseId, tick);
    const facts = createFactReader({ director, evidence, watches, arrived, now: Date.now });
    if (wanted.has('lease')) {
      const log = logOf('lease');
      until(
        startLeaseRenewal({
          ...{ director, evidence, watches, log, now: Date.now },
          familyLog: familyLog('lease', renewalRecordMs),
        }),
      );
    }
    if (wanted.has('alarms')) {
      until(
        startAlarms({
          ...{ facts, familyLog: familyLog('alarms', 5_000), log: logOf('alarms'), now: Date.now },
          recorded: () => readFamilyEvents(kafka('alarms'), topicPrefix, 'ops.events.v1'),
        }),
      );
    }
    const native =
      bundle || freezeBundle ? await connectNative(servers.temporal, logOf('temporal'), endings.add) : null;
    if (freezeBundle && native) {
      const freezer = until(
        await startFreezer({
          ...{ connection: native, namespace, bundle: await freezeBundle, director, log: logOf('freezer') },
          familyLog: familyLog('freezer', 5_000),
        }),
      );
      failed = freezer.failed;
    }
    if (bundle && native) {
      const producer = createProducer(kafka('worker'));
      endings.add(() => producer.close());
      const ports = {
        ...{ blobs, evidence, watches, director, inventory, telemetry: telemetryLog('worker') },
        log: createKafkaEventLog({ kafka: kafka('worker'), producer, topicPrefix }),
        ...{
          catalogue: engines,
          waivers,
          history: createReleaseHistory(pool),
          tools: createMatrixTools(engines, join(storeDir, 'cells')),
        },
      };
      const log = logOf('worker');
      const slots = Math.max(1, availableParallelism());
      const worker = until(
        await startWorker({
          ...{ connection: native, namespace, bundle: await bundle, ports, engineSlots: slots, log },
        }),
      );
      failed = Promise.race([failed, worker.failed]);
    }
    if (wanted.has('api') && temporal) {
      const ports = {
        temporal,
        pool,
        blobs,
        director,
        evidence,
        inventory,
        catalogue: engines,
        engines,
        facts,
        now: Date.now,
      };
      const temporalUi = servers.temporalUi === null ? null : { url: servers.temporalUi, namespace };
      urls.api = until(await startApi({ ports, port: config.apiPort, log: logOf('api'), temporalUi })).url;
    }
    return { urls, failed, stop: endings.end };
  } catch (error) {
    await endings.end();
    throw describe(error, servers);
  }
};

/** Clients say "connection refused" in many ways; people want to know who and where. */
const describe = (error: unknown, servers: ServerAddresses): unknown => {
  if (error instanceof SigrelError) return error;
  const words = error instanceof Error ? error.message : String(error);
  const addresses = `Temporal ${servers.temporal}, Kafka ${servers.kafka.join(',')}, PostgreSQL ${servers.postgres.replace(/:[^:@/]*@/, ':***@')}`;
  return new SigrelError('SRP_DEP_START', `the services could not be started (${addresses}): ${words}`, {
    cause: error,
  });
};

const connectNative = async (
  address: string,
  log: Log,
  atEnd: (close: () => Promise<void>) => void,
): Promise<NativeConnection> => {
  quietRuntime(log);
  const native = await NativeConnection.connect({ address });
  atEnd(() => native.close());
  return native;
};

let runtimeInstalled = false;

/** Temporal's runtime is one per process; its messages go to our log. */
const quietRuntime = (log: Log): void => {
  if (runtimeInstalled) return;
  runtimeInstalled = true;
  const levels = { TRACE: 'debug', DEBUG: 'debug', INFO: 'info', WARN: 'warn', ERROR: 'error' } as const;
  Runtime.install({
    logger: new DefaultLogger('INFO', ({ level, message, meta }) => log(levels[level], { ...meta }, message)),
    shutdownSignals: [],
  });
};
