/** A gateway for each test of a file, with everything behind it in memory, and devices that talk to it. */
import { afterEach, beforeEach, expect } from 'vitest';
import type { DeviceReport, ReportResult } from '../../domain/telemetry.ts';
import { silent } from '../../infra/kafka/client.ts';
import { createMemoryTelemetryLog, type MemoryTelemetryLog } from '../../infra/memory/telemetry-log.ts';
import { type Gateway, startGateway } from '../../services/gateway.ts';
import { gatewayPorts, newFleet, pollBody } from './devices.ts';

export const fleetKey = Buffer.alloc(32, 7);
export const ackMs = 6_000;
export const offer = { releaseId: 'r1', contentVersion: 2 };

export const healthy = (deviceId: string, sequence: number): DeviceReport => ({
  ...{ deviceId, sequence, body: { kind: 'healthy', contentVersion: 1 } },
});
export const crash = (deviceId: string, sequence: number): DeviceReport => ({
  ...{ deviceId, sequence, body: { kind: 'crash', contentVersion: 1, words: 'signal 11' } },
});
export const offered = (deviceId: string, sequence: number): DeviceReport => ({
  ...{ deviceId, sequence, body: pollBody({ offer }) },
});

type Answer = { readonly status: number; readonly body: { readonly results: readonly ReportResult[] } };
export const statuses = ({ body }: Answer) => body.results.map(({ status }) => status);

/** Starts one before every test of the file that calls it, and stops all after it. What is given is that of the last started. */
export const gatewayPerTest = () => {
  let telemetry: MemoryTelemetryLog;
  let gateway: Gateway;
  let fleet: ReturnType<typeof newFleet>;
  let grantedMs: () => number;
  const running: Gateway[] = [];
  const start = async (changes: Partial<Parameters<typeof startGateway>[0]> = {}) => {
    telemetry = createMemoryTelemetryLog();
    grantedMs = () => 60_000;
    gateway = await startGateway({
      ...gatewayPorts(fleetKey),
      ...{ telemetry, port: 0, clockMs: 60_000, ackMs, refreshMs: 20, offers: async () => grantedMs, log: silent },
      ...changes,
    });
    running.push(gateway);
    fleet = newFleet(gateway.url, fleetKey);
  };
  beforeEach(() => start());
  afterEach(async () => {
    await Promise.all(running.splice(0).map((one) => one.stop()));
  });
  return {
    start,
    get gateway() {
      return gateway;
    },
    get telemetry() {
      return telemetry;
    },
    /** How long the store grants what polls ask for, from now on. */
    grant: (lastsMs: number) => {
      grantedMs = () => lastsMs;
    },
    sign: (report: DeviceReport) => fleet.sign(report),
    send: (bodies: Parameters<typeof fleet.send>[0]) => fleet.send(bodies),
    post: async (signed: readonly unknown[]) => (await fleet.post(signed)) as Answer,
    /** A request as it is, whatever it holds. */
    postText: (body: string, type = 'application/json') =>
      fetch(`${gateway.url}/v1/reports`, { method: 'POST', headers: { 'content-type': type }, body }),
    /** What the log of telemetry took. */
    reports: () => telemetry.partitions.flat().flatMap((record) => ('report' in record ? [record.report] : [])),
    /** Every report that came has exactly one end. */
    expectSum: () => {
      const { received, ...ends } = gateway.status().reports;
      expect(Object.values(ends).reduce((sum, one) => sum + one, 0)).toBe(received);
    },
  };
};
