/** What a device does until its reports are taken, against the real gateway, and how its numbering outlives it. */
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { sendReports } from '../../apps/device/client.ts';
import type { SignedReport } from '../../apps/device/cycle.ts';
import { beginSequence } from '../../apps/device/sequence-file.ts';
import { SigrelError } from '../../domain/errors.ts';
import { reportsPerRequest } from '../../domain/telemetry.ts';
import { deviceKey, signReport } from '../../infra/device-auth.ts';
import { silent } from '../../infra/kafka/client.ts';
import { createMemoryTelemetryLog } from '../../infra/memory/telemetry-log.ts';
import { type GatewayLimits, startGateway } from '../../services/gateway.ts';
import { gatewayPorts } from '../support/devices.ts';

const fleetKey = Buffer.alloc(32, 3);
const never = new AbortController().signal;
const healthy = (deviceId: string, sequence: number): SignedReport => {
  const report = { deviceId, sequence, body: { kind: 'healthy', contentVersion: 1 } } as const;
  return { ...report, keyEpoch: 1, mac: signReport(deviceKey(fleetKey, deviceId), report) };
};
const later = (ms: number) => Date.now() + ms;

const ended: (() => Promise<void>)[] = [];
afterEach(async () => {
  await Promise.all(ended.splice(0).map((end) => end()));
});
const start = async (limits: Partial<GatewayLimits> = {}) => {
  const telemetry = createMemoryTelemetryLog();
  const gateway = await startGateway({
    ...gatewayPorts(fleetKey),
    ...{ telemetry, port: 0, clockMs: 60_000, ackMs: 1_000, log: silent, limits },
  });
  ended.push(() => gateway.stop());
  const taken = () =>
    telemetry.partitions.flat().flatMap((record) => ('report' in record ? [record.report.sequence] : []));
  return { telemetry, gateway, taken };
};

