/**
 * What becomes of one report: whether it has the form of one, under which key it proves its device, whether that device is heard,
 * was heard with it before, and how often it may be heard. No I/O; remembers the devices that proved themselves.
 */
import { createSecretKey, type KeyObject } from 'node:crypto';
import type { PlacedDevice } from '../domain/ports.ts';
import { type Bucket, fullBucket, giveBack, type Rate, takeToken } from '../domain/rate.ts';
import { isNew, markSeen, nothingSeen, type Seen } from '../domain/sequence.ts';
import type { DeviceReport } from '../domain/telemetry.ts';
import { checkReport, deviceKey, isAhead, type KeyRing, keyOfEpoch } from '../infra/device-auth.ts';
import { firstIssue, signedReportSchema } from './report-schema.ts';

/** Why a report is rejected, in words that can be counted. */
export type Refusal = 'schema' | 'key-epoch' | 'mac' | 'revoked' | 'site' | 'description';

export type Checked =
  | {
      readonly kind: 'fresh' | 'duplicate';
      readonly report: DeviceReport;
      readonly known: Known;
      /** What the poll asked for is not granted: the report says no more that it asks. */
      readonly withdrawn: boolean;
    }
  | { readonly kind: 'refused'; readonly why: Refusal; readonly reason: string }
  /** `reason`: what is missing here; null: the device is above its rate. */
  | { readonly kind: 'limited'; readonly retryAfterMs: number; readonly reason: string | null };

/**
 * What cannot be said yet, to be checked again. `unplaced`: genuine, of a device of which it must be looked up where it stands.
 * `ahead`: of a key epoch that the ring, as it was read last, does not have yet.
 */
export type Looked =
  | Checked
  | { readonly kind: 'unplaced'; readonly report: DeviceReport }
  | { readonly kind: 'ahead'; readonly reason: string };

/** What is remembered of a device that proved itself: for telling repeats at once; the aggregator drops them for good. */
export type Known = {
  epoch: number;
  key: KeyObject;
  readonly seen: Seen;
  readonly bucket: Bucket;
  /** Where it stands; null: at no site; undefined: to be looked up. */
  site: string | null | undefined;
  /** Engine and fail mode of its last poll, and how often it may yet say something else. */
  described: string;
  readonly descriptions: Bucket;
  /** The last offer that was acknowledged. */
  offered: { sequence: number; until: number } | null;
};

export type ReportCheck = {
  check(received: unknown, now: number): Looked;
  /** Where these devices stand, whatever they say. */
  place(devices: readonly PlacedDevice[]): void;
  /** Where it stands is looked up again: a person may have freed it. */
  forgetSite(deviceId: string): void;
  /** It is in the log: from now on it is a repeat. */
  markTaken(checked: Checked): void;
  /** It is not: it did not count against its device's rate either. */
  markLost(checked: Checked): void;
  /** Devices that are remembered. */
  size(): number;
};

/**
 * An engine is new to a device when it is upgraded, not with every poll: each one is a segment that everybody behind the gateway
 * has to know, and one that nobody has a pack of holds up every release.
 */
const descriptionRate: Rate = { perSecond: 1 / 600, burst: 8 };

