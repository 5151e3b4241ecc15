/** Where this command line talks to: the services and servers of a state folder, or addresses that were given. */
import { join, relative, resolve } from 'node:path';
import { SigrelError } from '../../domain/errors.ts';
import type { StoredEvent } from '../../events/catalogue.ts';
import { type StreamReport, verifyStream } from '../../events/verify.ts';
import { type Config, readConfig } from '../../infra/config.ts';
import { createKafka, silent } from '../../infra/kafka/client.ts';
import { createKafkaEventLog } from '../../infra/kafka/event-log.ts';
import { createProducer } from '../../infra/kafka/produce.ts';
import { readServers } from '../../infra/servers/local.ts';
import { readServices } from '../../infra/servers/services-record.ts';
import type { Problem } from '../../services/api/contract.ts';
import { noteWords } from './output.ts';

export const checkout = join(import.meta.dirname, '..', '..');

/** Throws SRP_INPUT_CONFIG. `stateDir` overrides SIGREL_STATE_DIR. */
export const openConfig = (stateDir: string | undefined): Config => {
  const env = stateDir === undefined ? process.env : { ...process.env, SIGREL_STATE_DIR: resolve(stateDir) };
  return readConfig(env, checkout);
};

/** An error that the api answered with: what people see is the same as if it had happened here. */
export class ApiError extends SigrelError {
  readonly findings: NonNullable<Problem['findings']>;

  constructor(problem: Problem) {
    super(problem.code, problem.detail);
    this.findings = problem.findings ?? [];
  }
}

export type Api = {
  get<T>(path: string): Promise<T>;
  post<T>(path: string, body: unknown): Promise<T>;
};

/** The command as it has to be typed for this state folder. */
export const commandFor = (config: Config, command: string): string => {
  const usual = config.stateDir === join(checkout, '.sigrel');
  return usual
    ? `./sigrel ${command}`
    : `./sigrel --state ${relative(process.cwd(), config.stateDir) || '.'} ${command}`;
};

const notRunning = (config: Config): SigrelError =>
  new SigrelError(
    'SRP_DEP_SERVICES',
    `no services run for ${config.stateDir}: start them with "${commandFor(config, 'up --detach')}", or give SIGREL_API_URL`,
  );

export const openApi = (config: Config): Api => {
  const call = async <T>(method: string, path: string, body?: unknown): Promise<T> => {
    // Looked up for each call: services that are started again listen elsewhere.
    const base = process.env.SIGREL_API_URL ?? readServices(config.stateDir).api?.url;
    if (base === undefined) throw notRunning(config);
    const response = await fetch(`${base}/v1${path}`, {
      method,
      ...(body === undefined ? {} : { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }),
    }).catch((cause: Error) => {
      throw new SigrelError(
        'SRP_DEP_API',
        `the api at ${base} does not answer (${cause.message}): is it running? "${commandFor(config, 'status')}" tells`,
        {
          cause,
        },
      );
    });
    const answer: unknown = await response.json().catch(() => null);
    if (response.ok) return answer as T;
    const fallback = { type: 'about:blank', title: '', status: response.status, code: 'SRP_DEP_API' };
    const problem = (answer ?? { ...fallback, detail: `${base} answered ${response.status}` }) as Problem;
    throw new ApiError(problem);
  };
  return { get: (path) => call('GET', path), post: (path, body) => call('POST', path, body) };
};

/** Addresses of Kafka: given, or the local broker's. */
export const brokersOf = (config: Config): readonly string[] => {
  const brokers = config.kafka.brokers ?? readServers(config.stateDir).kafka?.address.split(',');
  if (brokers) return brokers;
  throw new SigrelError(
    'SRP_DEP_KAFKA',
    `no Kafka runs for ${config.stateDir}: start it with "${commandFor(config, 'up --detach')}", or give SIGREL_KAFKA_BROKERS`,
  );
};

/** The stream of a release as Kafka has it, with what is wrong with it. Throws SRP_MISSING_RELEASE, SRP_DEP_KAFKA. */
export const readStream = async (config: Config, releaseId: string): Promise<StreamReport> => {
  const kafka = createKafka({ brokers: brokersOf(config), clientId: 'sigrel-cli', log: silent });
  const producer = createProducer(kafka);
  const { topicPrefix } = config.kafka;
  const slow = setTimeout(() => noteWords(`reading from Kafka at ${brokersOf(config).join(', ')} ...`), 2_000);
  const records = await createKafkaEventLog({ kafka, producer, topicPrefix })
    .read(releaseId)
    .finally(() => clearTimeout(slow));
  if (records.length > 0) return verifyStream(releaseId, records);
  throw new SigrelError(
    'SRP_MISSING_RELEASE',
    `Kafka has no event of a release ${releaseId}. List the releases with: sigrel release list`,
  );
};

/** The events of a stream that can be relied on. Throws SRP_INTEGRITY_STREAM when the first of them is damaged. */
export const readEvents = async (config: Config, releaseId: string): Promise<readonly StoredEvent[]> => {
  const report = await readStream(config, releaseId);
  if (report.events.length > 0) return report.events;
  throw new SigrelError(
    'SRP_INTEGRITY_STREAM',
    `the stream of ${releaseId} is damaged from its first event on: sigrel verify ${releaseId}`,
  );
};
