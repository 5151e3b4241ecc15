/**
 * How a report proves which device it comes from: HMAC-SHA256 under a key derived from the fleet key, so that the gateway
 * needs no lookup. A device holds its own key only; whoever holds the fleet key can speak for every device.
 */
import { createHmac, hkdfSync, randomBytes, randomUUID, timingSafeEqual } from 'node:crypto';
import { link, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SigrelError } from '../domain/errors.ts';
import type { DeviceReport } from '../domain/telemetry.ts';
import { canonicalJson } from '../events/canonical-json.ts';

const keyBytes = 32;

/**
 * The fleet key in `<keysDir>/fleet.key` (64 hex digits, mode 0600); made on first use, also when several processes come at
 * once. Throws SRP_INTEGRITY_FLEET_KEY when the file holds something else.
 */
export const readFleetKey = async (keysDir: string): Promise<Uint8Array> => {
  const file = join(keysDir, 'fleet.key');
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null;
    throw error;
  });
  if (text === null) {
    await makeKey(keysDir, file);
    return readFleetKey(keysDir);
  }
  if (!/^[0-9a-f]{64}\n?$/.test(text)) {
    throw new SigrelError(
      'SRP_INTEGRITY_FLEET_KEY',
      `${file} is not a fleet key: expected ${keyBytes * 2} hex digits. Restore it from a backup; a new key locks out every enrolled device`,
    );
  }
  return Buffer.from(text.trim(), 'hex');
};

/** Written beside and linked into place: nobody reads half a key, and of two makers the first wins. */
const makeKey = async (keysDir: string, file: string): Promise<void> => {
  await mkdir(keysDir, { recursive: true, mode: 0o700 });
  const draft = `${file}.${randomUUID()}`;
  await writeFile(draft, `${randomBytes(keyBytes).toString('hex')}\n`, { mode: 0o600, flush: true });
  try {
    await link(draft, file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  } finally {
    await rm(draft);
  }
};

/** HKDF-SHA256 of the fleet key, without salt, bound to this use and to the device. */
export const deviceKey = (fleetKey: Uint8Array, deviceId: string): Uint8Array =>
  Buffer.from(hkdfSync('sha256', fleetKey, '', `sigrel/device/v1\n${deviceId}`, keyBytes));

/** HMAC-SHA256 (hex) over the canonical JSON of the report. */
export const signReport = (key: Uint8Array, report: DeviceReport): string => mac(key, report).toString('hex');

/** Whether `given` (hex) is the report's MAC; takes the same time wherever they differ. */
export const checkReport = (key: Uint8Array, report: DeviceReport, given: string): boolean => {
  const expected = mac(key, report);
  const bytes = Buffer.from(given, 'hex');
  return bytes.length === expected.length && timingSafeEqual(bytes, expected);
};

const mac = (key: Uint8Array, report: DeviceReport): Buffer =>
  createHmac('sha256', key).update(canonicalJson(report)).digest();
