/** `sigrel up`, `down`, `status`: the local servers and services of a state folder. */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import { SigrelError } from '../../../domain/errors.ts';
import { plural } from '../../../domain/timeline.ts';
import type { Config } from '../../../infra/config.ts';
import { readServers, serverNames, startServers, stopServers } from '../../../infra/servers/local.ts';
import { endProcess, isSame, spawnServer, waitReady } from '../../../infra/servers/processes.ts';
import { type Progress, stderrProgress, step } from '../../../infra/servers/progress.ts';
import { readServices } from '../../../infra/servers/services-record.ts';
import type { AlarmsAnswer } from '../../../services/api/contract.ts';
import { serviceNames } from '../../../services/names.ts';
import { checkout } from '../context.ts';
import type { Global } from '../global.ts';
import { note, noteWords, out, outJson, outWords, paint, table } from '../output.ts';
import { renderAlarms, renderStops } from './freeze.ts';

/** What runs for a state folder; processes that have ended are left out. */
export type Running = {
  readonly servers: ReturnType<typeof readServers>;
  readonly services: ReturnType<typeof readServices>;
};

export const readRunning = (config: Config): Running => ({
  servers: readServers(config.stateDir),
  services: readServices(config.stateDir),
});

/** Starts what does not run yet: servers, then one process with all services. Returns the names that were started. */
export const bringUp = async (config: Config, progress: Progress): Promise<readonly string[]> => {
  const given = { temporal: config.temporal.address, kafka: config.kafka.brokers, postgres: config.postgres.url };
  const namespaces = [config.temporal.namespace];
  // No step around it: what takes long in it says so itself.
  progress('Temporal, Kafka and PostgreSQL ...');
  const servers = await startServers({ stateDir: config.stateDir, given, namespaces, progress });
  const started: string[] = serverNames.filter((name) => !servers.found.includes(name));
  const missing = serviceNames.filter((name) => !readServices(config.stateDir)[name]);
  if (missing.length === 0) return started;
  const log = join(config.stateDir, 'logs', 'services-output.log');
  await step(progress, 'services', async () => {
    const only = missing.length === serviceNames.length ? [] : ['--only', missing.join(',')];
    const { identity } = spawnServer(process.execPath, [join(checkout, 'services', 'main.ts'), ...only], {
      log,
      env: { ...process.env, SIGREL_STATE_DIR: config.stateDir },
    });
    const recorded = async () => missing.every((name) => readServices(config.stateDir)[name]);
    // The first start fetches the engines.
    await waitReady('the services', identity, log, recorded, 15 * 60_000);
  });
  return [...started, ...missing];
};

/** Ends services first, then servers; returns the names that ran. */
export const bringDown = async (config: Config): Promise<readonly string[]> => {
  const services = readServices(config.stateDir);
  const processes = new Map(Object.values(services).map(({ process: one }) => [one.pid, one]));
  await Promise.all([...processes.values()].map((one) => endProcess(one)));
  return [...Object.keys(services), ...(await stopServers(config.stateDir))];
};

const rows = ({ servers, services }: Running): string[][] => [
  ...serverNames.map((name) => {
    const server = servers[name];
    const where = server ? [server.address, ...(server.uiUrl ? [`web ui ${server.uiUrl}`] : [])].join(', ') : '';
    return [name, server ? paint('green', 'runs') : paint('red', 'down'), String(server?.process?.pid ?? ''), where];
  }),
  ...[...new Set([...serviceNames, ...Object.keys(services)])].map((name) => {
    const service = services[name];
    const word = service ? paint('green', 'runs') : paint('red', 'down');
    return [name, word, String(service?.process.pid ?? ''), service?.url ?? ''];
  }),
];

const columns = [{ name: 'name' }, { name: 'state' }, { name: 'pid', right: true }, { name: 'address' }];

const allRun = ({ servers, services }: Running): boolean =>
  serverNames.every((name) => servers[name]) && serviceNames.every((name) => services[name]);

export const addServerCommands = (program: Command, global: Global): void => {
  program
    .command('up')
    .description('start Temporal, Kafka and PostgreSQL on this machine, and all services of sigrel')
    .option('-d, --detach', 'return when everything runs, and leave it running')
    .addHelpText('after', '\nExample:\n  $ sigrel up --detach\n  $ sigrel status')
    .action(async (options: { detach?: boolean }) => {
      const config = global.config();
      const before = readRunning(config);
      if (allRun(before)) {
        outWords(`everything runs already for ${config.stateDir}; "sigrel down" stops it`);
        out(table(columns, rows(before)));
        return;
      }
      const started = await bringUp(config, stderrProgress());
      out(table(columns, rows(readRunning(config))));
      if (options.detach) return noteWords(`started ${started.join(', ')}; "sigrel down" stops it`);
      note('Ctrl-C stops it');
      await untilStopped(config);
      note('stopping ...');
      await bringDown(config);
    });

  program
    .command('down')
    .description('stop what "up" started; data and logs stay')
    .addHelpText('after', '\nExample:\n  $ sigrel down')
    .action(async () => {
      const config = global.config();
      const stopped = await step(stderrProgress(), 'stopping', () => bringDown(config));
      outWords(stopped.length === 0 ? `nothing runs for ${config.stateDir}` : `stopped ${stopped.join(', ')}`);
    });

  program
    .command('status')
    .description('what runs, and where; exit code 1 when something is down')
    .option('--json', 'for programs')
    .addHelpText('after', '\nExample:\n  $ sigrel status --json | jq .services.api.url')
    .action(async (options: { json?: boolean }) => {
      const config = global.config();
      const running = readRunning(config);
      const { alarms, stops } = await whatStands(running, global);
      if (options.json) outJson({ stateDir: config.stateDir, healthy: allRun(running), ...running, alarms, stops });
      else {
        out(table(columns, rows(running)));
        if (alarms && alarms.length > 0) {
          out(`\n${paint('red', plural(alarms.length, 'alarm'))}`);
          out(renderAlarms(alarms, Date.now()));
        }
        if (stops && stops.length > 0) out(`\n${renderStops(stops)}`);
      }
      if (!allRun(running)) global.exitWith(1);
    });
};

/** null: nobody can tell. */
const whatStands = async (
  { services }: Running,
  global: Global,
): Promise<AlarmsAnswer | { readonly alarms: null; readonly stops: null }> => {
  const unknown = { alarms: null, stops: null };
  if (!services.api) return unknown;
  const asked = global.api().get<AlarmsAnswer>('/alarms');
  const answer = await Promise.race([asked, sleep(3_000, null)]).catch(() => null);
  return answer ?? unknown;
};

/** Until a person stops it, or the services end by themselves. */
const untilStopped = async (config: Config): Promise<void> => {
  const asked = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => asked.abort());
  const { services } = readRunning(config);
  while (!asked.signal.aborted) {
    const ended = Object.entries(services).find(([, service]) => !isSame(service.process));
    if (ended) {
      await bringDown(config);
      throw new SigrelError('SRP_DEP_SERVICES', `${ended[0]} has ended; see ${join(config.stateDir, 'logs')}`);
    }
    await sleep(1_000, undefined, { signal: asked.signal }).catch(() => {});
  }
};
