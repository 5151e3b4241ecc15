/**
 * A fleet on one machine. Every device has its own key, phase and state; what costs CPU is shared: a repository state is
 * verified once by one TUF client (some devices have a client of their own), content is tried once per engine and traffic.
 */
import { setMaxListeners } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SigrelError } from '../../domain/errors.ts';
import { engineId } from '../../domain/release.ts';
import type { ReportResult } from '../../domain/telemetry.ts';
import { deviceKey, type FleetKey, type KeyRing, newestKey } from '../../infra/device-auth.ts';
import type { Pack } from '../../infra/engines/packs.ts';
import { createEngineRunner } from '../../infra/engines/runner.ts';
import { openRepository, type Poll, type RepositoryClient } from '../../infra/tuf/client.ts';
import { sendReports } from '../device/client.ts';
import {
  beat,
  type Device,
  failUpdate,
  install,
  keepUnsent,
  mayInstall,
  newDevice,
  type SignedReport,
} from '../device/cycle.ts';
import { beginSequence } from '../device/sequence-file.ts';
import { createTrials } from '../device/trial.ts';
import type { FleetFile } from './fleet-file.ts';

export type Simulator = {
  readonly devices: readonly Device[];
  /** Resolves when every device has been heard by the gateway at least once since the start; rejects when their sites were others before. */
  readonly enrolled: Promise<void>;
  stop(): Promise<void>;
};

export type SimulatorOptions = {
  readonly fleet: FleetFile;
  readonly packs: readonly Pack[];
  /** Read again with every heartbeat: a device signs with the newest key that there is. */
  readonly keys: () => Promise<KeyRing>;
  readonly family: string;
  readonly gatewayUrl: string;
  readonly repositoryUrl: string;
  /** The first root metadata, as devices are shipped with it. */
  readonly trustedRoot: Uint8Array;
  /** For the clients' metadata. */
  readonly dir: string;
  readonly heartbeatMs: number;
  /** Devices with a TUF client of their own. */
  readonly ownClients: number;
};

/** Devices that act together, one group after the other within a heartbeat. */
const groups = 20;

