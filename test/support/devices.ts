/** Scripted devices that talk to a gateway over HTTP, each with its own key and sequence. */
import type { EngineBuild, FailMode } from '../../domain/release.ts';
import type { DeviceReport, ReportResult } from '../../domain/telemetry.ts';
import { deviceKey, type FleetKey, signReport } from '../../infra/device-auth.ts';
import { createMemoryAcknowledgements } from '../../infra/memory/acknowledgements.ts';
import { createMemorySites } from '../../infra/memory/sites.ts';

type Body = DeviceReport['body'];

export const engineA: EngineBuild = { name: 'ids', version: '1.0', packageVersion: '1.0-1', digest: 'ab'.repeat(32) };

export const pollBody = (
  changes: { version?: number; failMode?: FailMode; offer?: { releaseId: string; contentVersion: number } } = {},
): Body => ({
  kind: 'poll',
  engine: engineA,
  failMode: changes.failMode ?? 'fail-open',
  contentVersion: changes.version ?? 1,
  directorVersion: 1,
  offer: changes.offer ?? null,
});

/** What a gateway needs to know of the devices: one fleet key, nobody revoked, sites and acknowledgements kept in memory. */
export const gatewayPorts = (fleetKey: Uint8Array) => ({
  keys: async (): Promise<readonly FleetKey[]> => [{ epoch: 1, key: fleetKey, acceptedUntil: null }],
  revoked: async (): Promise<ReadonlyMap<string, string>> => new Map(),
  sites: createMemorySites(),
  acknowledgements: createMemoryAcknowledgements(),
  // What may be offered is the store's matter: here everything is.
  offers: async () => () => 3_600_000,
});

export const newFleet = (url: string, fleetKey: Uint8Array) => {
  const sequences = new Map<string, number>();
  const sign = (report: DeviceReport) => ({ ...report, mac: signReport(deviceKey(fleetKey, report.deviceId), report) });
  const post = async (reports: readonly unknown[]): Promise<{ status: number; body: unknown }> => {
    const response = await fetch(`${url}/v1/reports`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ reports }),
    });
    return { status: response.status, body: await response.json() };
  };
  return {
    sign,
    post,
    /** Signs and sends one report of each device; throws unless the gateway took the request. */
    send: async (bodies: readonly (readonly [deviceId: string, body: Body])[]): Promise<readonly ReportResult[]> => {
      const reports = bodies.map(([deviceId, body]) => {
        const sequence = (sequences.get(deviceId) ?? 0) + 1;
        sequences.set(deviceId, sequence);
        return sign({ deviceId, sequence, body });
      });
      const { status, body } = await post(reports);
      if (status !== 200) throw new Error(`the gateway answered ${status}: ${JSON.stringify(body)}`);
      return (body as { results: ReportResult[] }).results;
    },
  };
};
