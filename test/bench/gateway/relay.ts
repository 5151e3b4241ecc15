/**
 * The load of `npm run bench -- gateway`, in a process of its own: relays that send signed reports in batches over connections
 * that stay open. Everything is signed before the time runs. Talks to its parent by messages.
 */
import { Agent, request } from 'node:http';
import type { DeviceReport, ReportsAnswer } from '../../../domain/telemetry.ts';
import { deviceKey, signReport } from '../../../infra/device-auth.ts';

export type Load = {
  readonly url: string;
  readonly fleetKey: string;
  readonly devices: number;
  readonly batches: number;
  readonly perBatch: number;
  readonly connections: number;
  /** Sequences begin above it. */
  readonly sequence: number;
};
export type LoadDone = {
  readonly wallMs: number;
  readonly bytes: number;
  /** How many reports were answered how; `http-503` and the like for requests that were refused as a whole. */
  readonly answers: Readonly<Record<string, number>>;
  /** Of every batch, in ms. */
  readonly latencies: readonly number[];
  readonly cpuMs: number;
};

const engine = { name: 'suricata', version: '8.0.7', packageVersion: '1:8.0.7-1', digest: 'ab'.repeat(32) };

/** A heartbeat, as nearly all reports are. */
export const heartbeatOf = (device: number, sequence: number): DeviceReport => ({
  deviceId: `device-${String(device).padStart(6, '0')}`,
  sequence,
  body: { kind: 'poll', engine, failMode: 'fail-open', contentVersion: 17, directorVersion: 421, offer: null },
});

const makeBodies = (load: Load): readonly Buffer[] => {
  const fleetKey = Buffer.from(load.fleetKey, 'hex');
  const keys = Array.from({ length: load.devices }, (_, device) =>
    deviceKey(fleetKey, heartbeatOf(device, 0).deviceId),
  );
  let next = 0;
  return Array.from({ length: load.batches }, () => {
    const reports = Array.from({ length: load.perBatch }, () => {
      const device = next % load.devices;
      const report = heartbeatOf(device, load.sequence + Math.floor(next / load.devices));
      next += 1;
      return { ...report, keyEpoch: 1, mac: signReport(keys[device] ?? fleetKey, report) };
    });
    return Buffer.from(JSON.stringify({ reports }));
  });
};

const send = async (load: Load, bodies: readonly Buffer[]): Promise<LoadDone> => {
  const agent = new Agent({ keepAlive: true, maxSockets: load.connections });
  const url = new URL(`${load.url}/v1/reports`);
  const post = (body: Buffer): Promise<{ status: number; text: string }> =>
    new Promise((resolve, reject) => {
      const headers = { 'content-type': 'application/json', 'content-length': body.length };
      const sent = request(url, { method: 'POST', agent, headers }, (response) => {
        let text = '';
        response.setEncoding('utf8');
        response.on('data', (chunk: string) => {
          text += chunk;
        });
        response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
      });
      sent.on('error', reject);
      sent.end(body);
    });
  const answers: Record<string, number> = {};
  const latencies: number[] = [];
  let next = 0;
  const work = async (): Promise<void> => {
    for (let body = bodies[next++]; body !== undefined; body = bodies[next++]) {
      const started = performance.now();
      const { status, text } = await post(body);
      latencies.push(performance.now() - started);
      const results = status === 200 ? (JSON.parse(text) as ReportsAnswer).results : null;
      const ends = results?.map((one) => one.status) ?? Array<string>(load.perBatch).fill(`http-${status}`);
      for (const end of ends) answers[end] = (answers[end] ?? 0) + 1;
    }
  };
  const cpu = process.cpuUsage();
  const started = performance.now();
  await Promise.all(Array.from({ length: load.connections }, work));
  const wallMs = performance.now() - started;
  const used = process.cpuUsage(cpu);
  agent.destroy();
  const bytes = bodies.reduce((sum, body) => sum + body.length, 0);
  return { wallMs, bytes, answers, latencies, cpuMs: (used.user + used.system) / 1_000 };
};

let prepared: { load: Load; bodies: readonly Buffer[] } | null = null;
process.on('message', async (message: Load | 'go') => {
  if (message !== 'go') {
    // Every device has been heard once when the time begins to run: its key is derived with its first report only.
    const first = Math.ceil(message.devices / message.perBatch);
    const bodies = makeBodies({ ...message, batches: message.batches + first });
    await send(message, bodies.slice(0, first));
    prepared = { load: message, bodies: bodies.slice(first) };
    process.send?.('ready');
  } else if (prepared !== null) {
    process.send?.(await send(prepared.load, prepared.bodies));
  }
});