export const startSimulator = async (options: SimulatorOptions): Promise<Simulator> => {
  const { fleet, packs, heartbeatMs, ownClients } = options;
  let fleetKey = newestKey(await options.keys());
  const devices = makeDevices(fleet, packs, fleetKey, await beginSequence(join(options.dir, 'sequence'), Date.now()));
  const trials = createTrials(createEngineRunner(packs), fleet.captures);
  const clients = await openClients(options, devices.slice(0, ownClients));
  const poll = pollOnce(await openClient(options, 'shared'), options);
  const stopping = new AbortController();
  setMaxListeners(groups, stopping.signal);
  const heard = new Set<string>();
  let allHeard = () => {};
  let refused = (_error: SigrelError) => {};
  const enrolled = new Promise<void>((resolve, reject) => {
    allHeard = resolve;
    refused = reject;
  });
  enrolled.catch(() => stopping.abort());

  const look = (device: Device): Promise<Poll> => clients.get(device.deviceId)?.poll(options.family) ?? poll();

  const installOn = async (device: Device, found: Extract<Poll, { kind: 'document' }>, wants: Wants) => {
    const { content } = wants;
    const artefact = content.artefacts.find((one) => one.engine === engineId(device.engine));
    if (!artefact) return [];
    try {
      const fetchRules = () => found.fetchArtefact(content, artefact.engine);
      // A device with a client of its own fetches and verifies for itself, whatever others have found out.
      if (clients.has(device.deviceId)) await fetchRules();
      const trial = await trials(device.engine, artefact.sha256, fetchRules, device.profile);
      return install(device, content, trial);
    } catch (error) {
      return failUpdate(device, content, (error instanceof Error ? error.message : String(error)).slice(0, 400));
    }
  };

  const cycle = async (group: readonly Device[]): Promise<void> => {
    const found = await Promise.all(group.map(look));
    const heartbeats = group.map((device, index) => {
      const seen = found[index];
      return beat(device, seen?.kind === 'document' && seen.expiresAt > Date.now() ? seen.document : null);
    });
    const asked = performance.now();
    const answers = await send(
      group,
      heartbeats.map((heartbeat) => heartbeat.reports),
    );
    if (heard.size < devices.length) {
      const elsewhere = answers.flat().find((answer) => answer?.reason?.startsWith('site: '));
      if (elsewhere) return refused(sitesChanged(elsewhere.reason ?? '', fleet));
      for (const [index, device] of group.entries()) if (answers[index]?.at(-1)) heard.add(device.deviceId);
      if (heard.size === devices.length) allHeard();
    }
    const said: (readonly SignedReport[])[] = [];
    const installers: Device[] = [];
    for (const [index, device] of group.entries()) {
      const seen = found[index];
      const wants = heartbeats[index]?.wants;
      const answer = answers[index]?.at(-1);
      if (seen?.kind !== 'document' || !wants || !answer) continue;
      const time = { expiresAt: seen.expiresAt, now: Date.now(), sinceAskedMs: performance.now() - asked };
      if (!mayInstall(wants, answer, time)) continue;
      installers.push(device);
      said.push(await installOn(device, seen, wants));
    }
    await send(installers, said);
  };

  /** Sends what each device has to say; answers in the same places. What is not taken is said again with the next heartbeat. */
  const send = async (
    senders: readonly Device[],
    byDevice: readonly (readonly SignedReport[])[],
  ): Promise<readonly (readonly (ReportResult | null)[])[]> => {
    const giveUpAt = Date.now() + heartbeatMs / 2;
    const results = await sendReports(options.gatewayUrl, byDevice.flat(), giveUpAt, stopping.signal);
    let at = 0;
    return byDevice.map((own, index) => {
      at += own.length;
      const answers = results.slice(at - own.length, at);
      const device = senders[index];
      if (device) {
        keepUnsent(
          device,
          own.filter((_, place) => answers[place] === null),
        );
      }
      return answers;
    });
  };

  const takeNewestKey = async (): Promise<void> => {
    const newest = await options.keys().then(newestKey, () => fleetKey);
    if (newest.epoch === fleetKey.epoch) return;
    fleetKey = newest;
    for (const device of devices) {
      device.key = deviceKey(newest.key, device.deviceId);
      device.keyEpoch = newest.epoch;
    }
  };

  const started = Date.now();
  const run = async (group: readonly Device[], index: number): Promise<void> => {
    const phase = (index * heartbeatMs) / groups;
    for (let round = 0; !stopping.signal.aborted; ) {
      const wait = started + phase + round * heartbeatMs - Date.now();
      await sleep(Math.max(0, wait), undefined, { signal: stopping.signal }).catch(() => {});
      if (stopping.signal.aborted) return;
      if (index === 0) await takeNewestKey();
      await cycle(group);
      // A round that took longer than a heartbeat (a machine that was asleep) is not made up for.
      round = Math.max(round + 1, Math.floor((Date.now() - started - phase) / heartbeatMs));
    }
  };
  const running = Array.from({ length: groups }, (_, index) =>
    run(
      devices.filter((_, at) => at % groups === index),
      index,
    ),
  );
  return {
    devices,
    enrolled,
    stop: async () => {
      stopping.abort();
      await Promise.all(running);
    },
  };
};

/** Otherwise the whole fleet would be refused, report by report, and look silent. */
const sitesChanged = (reason: string, { devicesPerSite }: FleetFile): SigrelError =>
  new SigrelError(
    'SRP_INPUT_FLEET',
    `devicesPerSite: ${devicesPerSite ?? 'none'} puts devices at other sites than they were first heard at (${reason}). Set it back to what it was, or forget this fleet with all its data: sigrel down, and remove the state folder`,
  );

