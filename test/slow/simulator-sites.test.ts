/** The simulated fleet against the real gateway: devices stay where they were first heard. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { readTrustedRoot, startSimulator } from '../../apps/simulator/simulator.ts';
import { silent } from '../../infra/kafka/client.ts';
import { createMemoryTelemetryLog } from '../../infra/memory/telemetry-log.ts';
import { createFileBlobs } from '../../infra/store/blobs.ts';
import { createDirectorStore } from '../../infra/tuf/director-store.ts';
import { type Gateway, startGateway } from '../../services/gateway.ts';
import { engineA, gatewayPorts } from '../support/devices.ts';

const fleetKey = Buffer.alloc(32, 5);
let root: string;
let gateway: Gateway;
let telemetry: ReturnType<typeof createMemoryTelemetryLog>;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'sigrel-sites-'));
  const store = createDirectorStore({
    ...{ dir: join(root, 'store'), keysDir: join(root, 'keys'), now: Date.now },
    blobs: createFileBlobs(join(root, 'store', 'blobs')),
  });
  await store.initialiseFamily('ips', [{ engine: engineA, bytes: new Uint8Array(1) }]);
  telemetry = createMemoryTelemetryLog();
  const limits = { telemetry, port: 0, clockMs: 60_000, ackMs: 1_000, log: silent };
  gateway = await startGateway({ ...gatewayPorts(fleetKey), ...limits });
});
afterEach(async () => {
  await gateway.stop();
  await rm(root, { recursive: true, force: true });
});

const simulate = async (devicesPerSite?: number) => {
  const simulator = await startSimulator({
    fleet: {
      ...{ devices: 6, traffic: '.', profiles: [{ name: 'office', share: 1 }], captures: new Map() },
      segments: [{ engine: engineA.version, failMode: 'fail-open', share: 1 }],
      ...(devicesPerSite !== undefined && { devicesPerSite }),
    },
    packs: [{ build: engineA, wanted: engineA.version, dir: root }],
    ...{ keys: gatewayPorts(fleetKey).keys, family: 'ips', gatewayUrl: gateway.url },
    // Nobody answers there: no device is offered anything.
    repositoryUrl: 'http://127.0.0.1:1',
    trustedRoot: await readTrustedRoot(join(root, 'store')),
    ...{ dir: join(root, 'simulator'), heartbeatMs: 500, ownClients: 0 },
  });
  await simulator.enrolled.finally(() => simulator.stop());
};

test('a fleet whose devicesPerSite was changed is refused as a whole, with what to do; the old one goes on', async () => {
  await simulate(2);
  const before = gateway.status().reports.accepted;
  for (const changed of [3, undefined]) {
    await expect(simulate(changed)).rejects.toMatchObject({
      code: 'SRP_INPUT_FLEET',
      message: expect.stringMatching(
        new RegExp(
          `^devicesPerSite: ${changed ?? 'none'} puts devices at other sites .*device-00\\d+ says .*, expected site-.*Set it back .*, or forget`,
        ),
      ),
    });
  }
  await simulate(2);
  expect(gateway.status().reports.accepted).toBeGreaterThan(before);
});
