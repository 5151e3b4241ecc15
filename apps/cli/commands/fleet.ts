/** `sigrel fleet`: who is enrolled, and a simulated fleet to try things with. */
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import { SigrelError } from '../../../domain/errors.ts';
import { plural } from '../../../domain/timeline.ts';
import type { Config } from '../../../infra/config.ts';
import { readKeyRing } from '../../../infra/device-auth.ts';
import { acquirePacks, listPacks } from '../../../infra/engines/packs.ts';
import { spawnServer, waitReady } from '../../../infra/servers/processes.ts';
import { type Progress, stderrProgress, step } from '../../../infra/servers/progress.ts';
import { forgetServices, readServices, recordServices } from '../../../infra/servers/services-record.ts';
import type { FleetAnswer, ImportAnswer } from '../../../services/api/contract.ts';
import { keysDirOf, storeDirOf } from '../../../services/names.ts';
import { readFleetFile } from '../../simulator/fleet-file.ts';
import { readTrustedRoot, type Simulator, startSimulator } from '../../simulator/simulator.ts';
import { checkout, openApi } from '../context.ts';
import { readDeviceList } from '../device-list.ts';
import type { Global } from '../global.ts';
import { bar, note, noteWords, out, outJson, paint, table, wrap } from '../output.ts';

/** Its name among the processes of a state folder, so that `down` ends it too. */
export const simulatorName = 'simulator';

/** Devices with a TUF client of their own; the others share one. */
const ownClients = 30;

/** Starts the fleet of a file against the services of a state folder, and waits until all of it is enrolled. */
export const simulateFleet = async (
  config: Config,
  options: {
    readonly file: string;
    readonly family: string;
    readonly heartbeatMs: number;
    readonly progress: Progress;
  },
): Promise<Simulator> => {
  const fleet = await readFleetFile(options.file);
  const { gateway, repository } = readServices(config.stateDir);
  if (!gateway?.url || !repository?.url) {
    throw new SigrelError('SRP_DEP_SERVICES', `no gateway runs for ${config.stateDir}: sigrel up --detach`);
  }
  const trustedRoot = await readTrustedRoot(storeDirOf(config.stateDir)).catch(() => {
    throw new SigrelError('SRP_MISSING_FAMILY', 'there is no family yet: sigrel family init examples/families/ips');
  });
  const packs = await acquirePacks(options.progress, await enginesIn(fleet.segments.map(({ engine }) => engine)));
  const simulator = await startSimulator({
    ...{ fleet, packs, trustedRoot, family: options.family, heartbeatMs: options.heartbeatMs, ownClients },
    keys: () => readKeyRing(keysDirOf(config.stateDir)),
    gatewayUrl: gateway.url,
    repositoryUrl: repository.url,
    dir: join(config.stateDir, 'simulator'),
  });
  await step(options.progress, `enrolling ${fleet.devices} devices`, async () => {
    await simulator.enrolled;
    await inInventory(config, simulator.devices.length);
  });
  return simulator;
};

/** What the gateway has heard takes a moment until it is in the inventory, which a release is planned from. */
const inInventory = async (config: Config, devices: number): Promise<void> => {
  for (const deadline = Date.now() + 60_000; Date.now() < deadline; await sleep(100)) {
    if ((await openApi(config).get<FleetAnswer>('/fleet')).devices >= devices) return;
  }
  throw new SigrelError(
    'SRP_DEP_SERVICES',
    `${devices} devices polled and are not all in the inventory: see the log of the aggregator`,
  );
};

/** The packs that a fleet file names, by version alone (of Suricata) or as `yara-x@1.20.0`. Throws SRP_INPUT_FLEET. */
const enginesIn = async (names: readonly string[]): Promise<readonly string[]> => {
  const known = await listPacks();
  const found = names.map((name) => {
    const pack = known.find(
      (one) => `${one.name}@${one.version}` === name || (one.name === 'suricata' && one.version === name),
    );
    if (pack) return `${pack.name}@${pack.version}`;
    const all = known.map((one) => `${one.name}@${one.version}`).join(', ');
    throw new SigrelError('SRP_INPUT_FLEET', `segments: there is no engine "${name}"; known are ${all}`);
  });
  return [...new Set(found)];
};

/** The same in a process of its own that outlives this one; resolves when every device is enrolled. */
export const simulateApart = async (config: Config, args: readonly string[]): Promise<void> => {
  const log = join(config.stateDir, 'logs', 'simulator-output.log');
  const { identity } = spawnServer(
    process.execPath,
    [join(checkout, 'apps', 'cli', 'main.ts'), '--state', config.stateDir, 'fleet', 'simulate', ...args],
    { log },
  );
  const recorded = async () => readServices(config.stateDir)[simulatorName] !== undefined;
  await step(stderrProgress(), 'enrolling the fleet', () =>
    waitReady('the simulated fleet', identity, log, recorded, 120_000),
  );
};