describe('reports that are not taken at once', () => {
  test('because the device is above its rate are sent again when the gateway said, each once and in order', async () => {
    const { gateway, taken } = await start({ deviceRate: { perSecond: 20, burst: 4 } });
    const reports = Array.from({ length: 10 }, (_, n) => healthy('a', n + 1));
    const results = await sendReports(gateway.url, reports, later(60_000), never);
    expect(results.map((result) => result?.status)).toEqual(Array(10).fill('accepted'));
    expect(taken()).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    expect(gateway.status().reports.limited).toBeGreaterThan(0);
  });

  test('because Kafka is away are sent again until it is back', async () => {
    const { gateway, telemetry, taken } = await start();
    vi.spyOn(telemetry, 'append').mockRejectedValueOnce(new SigrelError('SRP_DEP_KAFKA', 'away'));
    const results = await sendReports(gateway.url, [healthy('a', 1)], later(60_000), never);
    expect(results).toEqual([{ status: 'accepted' }]);
    expect(taken()).toEqual([1]);
  });

  test('in time are handed back, place by place, to be said again', async () => {
    const { gateway } = await start({ deviceRate: { perSecond: 0.01, burst: 1 } });
    const reports = [healthy('a', 1), healthy('a', 2), healthy('b', 1)];
    const results = await sendReports(gateway.url, reports, later(50), never);
    expect(results).toEqual([{ status: 'accepted' }, null, { status: 'accepted' }]);
    const nobody = await sendReports('http://127.0.0.1:1', reports, later(50), never);
    expect(nobody).toEqual([null, null, null]);
  });

  test('when the device is stopped are handed back at once', async () => {
    const stopping = new AbortController();
    const sent = sendReports('http://127.0.0.1:1', [healthy('a', 1)], later(3_600_000), stopping.signal);
    stopping.abort();
    expect(await sent).toEqual([null]);
  });

  test('wait as long as Retry-After says before they come again', async () => {
    const times: number[] = [];
    const server = createServer((_request, response) => {
      times.push(Date.now());
      if (times.length === 1) response.writeHead(503, { 'retry-after': '1' }).end();
      else response.writeHead(200, { 'content-type': 'application/json' }).end('{"results":[{"status":"accepted"}]}');
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    ended.push(() => new Promise((resolve) => server.close(() => resolve())));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    expect(await sendReports(url, [healthy('a', 1)], later(60_000), never)).toEqual([{ status: 'accepted' }]);
    expect((times[1] ?? 0) - (times[0] ?? 0)).toBeGreaterThanOrEqual(990);
    server.closeAllConnections();
  });

  test('because together they are too large go in several, and one that is by itself is rejected', async () => {
    const { gateway, taken } = await start({ bodyBytes: 1_000 });
    const large = { ...healthy('large', 7), keyEpoch: 1, padding: 'x'.repeat(2_000) };
    const reports = [...Array.from({ length: 20 }, (_, n) => healthy(`d-${n}`, n + 10)), large];
    const results = await sendReports(gateway.url, reports, later(60_000), never);
    expect(results.map((result) => result?.status)).toEqual([...Array(20).fill('accepted'), 'rejected']);
    expect(results[20]?.reason).toMatch(/413.*SRP_INPUT_SIZE/);
    expect(taken().length).toBe(20);
  });

  test('because one of them cannot be read are taken without it', async () => {
    const server = createServer((request, response) => {
      let text = '';
      request.on('data', (data) => {
        text += data;
      });
      request.on('end', () => {
        const { reports } = JSON.parse(text) as { reports: readonly SignedReport[] };
        if (reports.some(({ sequence }) => sequence === 3)) response.writeHead(400).end('unreadable');
        else {
          const results = reports.map(() => ({ status: 'accepted' }));
          response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ results }));
        }
      });
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    ended.push(() => new Promise((resolve) => server.close(() => resolve())));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const reports = [1, 2, 3, 4, 5].map((sequence) => healthy('a', sequence));
    const results = await sendReports(url, reports, later(60_000), never);
    expect(results.map((result) => result?.status)).toEqual([
      ...['accepted', 'accepted', 'rejected', 'accepted', 'accepted'],
    ]);
    expect(results[2]?.reason).toContain('unreadable');
    server.closeAllConnections();
  });

  test('more than one request may hold go in several', async () => {
    const { gateway, taken } = await start();
    const reports = Array.from({ length: reportsPerRequest + 5 }, (_, n) => healthy(`d-${n}`, 1));
    const results = await sendReports(gateway.url, reports, later(60_000), never);
    expect(results.filter((result) => result?.status === 'accepted').length).toBe(reports.length);
    expect(taken().length).toBe(reports.length);
  });
});

describe('the numbering of a device', () => {
  const inFolder = async (work: (file: string) => Promise<void>) => {
    const dir = await mkdtemp(join(tmpdir(), 'sigrel-sequence-'));
    try {
      await work(join(dir, 'sequence'));
      expect(await readdir(dir)).toEqual(['sequence']);
    } finally {
      await rm(dir, { recursive: true });
    }
  };

  test('goes on above everything that was used, also when the clock has lost its time', () =>
    inFolder(async (file) => {
      const now = 1_800_000_000_000;
      const first = await beginSequence(file, now);
      expect(first).toBe(now);
      const second = await beginSequence(file, 0); // 1970: the battery is empty
      expect(second).toBeGreaterThan(first + 10_000_000);
      const third = await beginSequence(file, 0);
      expect(third).toBeGreaterThan(second + 10_000_000);
      const fourth = await beginSequence(file, now + 365 * 24 * 3_600_000);
      expect(fourth).toBe(now + 365 * 24 * 3_600_000);
    }));

  test('begins with the clock where the file is damaged, and mends it', () =>
    inFolder(async (file) => {
      await writeFile(file, 'not a number');
      expect(await beginSequence(file, 5_000)).toBe(5_000);
      expect(await beginSequence(file, 0)).toBeGreaterThan(5_000);
    }));
});