export const createReportCheck = (options: {
  readonly keys: () => KeyRing;
  /** Device -> why. */
  readonly revoked: () => ReadonlyMap<string, string>;
  /** How many devices are remembered. */
  readonly devices: number;
  readonly deviceRate: Rate;
}): ReportCheck => {
  const { deviceRate } = options;
  const devices = new Map<string, Known>();

  /** Only a device that proved that it has its key is remembered: invented names cost no memory. */
  const remember = (deviceId: string, epoch: number, key: KeyObject, now: number): Known => {
    const known: Known = {
      ...{ epoch, key, seen: nothingSeen(), bucket: fullBucket(deviceRate, now), offered: null },
      ...{ site: undefined, described: '', descriptions: fullBucket(descriptionRate, now) },
    };
    devices.set(deviceId, known);
    if (devices.size > options.devices) {
      const [oldest] = devices.keys();
      if (oldest !== undefined) devices.delete(oldest);
    }
    return known;
  };

  return {
    check: (received, now) => {
      const parsed = signedReportSchema.safeParse(received);
      if (!parsed.success) return refuse('schema', firstIssue(parsed.error));
      const { mac, keyEpoch, ...report } = parsed.data;
      const { deviceId } = report;
      const ring = options.keys();
      const fleetKey = keyOfEpoch(ring, keyEpoch, now);
      if (typeof fleetKey === 'string') {
        return isAhead(ring, keyEpoch) ? { kind: 'ahead', reason: fleetKey } : refuse('key-epoch', fleetKey);
      }
      const before = devices.get(deviceId);
      const key = before?.epoch === keyEpoch ? before.key : createSecretKey(deviceKey(fleetKey.key, deviceId));
      if (!checkReport(key, report, mac)) {
        return refuse('mac', `the MAC is not that of this report under the key of ${deviceId}, epoch ${keyEpoch}`);
      }
      // Only who has the device's key learns that it is revoked. To the aggregator such a device falls silent, in whichever arm
      // it is: at most one event of its own. To take it out of the comparison instead would let the word of a person choose
      // who is counted, and a device is often revoked for what an update did to it.
      const reason = options.revoked().get(deviceId);
      if (reason !== undefined) return refuse('revoked', `device ${deviceId} is revoked: ${reason}`);
      const known = before ?? remember(deviceId, keyEpoch, key, now);
      if (keyEpoch > known.epoch) Object.assign(known, { epoch: keyEpoch, key });
      if (known.site === undefined) return { kind: 'unplaced', report };
      // Its site decides the partition, and each partition counts for itself: at two sites it would be two devices.
      if ((report.site ?? null) !== known.site) {
        const expected = known.site === null ? 'none' : known.site;
        return refuse(
          'site',
          `site: ${deviceId} says ${report.site ?? 'none'}, expected ${expected}; revoke and restore a device that was moved`,
        );
      }
      // Repeats cost a device nothing: whoever caught its reports could silence it with them.
      if (!isNew(known.seen, report.sequence)) return { kind: 'duplicate', report, known, withdrawn: false };
      const described = descriptionOf(report) ?? known.described;
      if (described !== known.described) {
        if (takeToken(known.descriptions, descriptionRate, now) > 0) {
          return refuse(
            'description',
            `body.engine: ${deviceId} has been too many engines lately; expected the ones before`,
          );
        }
        known.described = described;
      }
      const retryAfterMs = takeToken(known.bucket, deviceRate, now);
      return retryAfterMs > 0
        ? { kind: 'limited', retryAfterMs, reason: null }
        : { kind: 'fresh', report, known, withdrawn: false };
    },
    place: (placed) => {
      for (const { deviceId, site } of placed) {
        const known = devices.get(deviceId);
        if (known) known.site = site;
      }
    },
    forgetSite: (deviceId) => {
      const known = devices.get(deviceId);
      if (known) known.site = undefined;
    },
    markTaken: (checked) => {
      if (checked.kind === 'fresh') markSeen(checked.known.seen, checked.report.sequence);
    },
    markLost: (checked) => {
      if (checked.kind === 'fresh') giveBack(checked.known.bucket, deviceRate);
    },
    size: () => devices.size,
  };
};

/** null: it says nothing of its engine. */
const descriptionOf = ({ body }: DeviceReport): string | null => {
  if (body.kind !== 'poll') return null;
  const { name, version, packageVersion, digest } = body.engine;
  return JSON.stringify([name, version, packageVersion, digest, body.failMode]);
};

export const refuse = (why: Refusal, reason: string): Extract<Checked, { kind: 'refused' }> => ({
  kind: 'refused',
  why,
  reason,
});