export const addFleetCommands = (program: Command, global: Global): void => {
  const fleet = program.command('fleet').description('the devices');
  fleet
    .command('status')
    .description('enrolled devices by segment, and what they run')
    .option('--json', 'for programs')
    .addHelpText('after', '\nExample:\n  $ sigrel fleet status')
    .action(async (options: { json?: boolean }) => {
      const answer = await global.api().get<FleetAnswer>('/fleet');
      if (options.json) return outJson(answer);
      if (answer.devices === 0) return out('no device is enrolled; a simulated fleet: sigrel fleet simulate');
      const columns = ['segment', 'devices', 'share', '', 'content: devices'].map((name) => ({
        name,
        right: name === 'devices' || name === 'share',
      }));
      out(
        table(
          columns,
          answer.segments.map(({ segment, devices, contentVersions }) => [
            segment,
            String(devices),
            `${((100 * devices) / answer.devices).toFixed(1)} %`,
            bar(devices / answer.devices, 12),
            Object.entries(contentVersions)
              .map(([version, count]) => `${version}: ${count}`)
              .join(', '),
          ]),
        ),
      );
      out(`${answer.devices} devices`);
    });
  fleet
    .command('import')
    .argument('<file>', 'YAML or JSON list of { device, engine, failMode }, or lines under "device,engine,failMode"')
    .description('devices that have not polled yet, so that the matrix tests their engines')
    .option('--json', 'for programs')
    .addHelpText('after', '\nExample:\n  $ sigrel fleet import inventory.csv')
    .action(async (file: string, options: { json?: boolean }) => {
      const devices = await readDeviceList(file);
      const answer = await global.api().post<ImportAnswer>('/fleet', { devices });
      if (options.json) return outJson(answer);
      out(`${plural(answer.imported, 'device')} imported; what a device says of itself is not overwritten`);
      for (const { engine, devices: count } of answer.unknown) {
        const consequence = 'an untested cell, which blocks releases until two people exclude it';
        out(wrap(`${paint('red', `no pack of ${engine}`)} (${plural(count, 'device')}): ${consequence}`, '  '));
      }
    });
  fleet
    .command('simulate')
    .description('simulate a fleet on this machine until Ctrl-C; content is tried on the real engines')
    .option('--file <file>', 'the fleet', join(checkout, 'examples', 'demo', 'fleet.yaml'))
    .option('--family <name>', 'the family that the devices run', 'ips')
    .option('--heartbeat <seconds>', 'time between two polls of a device', '2')
    .option('-d, --detach', 'return when every device is enrolled, and leave them running; "sigrel down" ends them')
    .addHelpText(
      'after',
      '\nExample:\n  $ sigrel fleet simulate --file examples/demo/fleet.yaml --heartbeat 2 --detach',
    )
    .action(async (options: { file: string; family: string; heartbeat: string; detach?: boolean }) => {
      const heartbeatMs = Number(options.heartbeat) * 1_000;
      if (!(heartbeatMs >= 500)) {
        throw new SigrelError('SRP_INPUT_HEARTBEAT', `--heartbeat ${options.heartbeat}: expected 0.5 or more seconds`);
      }
      const { file, family } = options;
      const config = global.config();
      const running = readServices(config.stateDir)[simulatorName];
      if (running) {
        const message = `a simulated fleet runs already for ${config.stateDir} (process ${running.process.pid}): end it first`;
        throw new SigrelError('SRP_RULE_SIMULATOR_RUNS', message);
      }
      const { families } = await global.api().get<{ families: readonly string[] }>('/families');
      if (!families.includes(family)) {
        const known =
          families.length === 0 ? 'none yet: sigrel family init examples/families/ips' : families.join(', ');
        throw new SigrelError('SRP_MISSING_FAMILY', `there is no family "${family}"; known: ${known}`);
      }
      await readFleetFile(file); // what is wrong with it is said here, also when it is another process that simulates
      if (options.detach) {
        await simulateApart(config, ['--file', resolve(file), '--family', family, '--heartbeat', options.heartbeat]);
        return out('the fleet is enrolled; "sigrel fleet status" shows it, "sigrel down" ends it');
      }
      const simulator = await simulateFleet(config, { file, family, heartbeatMs, progress: stderrProgress() });
      noteWords(
        `${simulator.devices.length} devices are enrolled and poll every ${heartbeatMs / 1_000} s; Ctrl-C stops them`,
      );
      await recordServices(config.stateDir, { [simulatorName]: {} });
      const asked = new AbortController();
      for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => asked.abort());
      while (!asked.signal.aborted && readServices(config.stateDir).gateway) {
        await sleep(1_000, undefined, { signal: asked.signal }).catch(() => {});
      }
      if (!asked.signal.aborted) note('the gateway has ended, and the simulated fleet with it');
      await simulator.stop();
      await forgetServices(config.stateDir);
    });
};
