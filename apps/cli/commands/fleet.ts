/** `sigrel fleet`: who is enrolled, and a simulated fleet to try things with. */
import { join } from 'node:path';
import type { Command } from 'commander';
import { SigrelError } from '../../../domain/errors.ts';
import type { Config } from '../../../infra/config.ts';
import { readFleetKey } from '../../../infra/device-auth.ts';
import { acquirePacks } from '../../../infra/engines/packs.ts';
import { type Progress, stderrProgress, step } from '../../../infra/servers/progress.ts';
import { forgetServices, readServices, recordServices } from '../../../infra/servers/services-record.ts';
import { keysDirOf, storeDirOf } from '../../../services/all.ts';
import type { FleetAnswer } from '../../../services/api/contract.ts';
import { readFleetFile } from '../../simulator/fleet-file.ts';
import { readTrustedRoot, type Simulator, startSimulator } from '../../simulator/simulator.ts';
import { checkout } from '../context.ts';
import type { Global } from '../global.ts';
import { bar, note, out, outJson, table } from '../output.ts';

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
  const packs = await acquirePacks(options.progress);
  const simulator = await startSimulator({
    ...{ fleet, packs, trustedRoot, family: options.family, heartbeatMs: options.heartbeatMs, ownClients },
    fleetKey: await readFleetKey(keysDirOf(config.stateDir)),
    gatewayUrl: gateway.url,
    repositoryUrl: repository.url,
    dir: join(config.stateDir, 'simulator'),
  });
  await step(options.progress, `enrolling ${fleet.devices} devices`, () => simulator.enrolled);
  return simulator;
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
    .command('simulate')
    .description('simulate a fleet on this machine until Ctrl-C; content is tried on the real engines')
    .option('--file <file>', 'the fleet', join(checkout, 'examples', 'demo', 'fleet.yaml'))
    .option('--family <name>', 'the family that the devices run', 'ips')
    .option('--heartbeat <seconds>', 'time between two polls of a device', '2')
    .addHelpText('after', '\nExample:\n  $ sigrel fleet simulate --file examples/demo/fleet.yaml --heartbeat 2')
    .action(async (options: { file: string; family: string; heartbeat: string }) => {
      const heartbeatMs = Number(options.heartbeat) * 1_000;
      if (!(heartbeatMs >= 500)) {
        throw new SigrelError('SRP_INPUT_HEARTBEAT', `--heartbeat ${options.heartbeat}: expected 0.5 or more seconds`);
      }
      const { file, family } = options;
      const simulator = await simulateFleet(global.config(), { file, family, heartbeatMs, progress: stderrProgress() });
      note(
        `${simulator.devices.length} devices are enrolled and poll every ${heartbeatMs / 1_000} s; Ctrl-C stops them`,
      );
      const { stateDir } = global.config();
      await recordServices(stateDir, { [simulatorName]: {} });
      await new Promise<void>((resolve) => {
        for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve());
      });
      await simulator.stop();
      await forgetServices(stateDir);
    });
};
