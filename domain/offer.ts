/**
 * What the server lets a device take, whatever document that device has seen: the counterpart of domain/device.ts. A device
 * that shows an old document, or whose clock is wrong, gets no acknowledgement for it, and without one it takes nothing.
 */
import { type DirectorDocument, grantsExposure } from './director.ts';
import { type BucketOf, isExposed, unitIdOf } from './exposure.ts';
import { engineId, segmentKey } from './release.ts';
import type { DeviceReport } from './telemetry.ts';

export type InForce = { readonly document: DirectorDocument; readonly expiresAt: number };

export type AskingPoll = Extract<DeviceReport['body'], { kind: 'poll' }>;

/**
 * How long (ms) the device may take what its poll asks for; 0: not at all. It may while a document that is in force by the
 * server's clock grants exactly this content to it, and never longer than that document lasts.
 */
export const offerLasts = (
  inForce: readonly InForce[],
  device: Pick<DeviceReport, 'deviceId' | 'site'>,
  poll: AskingPoll,
  bucketOf: BucketOf,
  now: number,
): number => {
  const { offer, engine, failMode } = poll;
  if (offer === null) return 0;
  const granting = inForce.find(({ document }) => document.rollout?.content.releaseId === offer.releaseId);
  const rollout = granting?.document.rollout;
  if (!granting || !rollout || !grantsExposure(granting.document)) return 0;
  if (rollout.content.contentVersion !== offer.contentVersion) return 0;
  const threshold = rollout.thresholds[segmentKey(engineId(engine), failMode)] ?? 0;
  return isExposed(bucketOf(rollout.salt, unitIdOf(rollout.unit, device)), threshold)
    ? Math.max(0, granting.expiresAt - now)
    : 0;
};
