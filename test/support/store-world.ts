/**
 * A family in a real store, served as files and behind a real gateway, with real devices: what is left of sigrel when nothing
 * decides any more.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { vi } from 'vitest';
import { createPublishActivities } from '../../activities/publish.ts';
import { beat, type Device, install, mayInstall, newDevice } from '../../apps/device/cycle.ts';
import { readTrustedRoot } from '../../apps/simulator/simulator.ts';
import { goodContent } from '../../domain/director.ts';
import { defaultPolicy, type RolloutPolicy } from '../../domain/policy.ts';
import type { DirectorStore } from '../../domain/ports.ts';
import { artefactPath, type Content, engineId, type FailMode } from '../../domain/release.ts';
import type { ReportResult, ReportsAnswer } from '../../domain/telemetry.ts';
import { deviceKey } from '../../infra/device-auth.ts';
import { silent } from '../../infra/kafka/client.ts';
import type { GatewayLog } from '../../infra/kafka/telemetry-log.ts';
import { createMemoryTelemetryLog } from '../../infra/memory/telemetry-log.ts';
import { createFileBlobs } from '../../infra/store/blobs.ts';
import { openRepository, type RepositoryClient } from '../../infra/tuf/client.ts';
import { createDirectorStore } from '../../infra/tuf/director-store.ts';
import { createDirectorView } from '../../infra/tuf/director-view.ts';
import { startGateway } from '../../services/gateway.ts';
import { createOfferCheck } from '../../services/offers.ts';
import { startRepository } from '../../services/repository.ts';
import { engineA, gatewayPorts } from './devices.ts';

export const fleetKey = Buffer.alloc(32, 7);
/** Longer than any test: what such a lease grants is granted until somebody stops it. */
export const endlessMs = 3_600_000;

export type StoreWorld = {
  readonly family: string;
  readonly dir: string;
  readonly keysDir: string;
  readonly director: DirectorStore;
  readonly gatewayUrl: string;
  /** Signs and publishes a release with its way back. */
  readonly prepare: (releaseId: string) => Promise<{ readonly release: Content; readonly rollback: Content }>;
  /** A device that runs the baseline. */
  readonly device: (deviceId: string, failMode?: FailMode) => Device;
  /** One cycle of the device, with a clock that is wrong by `skewMs`: true when it takes what rolls out, else why not. */
  readonly takes: (device: Device, skewMs?: number) => Promise<true | string>;
  readonly stopGateway: () => Promise<void>;
  stop(): Promise<void>;
};

export const policyOf = (changes: Partial<RolloutPolicy> = {}): RolloutPolicy => ({
  ...defaultPolicy,
  ...{ tickMs: 200, freshTicks: 100, leaseMs: endlessMs, firstSilenceMs: 600_000, silenceMs: 600_000 },
  ...changes,
});

export const openStoreWorld = async (
  family: string,
  telemetry: GatewayLog = createMemoryTelemetryLog(),
  ackMs = 10_000,
): Promise<StoreWorld> => {
  const root = await mkdtemp(join(tmpdir(), 'sigrel-world-'));
  const [dir, keysDir] = [join(root, 'store'), join(root, 'keys')];
  const blobs = createFileBlobs(join(dir, 'blobs'));
  const director = createDirectorStore({ dir, keysDir, blobs, now: Date.now });
  await director.initialiseFamily(family, [{ engine: engineA, bytes: new TextEncoder().encode('baseline') }]);
  const repository = await startRepository({ storeDir: dir, port: 0 });
  // The server's clock is right, also while a device of this process has a wrong one.
  const rightTime = () => performance.timeOrigin + performance.now();
  const offers = createOfferCheck(createDirectorView(director, dir), rightTime, silent);
  const gateway = await startGateway({
    ...gatewayPorts(fleetKey),
    ...{ telemetry, port: 0, clockMs: 100, ackMs, offers, log: silent },
  });
  const trustedRoot = await readTrustedRoot(dir);
  const clients = new Map<string, Promise<RepositoryClient>>();
  const clientOf = (deviceId: string): Promise<RepositoryClient> => {
    const known = clients.get(deviceId);
    if (known) return known;
    const opened = openRepository({ baseUrl: repository.url, dir: join(root, 'devices', deviceId), trustedRoot });
    clients.set(deviceId, opened);
    return opened;
  };
  let gatewayStopped: Promise<void> | null = null;
  const stopGateway = (): Promise<void> => {
    gatewayStopped ??= gateway.stop();
    return gatewayStopped;
  };
  const pollWith = async (device: Device, skewMs: number) => {
    const client = await clientOf(device.deviceId);
    if (skewMs === 0) return client.poll(family);
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + skewMs });
    try {
      return await client.poll(family);
    } finally {
      vi.useRealTimers();
    }
  };

  return {
    ...{ family, dir, keysDir, director, gatewayUrl: gateway.url, stopGateway },
    prepare: async (releaseId) => {
      const contentVersion = await director.nextContentVersion(family, releaseId);
      const bytes = new TextEncoder().encode(releaseId);
      const engine = engineId(engineA);
      const path = artefactPath(family, contentVersion, engine);
      const artefacts = [{ engine, path, sha256: await blobs.put(bytes), length: bytes.length }];
      const { document } = await director.read(family);
      const publish = createPublishActivities({ director });
      const { release, rollback } = await publish.signRelease({
        ...{ releaseId, family, contentVersion, artefacts, bundleDigest: 'b'.repeat(64) },
        waysBack: goodContent(document).artefacts.map(({ path: _path, ...back }) => back),
      });
      await publish.publishContent({ releaseId, family, release, rollback });
      return { release, rollback };
    },
    device: (deviceId, failMode = 'fail-open') => {
      const key = deviceKey(fleetKey, deviceId);
      const device = newDevice({ deviceId, engine: engineA, failMode, profile: 'office', key });
      device.contentVersion = 1;
      return device;
    },
    takes: async (device, skewMs = 0) => {
      const poll = await pollWith(device, skewMs);
      const inForce = poll.kind === 'document' && poll.expiresAt > Date.now() + skewMs ? poll : null;
      const { reports, wants } = beat(device, inForce?.document ?? null);
      const asked = performance.now();
      const answer = await post(gateway.url, reports);
      if (inForce === null) return poll.kind === 'no-offer' ? poll.why : 'the document has expired';
      if (wants === null) return 'nothing is offered';
      const time = {
        ...{ expiresAt: inForce.expiresAt, now: Date.now() + skewMs, sinceAskedMs: performance.now() - asked },
      };
      if (!mayInstall(wants, answer, time)) return 'not acknowledged';
      await inForce.fetchArtefact(wants.content, engineId(engineA));
      install(device, wants.content, { outcome: 'healthy' });
      return wants.needsAcknowledgement ? true : 'took what needs no acknowledgement';
    },
    stop: async () => {
      await stopGateway();
      await repository.stop();
      await rm(root, { recursive: true, force: true });
    },
  };
};

/** The answer to the last of them, which is the poll. Nobody there: nothing is acknowledged. */
const post = async (url: string, reports: readonly unknown[]): Promise<ReportResult> => {
  try {
    const response = await fetch(`${url}/v1/reports`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ reports }),
    });
    const { results } = (await response.json()) as ReportsAnswer;
    return results.at(-1) ?? { status: 'rejected' };
  } catch {
    return { status: 'rejected' };
  }
};
