/**
 * How a report proves which device it comes from: HMAC-SHA256 under a key derived from a fleet key, so that the gateway
 * needs no lookup. A device holds its own key only; whoever holds the fleet key can speak for every device. Fleet keys are
 * numbered by epoch: a new one takes over while the one before is still accepted, until a stated end.
 */
import { createHmac, hkdfSync, type KeyObject, randomBytes, randomUUID, timingSafeEqual } from 'node:crypto';
import { link, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SigrelError } from '../domain/errors.ts';
import type { DeviceReport } from '../domain/telemetry.ts';
import { canonicalJson } from '../events/canonical-json.ts';
import { withLock } from './store/lock.ts';

const keyBytes = 32;

export type FleetKey = {
  readonly epoch: number;
  readonly key: Uint8Array;
  /** Time (ms) from which reports of this epoch are refused; null: no end is set. */
  readonly acceptedUntil: number | null;
};

/** Oldest first, never empty; the last one is what devices sign with. */
export type KeyRing = readonly FleetKey[];

/** As it stands in the file. */
type Stored = { readonly keys: readonly { epoch: number; key: string; acceptedUntil: string | null }[] };

const ringFile = (keysDir: string): string => join(keysDir, 'fleet-keys.json');
/** What installations from before key rotation have: the key of epoch 1 alone, 64 hex digits. */
const singleFile = (keysDir: string): string => join(keysDir, 'fleet.key');

/**
 * The fleet keys in `<keysDir>/fleet-keys.json` (mode 0600), or the single `fleet.key` of an older installation; made on first
 * use, also when several processes come at once. Throws SRP_INTEGRITY_FLEET_KEY when a file holds something else.
 */
export const readKeyRing = async (keysDir: string): Promise<KeyRing> => {
  const ring = await textOf(ringFile(keysDir));
  if (ring !== null) return parseRing(ringFile(keysDir), ring);
  const single = await textOf(singleFile(keysDir));
  if (single !== null) return [{ epoch: 1, key: parseKey(singleFile(keysDir), single.trim()), acceptedUntil: null }];
  await makeRing(keysDir);
  return readKeyRing(keysDir);
};

export const newestKey = (ring: KeyRing): FleetKey => {
  const newest = ring.at(-1);
  if (newest === undefined) throw damaged('the key ring', 'it has no key');
  return newest;
};

/**
 * Adds a key of the next epoch. Those before are accepted for `acceptOldMs` more, or as long as was said before, whichever is
 * shorter; keys whose end has passed are forgotten.
 */
export const rotateKey = (keysDir: string, acceptOldMs: number, now: number): Promise<KeyRing> =>
  withLock(`${ringFile(keysDir)}.lock`, async () => {
    const before = await readKeyRing(keysDir);
    const kept = before
      .map((one) => ({
        ...one,
        acceptedUntil: Math.min(one.acceptedUntil ?? Number.POSITIVE_INFINITY, now + acceptOldMs),
      }))
      .filter(({ acceptedUntil }) => acceptedUntil > now);
    const ring = [...kept, newKey(newestKey(before).epoch + 1)];
    const draft = await writeDraft(keysDir, ring);
    await rename(draft, ringFile(keysDir));
    await rm(singleFile(keysDir), { force: true });
    return ring;
  });

const newKey = (epoch: number): FleetKey => ({ epoch, key: randomBytes(keyBytes), acceptedUntil: null });

const textOf = (file: string): Promise<string | null> =>
  readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null;
    throw error;
  });

/** Of two makers the first wins. */
const makeRing = async (keysDir: string): Promise<void> => {
  const draft = await writeDraft(keysDir, [newKey(1)]);
  try {
    await link(draft, ringFile(keysDir));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  } finally {
    await rm(draft);
  }
};

