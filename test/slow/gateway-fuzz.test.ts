/**
 * A million malformed reports and, between them, valid ones: no crash, no wrong count, everything accounted for. All go through
 * the check that the gateway uses; some of them over HTTP through all of it.
 */
import { createSecretKey } from 'node:crypto';
import { afterEach, expect, test } from 'vitest';
import type { DeviceReport } from '../../domain/telemetry.ts';
import { deviceKey, signReport } from '../../infra/device-auth.ts';
import { silent } from '../../infra/kafka/client.ts';
import { createMemoryTelemetryLog } from '../../infra/memory/telemetry-log.ts';
import { type Gateway, startGateway } from '../../services/gateway.ts';
import { createReportCheck, type Looked, refuse } from '../../services/report-check.ts';
import { gatewayPorts } from '../support/devices.ts';
import { malform, validReport } from '../support/devices-fuzz.ts';
import { type Random, seeded } from '../support/random.ts';

const fleetKey = Buffer.alloc(32, 9);
const keys = [{ epoch: 1, key: fleetKey, acceptedUntil: null }];
const devices = Array.from({ length: 500 }, (_, n) => `device-${n}`);
const keyOf = new Map(devices.map((id) => [id, createSecretKey(deviceKey(fleetKey, id))]));

let gateway: Gateway | undefined;
afterEach(async () => {
  await gateway?.stop();
  gateway = undefined;
});

/** Signed reports with numbers of their own; a malformed one never takes the number of a valid one that comes later. */
const newSigner = (random: Random) => {
  let sequence = 0;
  return (): DeviceReport & { keyEpoch: number; mac: string } => {
    const deviceId = devices[sequence % devices.length] ?? '';
    sequence += 1;
    const report = validReport(random, deviceId, sequence * 2_000);
    return { ...report, keyEpoch: 1, mac: signReport(keyOf.get(deviceId) ?? fleetKey, report) };
  };
};

/** As the gateway does when the ring, read once more, has no such key. */
const settled = (looked: Looked): Looked => (looked.kind === 'ahead' ? refuse('key-epoch', looked.reason) : looked);

const signFirst = (deviceId: string) => {
  const report: DeviceReport = { deviceId, sequence: 0, body: { kind: 'healthy', contentVersion: 1 } };
  return { ...report, keyEpoch: 1, mac: signReport(keyOf.get(deviceId) ?? fleetKey, report) };
};

test('1,000,000 malformed reports are refused one by one with a reason, and 20,000 valid ones between them are taken', () => {
  const random = seeded(20_261_128);
  const sign = newSigner(random);
  // A pool to mutate: signing takes longer than the check.
  const pool = Array.from({ length: 4_000 }, () => JSON.stringify(sign()));
  const check = createReportCheck({
    keys: () => keys,
    revoked: () => new Map(),
    devices: 1_000,
    deviceRate: { perSecond: 1e6, burst: 1e6 },
  });
  // Known before, as they are after their first report.
  for (const deviceId of devices) {
    check.check(signFirst(deviceId), 0);
    check.place([{ deviceId, site: null }]);
  }
  const found: Record<string, number> = {};
  let malformed = 0;
  let valid = 0;
  for (; malformed < 1_000_000; malformed += 1) {
    const made = malform(random, pool[malformed % pool.length] ?? '');
    const result = settled(check.check(made, 0));
    if (result.kind !== 'refused') throw new Error(`taken as ${result.kind}: ${JSON.stringify(made)}`);
    if (result.reason.length === 0 || result.reason.length > 400) throw new Error(`the reason is ${result.reason}`);
    found[result.why] = (found[result.why] ?? 0) + 1;
    if (malformed % 50 === 0) {
      const report = sign();
      const taken = check.check(report, 0);
      if (taken.kind !== 'fresh') throw new Error(`a valid report was ${taken.kind}: ${JSON.stringify(report)}`);
      check.markTaken(taken);
      if (check.check(report, 0).kind !== 'duplicate') throw new Error('a repeat was not found');
      valid += 1;
    }
  }
  expect(valid).toBe(20_000);
  expect(Object.values(found).reduce((sum, one) => sum + one, 0)).toBe(1_000_000);
  // The generator reaches every way to be refused.
  for (const why of ['schema', 'mac', 'key-epoch']) expect(found[why]).toBeGreaterThan(20_000);
});

test('30,000 malformed and 3,000 valid reports over HTTP: each is accepted, or rejected and a dead letter; the log has the valid ones', async () => {
  const random = seeded(7);
  const sign = newSigner(random);
  const telemetry = createMemoryTelemetryLog();
  const rate = { perSecond: 0.001, burst: 25_000 };
  gateway = await startGateway({
    ...gatewayPorts(fleetKey),
    ...{ telemetry, port: 0, clockMs: 60_000, ackMs: 1_000, log: silent, limits: { deadLetterRate: rate } },
  });
  const valid: DeviceReport[] = [];
  let requests = 0;
  for (let batch = 0; batch < 30; batch += 1) {
    const reports: unknown[] = [];
    const expected: string[] = [];
    for (let n = 0; n < 1_100; n += 1) {
      const signed = sign();
      if (n % 11 === 0) {
        const { mac: _mac, keyEpoch: _epoch, ...report } = signed;
        valid.push(report);
        reports.push(signed);
        expected.push('accepted');
      } else {
        reports.push(malform(random, JSON.stringify(signed)));
        expected.push('rejected');
      }
    }
    const response = await fetch(`${gateway.url}/v1/reports`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ reports }),
    });
    expect(response.status).toBe(200);
    const { results } = (await response.json()) as { results: { status: string }[] };
    expect(results.map(({ status }) => status)).toEqual(expected);
    // Requests that are torn on the way are refused as a whole, and none of their reports counts.
    const text = JSON.stringify({ reports: [sign()] });
    const torn = await fetch(`${gateway.url}/v1/reports`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: text.slice(0, 1 + Math.floor(random() * (text.length - 1))),
    });
    expect(torn.status).toBe(400);
    requests += 1;
  }
  const logged = telemetry.partitions.flat().flatMap((record) => ('report' in record ? [record.report] : []));
  const bySequence = (a: DeviceReport, b: DeviceReport) => a.sequence - b.sequence;
  expect(logged.toSorted(bySequence)).toEqual(valid.toSorted(bySequence));
  const { reports, rejected, deadLetters, requests: whole } = gateway.status();
  expect(reports).toEqual({
    received: 33_000,
    accepted: 3_000,
    rejected: 30_000,
    duplicate: 0,
    limited: 0,
    unavailable: 0,
  });
  expect(Object.values(rejected).reduce((sum, one) => sum + one, 0)).toBe(30_000);
  expect(deadLetters).toEqual({ kept: 25_000, dropped: 5_000, waiting: 0 });
  expect(telemetry.refused.filter(({ received }) => received !== '').length).toBe(25_000);
  expect(whole).toEqual({ unreadable: requests, overloaded: 0 });
});
