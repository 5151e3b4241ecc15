/** A local Kafka broker (KRaft, one node): jars from KAFKA_HOME, the cache, or Maven. */
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SigrelError } from '../../domain/errors.ts';
import { cacheRoot, fillOnce } from './cache.ts';
import { type Identity, onPath, run, spawnServer, waitReady } from './processes.ts';
import { type Progress, step } from './progress.ts';
import { accepts } from './temporal.ts';

const version = '4.3.1';

export type KafkaProgram = { readonly java: string; readonly classPath: string };

/** Java and the class path: `$KAFKA_HOME/libs`, else the cache, else fetched with Maven (about 15 s, once per user). */
export const acquireKafka = async (progress: Progress): Promise<KafkaProgram> => {
  const java = onPath('java');
  if (!java) {
    throw new SigrelError(
      'SRP_DEP_JAVA',
      'Kafka needs Java >= 17, and no "java" is on PATH: install the package default-jre-headless',
    );
  }
  const home = process.env.KAFKA_HOME;
  if (home) {
    if (existsSync(join(home, 'libs'))) return { java, classPath: join(home, 'libs', '*') };
    throw new SigrelError(
      'SRP_INPUT_KAFKA_HOME',
      `KAFKA_HOME=${home} has no folder "libs"; expected an unpacked Kafka, or leave it unset`,
    );
  }
  const dir = await fillOnce(join(cacheRoot(), 'kafka', version), async (temporary) => {
    const maven = onPath('mvn');
    if (!maven) {
      throw new SigrelError(
        'SRP_DEP_MAVEN',
        'Kafka is not in the cache, and Maven is missing to fetch it: install the package maven, or unpack Kafka and set KAFKA_HOME',
      );
    }
    await step(progress, `Kafka ${version}: fetching 46 jars with Maven, once for this user`, () =>
      run(maven, [
        ...['-B', '-q', '-f', join(import.meta.dirname, 'kafka-build', 'pom.xml')],
        ...['dependency:copy-dependencies', '-DincludeScope=runtime', `-DoutputDirectory=${temporary}`],
      ]),
    );
  });
  return { java, classPath: join(dir, '*') };
};

/** Starts the broker on its data folder (formatted when new). SIGKILL and a start again recover the log. */
export const startKafka = async (
  program: KafkaProgram,
  options: { readonly dir: string; readonly port: number; readonly controllerPort: number; readonly log: string },
): Promise<Identity> => {
  const data = join(options.dir, 'data');
  const properties = join(options.dir, 'server.properties');
  await mkdir(options.dir, { recursive: true });
  const setting = {
    'process.roles': 'broker,controller',
    'node.id': 1,
    listeners: `PLAINTEXT://127.0.0.1:${options.port},CONTROLLER://127.0.0.1:${options.controllerPort}`,
    'advertised.listeners': `PLAINTEXT://127.0.0.1:${options.port}`,
    'controller.listener.names': 'CONTROLLER',
    'controller.quorum.voters': `1@127.0.0.1:${options.controllerPort}`,
    'log.dirs': data,
    'num.partitions': 1,
    'default.replication.factor': 1,
    'offsets.topic.replication.factor': 1,
    'offsets.topic.num.partitions': 3,
    'transaction.state.log.replication.factor': 1,
    'transaction.state.log.min.isr': 1,
    'transaction.state.log.num.partitions': 1,
    'share.coordinator.state.topic.replication.factor': 1,
    'share.coordinator.state.topic.min.isr': 1,
    'share.coordinator.state.topic.num.partitions': 1,
    'group.initial.rebalance.delay.ms': 0,
    'auto.create.topics.enable': false,
  };
  await writeFile(
    properties,
    Object.entries(setting)
      .map(([name, value]) => `${name}=${value}\n`)
      .join(''),
  );
  if (!existsSync(join(data, 'meta.properties'))) {
    const id = Buffer.from(crypto.getRandomValues(new Uint8Array(16))).toString('base64url');
    await run(program.java, [
      '-cp',
      program.classPath,
      'kafka.tools.StorageTool',
      'format',
      '-g',
      `--cluster-id=${id}`, // in one word: one id in 64 begins with a dash and would be read as an option
      '-c',
      properties,
    ]);
  }
  const offset = existsSync(options.log) ? readFileSync(options.log).length : 0;
  const { identity } = spawnServer(
    program.java,
    [
      ...['-Xms256m', '-Xmx512m', '-XX:+UseG1GC', '-XX:TieredStopAtLevel=4', `-Dkafka.logs.dir=${options.dir}`],
      ...['-Dorg.slf4j.simpleLogger.showDateTime=true', '-cp', program.classPath, 'kafka.Kafka', properties],
    ],
    { log: options.log, cwd: options.dir },
  );
  const started = () => readFileSync(options.log).subarray(offset).includes('Kafka Server started');
  await waitReady('Kafka', identity, options.log, async () => started() && (await accepts(options.port)), 90_000);
  return identity;
};