/** Written beside and then put into place: nobody reads half a ring. */
const writeDraft = async (keysDir: string, ring: KeyRing): Promise<string> => {
  await mkdir(keysDir, { recursive: true, mode: 0o700 });
  const draft = `${ringFile(keysDir)}.${randomUUID()}`;
  const keys = ring.map(({ epoch, key, acceptedUntil }) => ({
    epoch,
    key: Buffer.from(key).toString('hex'),
    acceptedUntil: acceptedUntil === null ? null : new Date(acceptedUntil).toISOString(),
  }));
  const stored: Stored = { keys };
  await writeFile(draft, `${JSON.stringify(stored, null, 2)}\n`, { mode: 0o600, flush: true });
  return draft;
};

const parseRing = (file: string, text: string): KeyRing => {
  let stored: Stored;
  try {
    stored = JSON.parse(text);
  } catch {
    throw damaged(file, 'it is no JSON');
  }
  if (!Array.isArray(stored?.keys) || stored.keys.length === 0) throw damaged(file, 'it has no list "keys"');
  return stored.keys.map(({ epoch, key, acceptedUntil }, index) => {
    const least = (stored.keys[index - 1]?.epoch ?? 0) + 1;
    if (!Number.isSafeInteger(epoch) || epoch < least) {
      throw damaged(file, `keys.${index}.epoch is ${epoch}, expected a whole number from ${least}`);
    }
    const end = acceptedUntil === null ? null : Date.parse(acceptedUntil);
    if (Number.isNaN(end))
      throw damaged(file, `keys.${index}.acceptedUntil is ${acceptedUntil}, expected a time or null`);
    return { epoch, key: parseKey(file, key), acceptedUntil: end };
  });
};

const parseKey = (file: string, hex: unknown): Uint8Array => {
  if (typeof hex !== 'string' || !/^[0-9a-f]{64}$/.test(hex)) {
    throw damaged(file, `a key is not ${keyBytes * 2} hex digits`);
  }
  return Buffer.from(hex, 'hex');
};

const damaged = (file: string, what: string): SigrelError =>
  new SigrelError(
    'SRP_INTEGRITY_FLEET_KEY',
    `${file} cannot be used: ${what}. Restore it from a backup; a new key locks out every enrolled device`,
  );

/** The key of an epoch while reports under it are accepted; otherwise why not. */
export const keyOfEpoch = (ring: KeyRing, epoch: number, now: number): FleetKey | string => {
  const found = ring.find((one) => one.epoch === epoch);
  if (found && (found.acceptedUntil === null || found.acceptedUntil > now)) return found;
  const { epoch: newest } = newestKey(ring);
  if (epoch > newest) return `there is no key epoch ${epoch}: expected at most ${newest}`;
  const when = found?.acceptedUntil ? ` at ${new Date(found.acceptedUntil).toISOString()}` : '';
  return `key epoch ${epoch} has ended${when}: the device needs its key of epoch ${newest}`;
};

/** Newer than the ring as it was read: right after a rotation there may be such a key. */
export const isAhead = (ring: KeyRing, epoch: number): boolean => epoch > newestKey(ring).epoch;

/** HKDF-SHA256 of the fleet key, without salt, bound to this use and to the device. */
export const deviceKey = (fleetKey: Uint8Array, deviceId: string): Uint8Array =>
  Buffer.from(hkdfSync('sha256', fleetKey, '', `sigrel/device/v1\n${deviceId}`, keyBytes));

/** HMAC-SHA256 (hex) over the canonical JSON of the report. */
export const signReport = (key: Uint8Array | KeyObject, report: DeviceReport): string =>
  mac(key, report).toString('hex');

/** Whether `given` (hex) is the report's MAC; takes the same time wherever they differ. A KeyObject saves most of the time. */
export const checkReport = (key: Uint8Array | KeyObject, report: DeviceReport, given: string): boolean => {
  const expected = mac(key, report);
  const bytes = Buffer.from(given, 'hex');
  return bytes.length === expected.length && timingSafeEqual(bytes, expected);
};

const mac = (key: Uint8Array | KeyObject, report: DeviceReport): Buffer =>
  createHmac('sha256', key).update(canonicalJson(report)).digest();
