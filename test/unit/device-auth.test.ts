import { createHmac, hkdfSync } from 'node:crypto';
import { mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { DeviceReport } from '../../domain/telemetry.ts';
import { bucketOf } from '../../infra/cohort.ts';
import { checkReport, deviceKey, readFleetKey, signReport } from '../../infra/device-auth.ts';

const report: DeviceReport = {
  deviceId: 'fw-0001',
  sequence: 7,
  body: { kind: 'crash', contentVersion: 2, words: 'signal 11' },
};

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sigrel-keys-'));
});
afterAll(() => rm(folder, { recursive: true }));

test('the fleet key is made once, for its owner only, also by processes that start together', async () => {
  const keys = join(folder, 'keys');
  const found = await Promise.all([readFleetKey(keys), readFleetKey(keys), readFleetKey(keys)]);
  expect(found[0]?.length).toBe(32);
  expect(found[1]).toEqual(found[0]);
  expect(found[2]).toEqual(found[0]);
  expect(await readFleetKey(keys)).toEqual(found[0]);
  expect(await readdir(keys)).toEqual(['fleet.key']);
  expect((await stat(join(keys, 'fleet.key'))).mode & 0o777).toBe(0o600);
});

test('a damaged fleet key is refused by name, never replaced', async () => {
  await writeFile(join(folder, 'fleet.key'), 'abc\n');
  await expect(readFleetKey(folder)).rejects.toMatchObject({ code: 'SRP_INTEGRITY_FLEET_KEY' });
});

test('a MAC is HMAC-SHA256 under the HKDF key of the device, over sorted JSON', () => {
  const fleet = Buffer.alloc(32, 1);
  const key = Buffer.from(hkdfSync('sha256', fleet, '', 'sigrel/device/v1\nfw-0001', 32));
  const text = '{"body":{"contentVersion":2,"kind":"crash","words":"signal 11"},"deviceId":"fw-0001","sequence":7}';
  expect(deviceKey(fleet, 'fw-0001')).toEqual(key);
  expect(signReport(key, report)).toBe(createHmac('sha256', key).update(text).digest('hex'));
});

test('a MAC holds for its report and its device only, whatever the order of fields', () => {
  const fleet = Buffer.alloc(32, 1);
  const key = deviceKey(fleet, report.deviceId);
  const mac = signReport(key, report);
  const reordered: DeviceReport = {
    body: { words: 'signal 11', contentVersion: 2, kind: 'crash' },
    sequence: 7,
    deviceId: 'fw-0001',
  };
  expect(checkReport(key, reordered, mac)).toBe(true);
  expect(checkReport(key, { ...report, sequence: 8 }, mac)).toBe(false);
  expect(checkReport(deviceKey(fleet, 'fw-0002'), report, mac)).toBe(false);
  for (const wrong of ['', 'zz', mac.slice(2), `${mac}00`, `00${mac.slice(2)}`]) {
    expect(checkReport(key, report, wrong)).toBe(wrong === mac);
  }
});

test('a bucket is the first four bytes of the hash', () => {
  // sha256("salt\nfw-0001")
  expect(bucketOf('salt', 'fw-0001')).toBe(0x0e52e783);
});
