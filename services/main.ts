/**
 * A process with services: `node services/main.ts [--only worker,judge]`. Reads SIGREL_* (infra/config.ts); addresses that
 * are not given are those of the local servers of the state folder. SIGTERM and SIGINT end it in order.
 */
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { SigrelError } from '../domain/errors.ts';
import { readConfig } from '../infra/config.ts';
import { createLog } from '../infra/logging.ts';
import { readServers } from '../infra/servers/local.ts';
import { stderrProgress } from '../infra/servers/progress.ts';
import { forgetServices, recordServices } from '../infra/servers/services-record.ts';
import manifest from '../package.json' with { type: 'json' };
import { type ServerAddresses, startServices } from './all.ts';
import { type ServiceName, serviceNames } from './names.ts';

const checkout = join(import.meta.dirname, '..');

const readOnly = (text: string | undefined): readonly ServiceName[] => {
  if (text === undefined) return serviceNames;
  return text.split(',').map((name) => {
    const known = serviceNames.find((service) => service === name);
    if (known) return known;
    throw new SigrelError('SRP_INPUT_SERVICE', `there is no service "${name}"; expected ${serviceNames.join(', ')}`);
  });
};

const addressesOf = (config: ReturnType<typeof readConfig>): ServerAddresses => {
  const record = readServers(config.stateDir);
  const temporal = config.temporal.address ?? record.temporal?.address;
  const kafka = config.kafka.brokers ?? record.kafka?.address.split(',');
  const postgres = config.postgres.url ?? record.postgres?.address;
  if (temporal && kafka && postgres) return { temporal, kafka, postgres, temporalUi: record.temporal?.uiUrl ?? null };
  throw new SigrelError(
    'SRP_DEP_SERVERS',
    `no servers run for ${config.stateDir}: start them with "sigrel up", or give SIGREL_TEMPORAL_ADDRESS, SIGREL_KAFKA_BROKERS and SIGREL_POSTGRES_URL`,
  );
};

const main = async (): Promise<void> => {
  const { values } = parseArgs({ options: { only: { type: 'string' } } });
  const only = readOnly(values.only);
  const config = readConfig(process.env, checkout);
  const log = createLog({ file: join(config.stateDir, 'logs', 'services.log'), level: config.logLevel });
  const running = await startServices({
    ...{ config, only, servers: addressesOf(config), codeVersion: manifest.version },
    ...{ logOf: log.of, progress: stderrProgress() },
  });
  const urls = Object.fromEntries(
    only.map((name) => [name, running.urls[name] === undefined ? {} : { url: running.urls[name] }]),
  );
  await recordServices(config.stateDir, urls);
  log.of('main')('info', { only, urls: running.urls }, 'the services run');

  const endWith = async (code: number): Promise<void> => {
    await forgetServices(config.stateDir);
    await running.stop();
    await log.close();
    process.exit(code);
  };
  // A second signal, or a service that fails while all end, begins no second end.
  let ending: Promise<void> | undefined;
  const end = (code: number): Promise<void> => {
    ending ??= endWith(code);
    return ending;
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void end(0));
  await running.failed.catch(async (error) => {
    process.stderr.write(`sigrel: a service cannot go on: ${String(error)}\n`);
    await end(1);
  });
};

await main().catch((error) => {
  process.stderr.write(`sigrel: ${error instanceof SigrelError ? `${error.code}: ${error.message}` : error.stack}\n`);
  process.exit(1);
});
