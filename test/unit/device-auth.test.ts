import { createHmac, createSecretKey, hkdfSync } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { DeviceReport } from '../../domain/telemetry.ts';
import { bucketOf } from '../../infra/cohort.ts';
import {
  checkReport,
  deviceKey,
  keyOfEpoch,
  newestKey,
  readKeyRing,
  rotateKey,
  signReport,
} from '../../infra/device-auth.ts';

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

const day = 24 * 3_600_000;
const now = 1_800_000_000_000;
const keysIn = (name: string) => join(folder, name);

describe('the fleet keys', () => {
  test('are made once, for their owner only, also by processes that start together', async () => {
    const keys = keysIn('made');
    const found = await Promise.all([readKeyRing(keys), readKeyRing(keys), readKeyRing(keys)]);
    expect(found[0]).toEqual([{ epoch: 1, key: expect.any(Uint8Array), acceptedUntil: null }]);
    expect(found[0]?.[0]?.key.length).toBe(32);
    expect(found[1]).toEqual(found[0]);
    expect(found[2]).toEqual(found[0]);
    expect(await readKeyRing(keys)).toEqual(found[0]);
    expect(await readdir(keys)).toEqual(['fleet-keys.json']);
    expect((await stat(join(keys, 'fleet-keys.json'))).mode & 0o777).toBe(0o600);
  });

  test('the single key of an older installation is that of epoch 1, also after a rotation', async () => {
    const keys = keysIn('older');
    await mkdir(keys);
    await writeFile(join(keys, 'fleet.key'), `${'ab'.repeat(32)}\n`);
    const old = { epoch: 1, key: Buffer.alloc(32, 0xab) };
    expect(await readKeyRing(keys)).toEqual([{ ...old, acceptedUntil: null }]);
    const ring = await rotateKey(keys, day, now);
    expect(ring).toEqual([
      { ...old, acceptedUntil: now + day },
      { epoch: 2, key: expect.any(Uint8Array), acceptedUntil: null },
    ]);
    expect(await readKeyRing(keys)).toEqual(ring);
    expect(await readdir(keys)).toEqual(['fleet-keys.json']);
    expect((await stat(join(keys, 'fleet-keys.json'))).mode & 0o777).toBe(0o600);
  });

  test('an end that was set is not put off by the next rotation, and what has ended is forgotten', async () => {
    const keys = keysIn('often');
    const ends = async (acceptOldMs: number, at: number) =>
      (await rotateKey(keys, acceptOldMs, at)).map(({ epoch, acceptedUntil }) => [epoch, acceptedUntil]);
    expect(await ends(2 * day, now)).toEqual([
      [1, now + 2 * day],
      [2, null],
    ]);
    expect(await ends(9 * day, now + day)).toEqual([
      [1, now + 2 * day],
      [2, now + 10 * day],
      [3, null],
    ]);
    expect(await ends(0, now + 3 * day)).toEqual([[4, null]]);
  });

  test('rotations at the same time make an epoch each', async () => {
    const keys = keysIn('at-once');
    await Promise.all([rotateKey(keys, day, now), rotateKey(keys, day, now), rotateKey(keys, day, now)]);
    expect((await readKeyRing(keys)).map(({ epoch }) => epoch)).toEqual([1, 2, 3, 4]);
  });

  test('a report of an ended or unknown epoch is told so', async () => {
    const keys = keysIn('told');
    await rotateKey(keys, day, now);
    const ring = await rotateKey(keys, day, now);
    expect(keyOfEpoch(ring, 1, now + day - 1)).toBe(ring[0]);
    expect(keyOfEpoch(ring, 3, now + 9 * day)).toBe(newestKey(ring));
    expect(keyOfEpoch(ring, 1, now + day)).toMatch(/^key epoch 1 has ended at 2027-.*needs its key of epoch 3$/);
    expect(keyOfEpoch(ring, 4, now)).toBe('there is no key epoch 4: expected at most 3');
    expect(keyOfEpoch(await rotateKey(keys, 0, now), 2, now)).toMatch(/^key epoch 2 has ended: /);
  });

  test.each([
    ['fleet.key', 'abc\n', 'hex digits'],
    ['fleet-keys.json', '{', 'no JSON'],
    ['fleet-keys.json', '{"keys":[]}', 'no list'],
    ['fleet-keys.json', '{"keys":[{"epoch":0,"key":"","acceptedUntil":null}]}', 'keys.0.epoch'],
    ['fleet-keys.json', `{"keys":[{"epoch":1,"key":"${'a'.repeat(63)}","acceptedUntil":null}]}`, 'hex digits'],
    ['fleet-keys.json', `{"keys":[{"epoch":1,"key":"${'a'.repeat(64)}","acceptedUntil":"soon"}]}`, 'acceptedUntil'],
  ])('damaged ones are refused by name, never replaced: %s %s', async (file, text, word) => {
    const keys = keysIn(`damaged-${file}-${text.length}`);
    await mkdir(keys);
    await writeFile(join(keys, file), text);
    const refusal = { code: 'SRP_INTEGRITY_FLEET_KEY', message: expect.stringContaining(word) };
    await expect(readKeyRing(keys)).rejects.toMatchObject(refusal);
    await expect(rotateKey(keys, 0, now)).rejects.toMatchObject(refusal);
    expect(await readFile(join(keys, file), 'utf8')).toBe(text);
  });
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
  expect(checkReport(createSecretKey(key), reordered, mac)).toBe(true);
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