type Wants = NonNullable<ReturnType<typeof beat>['wants']>;

/** How a fleet file may name a pack: by version, or with the engine's name before it. */
const engineNames = (name: string, ...versions: readonly string[]): readonly string[] =>
  versions.flatMap((version) => [version, `${name}@${version}`]);

/** Unevenly over the segments as the file says; the profiles are spread evenly over every segment. */
const makeDevices = (
  fleet: FleetFile,
  packs: readonly Pack[],
  { key: fleetKey, epoch: keyEpoch }: FleetKey,
  sequence: number,
): readonly Device[] => {
  const packOf = (name: string): Pack => {
    const pack = packs.find(({ build, wanted }) => engineNames(build.name, build.version, wanted).includes(name));
    if (pack) return pack;
    const known = packs.map(({ build, wanted }) => `${build.name}@${wanted}`).join(', ');
    throw new SigrelError('SRP_INPUT_FLEET', `segments: there is no engine "${name}"; known are ${known}`);
  };
  const segments = fleet.segments.map((segment) => ({ ...segment, pack: packOf(segment.engine) }));
  const pick = <T extends { readonly share: number }>(list: readonly T[], at: number): T => {
    let sum = 0;
    const found = list.find((one) => {
      sum += one.share;
      return at < sum;
    });
    return (found ?? list.at(-1)) as T; // lists are not empty: the file was checked
  };
  const goldenRatio = 0.6180339887498949;
  return Array.from({ length: fleet.devices }, (_, index) => {
    const deviceId = `device-${String(index + 1).padStart(5, '0')}`;
    const segment = pick(segments, (index + 0.5) / fleet.devices);
    const profile = pick(fleet.profiles, (index * goldenRatio) % 1).name;
    const key = deviceKey(fleetKey, deviceId);
    const { devicesPerSite } = fleet;
    const site = devicesPerSite && { site: `site-${String(Math.floor(index / devicesPerSite) + 1).padStart(5, '0')}` };
    const { failMode, pack } = segment;
    return newDevice({ deviceId, ...site, engine: pack.build, failMode, profile, key, keyEpoch }, sequence);
  });
};

const openClient = (options: SimulatorOptions, name: string): Promise<RepositoryClient> =>
  openRepository({
    baseUrl: options.repositoryUrl,
    dir: join(options.dir, name),
    trustedRoot: options.trustedRoot,
  });

const openClients = async (
  options: SimulatorOptions,
  devices: readonly Device[],
): Promise<ReadonlyMap<string, RepositoryClient>> =>
  new Map(
    await Promise.all(
      devices.map(
        async ({ deviceId }): Promise<[string, RepositoryClient]> => [deviceId, await openClient(options, deviceId)],
      ),
    ),
  );

/** One look at a time; while the timestamp is the same bytes, so is all that it signs for. */
const pollOnce = (client: RepositoryClient, options: SimulatorOptions): (() => Promise<Poll>) => {
  let timestamp = '';
  let last: Poll | null = null;
  let running: Promise<Poll> | null = null;
  const look = async (): Promise<Poll> => {
    try {
      const response = await fetch(`${options.repositoryUrl}/metadata/timestamp.json`, {
        signal: AbortSignal.timeout(5_000),
      });
      const bytes = await response.text();
      if (last?.kind === 'document' && bytes === timestamp) return last;
      timestamp = bytes;
    } catch (error) {
      return { kind: 'no-offer', why: error instanceof Error ? error.message : String(error) };
    }
    last = await client.poll(options.family);
    return last;
  };
  return () => {
    running ??= look().finally(() => {
      running = null;
    });
    return running;
  };
};

/** The root metadata that devices are shipped with. */
export const readTrustedRoot = (storeDir: string): Promise<Uint8Array> =>
  readFile(join(storeDir, 'repository', 'metadata', '1.root.json'));
