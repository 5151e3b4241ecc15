/** Packed requests: taken as others are, and never more unpacked than a request may have. */
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { silent } from '../../infra/kafka/client.ts';
import { createMemoryTelemetryLog } from '../../infra/memory/telemetry-log.ts';
import { type Gateway, startGateway } from '../../services/gateway.ts';
import { gatewayPorts, newFleet, pollBody } from '../support/devices.ts';

const fleetKey = Buffer.alloc(32, 9);
const limit = 64 * 1024;
let gateway: Gateway;
let telemetry: ReturnType<typeof createMemoryTelemetryLog>;

const start = async (limits?: { readonly bodyBytes: number; readonly bytesInFlight: number }) => {
  telemetry = createMemoryTelemetryLog();
  gateway = await startGateway({
    ...{ ...gatewayPorts(fleetKey), telemetry, port: 0, clockMs: 60_000, ackMs: 1_000, log: silent },
    ...(limits && { limits }),
  });
};
beforeEach(() => start({ bodyBytes: limit, bytesInFlight: limit }));
afterEach(() => gateway.stop());

const post = async (body: Buffer, encoding: string) => {
  const headers = { 'content-type': 'application/json', 'content-encoding': encoding };
  const response = await fetch(`${gateway.url}/v1/reports`, { method: 'POST', headers, body: new Uint8Array(body) });
  const taken = response.headers.get('accept-encoding');
  return { status: response.status, taken, body: (await response.json()) as { code?: string; detail?: string } };
};
const reportsOf = (devices: number) => {
  const { sign } = newFleet(gateway.url, fleetKey);
  const signed = Array.from({ length: devices }, (_, n) => sign({ deviceId: `d${n}`, sequence: 1, body: pollBody() }));
  return Buffer.from(JSON.stringify({ reports: signed }));
};

test('reports in a packed request are taken, also where it would not fit into what is on its way now', async () => {
  const text = reportsOf(50);
  const { status, body } = await post(gzipSync(text), 'gzip');
  expect([status, body]).toEqual([200, { results: Array(50).fill({ status: 'accepted' }) }]);
  expect((await post(text, 'identity')).body).toEqual({ results: Array(50).fill({ status: 'duplicate' }) });
  await expect.poll(() => gateway.status().bytesInFlight).toBe(0);
});

test('what is on its way is what it is unpacked, not what it might have been: many small ones are taken at once', async () => {
  await gateway.stop();
  await start();
  const held = Promise.withResolvers<void>();
  const append = telemetry.append;
  const appending = vi.spyOn(telemetry, 'append').mockImplementation((list) => held.promise.then(() => append(list)));
  const { sign } = newFleet(gateway.url, fleetKey);
  const texts = Array.from({ length: 20 }, (_, n) => {
    const reports = [sign({ deviceId: `d${n}`, sequence: 1, body: pollBody() })];
    return Buffer.from(JSON.stringify({ reports }));
  });
  const answers = texts.map((text) => post(gzipSync(text), 'gzip'));
  await expect.poll(() => appending.mock.calls.length).toBe(texts.length);
  const bytes = texts.reduce((sum, text) => sum + gzipSync(text).length + text.length, 0);
  expect(gateway.status()).toMatchObject({ bytesInFlight: bytes, requests: { overloaded: 0 } });
  held.resolve();
  expect((await Promise.all(answers)).map(({ status }) => status)).toEqual(Array(texts.length).fill(200));
  await expect.poll(() => gateway.status().bytesInFlight).toBe(0);
});

test.each(['GZIP', 'x-gzip', 'X-Gzip'])('gzip is also called %s, and what is not packed Identity', async (name) => {
  const text = reportsOf(1);
  expect((await post(gzipSync(text), name)).body).toEqual({ results: [{ status: 'accepted' }] });
  expect((await post(text, 'Identity')).body).toEqual({ results: [{ status: 'duplicate' }] });
});

test('what is not packed takes no more room than its length, also when it says so', async () => {
  const held = Promise.withResolvers<void>();
  const appending = vi.spyOn(telemetry, 'append').mockImplementation(() => held.promise);
  const text = reportsOf(1);
  const answer = post(text, 'identity');
  await expect.poll(() => appending.mock.calls.length).toBe(1);
  expect(gateway.status().bytesInFlight).toBe(text.length);
  held.resolve();
  expect((await answer).status).toBe(200);
});

test('what unpacks to more than a request may have is too large, however small it came', async () => {
  // A thousandth, packed: within what a request may have.
  const bomb = gzipSync(Buffer.alloc(48 * 2 ** 20, ' '));
  expect(bomb.length).toBeLessThan(limit);
  const twice = Buffer.concat([gzipSync(Buffer.alloc(limit - 1, ' ')), gzipSync(Buffer.from('  '))]);
  for (const packed of [bomb, twice]) {
    const { status, body } = await post(packed, 'gzip');
    expect([status, body.code]).toEqual([413, 'SRP_INPUT_SIZE']);
    expect(body.detail).toContain(`larger than ${limit} bytes, unpacked`);
  }
  expect(gateway.status().requests).toEqual({ unreadable: 2, overloaded: 0 });
  await expect.poll(() => gateway.status().bytesInFlight).toBe(0);
  expect((await post(gzipSync(reportsOf(1)), 'gzip')).status).toBe(200);
});

test.each([
  ['no gzip', Buffer.from('{"reports":[]}'), 'gzip', 400, /incorrect header check/],
  ['the beginning of a gzip', gzipSync(Buffer.from('{"reports":[]}')).subarray(0, 20), 'gzip', 400, /unexpected end/],
  ['gzip of no JSON', gzipSync(Buffer.from('{"reports":')), 'gzip', 400, /JSON/],
  ['another packing', Buffer.from('{}'), 'br', 415, /content-encoding is br, expected gzip or none/],
  ['packed twice', Buffer.from('{}'), 'gzip, gzip', 415, /content-encoding is gzip, gzip, expected/],
])('%s is refused with what was expected', async (_, packed, encoding, status, detail) => {
  const answer = await post(packed, encoding);
  expect([answer.status, answer.body.code]).toEqual([status, 'SRP_INPUT_REPORTS']);
  expect(answer.body.detail).toMatch(detail);
  expect(answer.taken).toBe(status === 415 ? 'gzip' : null);
  expect(answer.body.detail).toContain('expected application/json: { "reports": [...] }');
});

test.each(['PUT', 'DELETE'])('%s is not there, also with a body', async (method) => {
  const headers = { 'content-type': 'application/json', 'content-encoding': 'gzip' };
  const body = new Uint8Array(gzipSync(reportsOf(1)));
  expect((await fetch(`${gateway.url}/v1/reports`, { method, headers, body })).status).toBe(404);
  await expect.poll(() => gateway.status().bytesInFlight).toBe(0);
});

test('another content type is refused without a word about packing', async () => {
  const response = await fetch(`${gateway.url}/v1/reports`, { method: 'POST', body: 'x' });
  expect([response.status, response.headers.get('accept-encoding')]).toEqual([415, null]);
});
