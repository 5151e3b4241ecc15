/** What a device does about a director document that it has verified. The same for real devices and simulated ones. */
import { type DeviceDecision, type DirectorDocument, grantsExposure } from './director.ts';
import { type BucketOf, isExposed, unitIdOf } from './exposure.ts';
import type { Content, EngineId, SegmentKey } from './release.ts';

export type DeviceView = {
  readonly deviceId: string;
  /** Where it was enrolled, when it belongs to a site. */
  readonly site?: string;
  readonly engine: EngineId;
  readonly segment: SegmentKey;
  /** What runs now. */
  readonly contentVersion: number;
  /** Content that this device tried and reverted from: it is not tried again. */
  readonly rejected: readonly number[];
};

/** A device only ever goes to a higher content version; without an artefact for its engine it keeps what it has. */
export const decideDevice = (document: DirectorDocument, device: DeviceView, bucketOf: BucketOf): DeviceDecision => {
  const { mode, steady, rollout, rollback } = document;
  const granted = grantsExposure(document);
  const inside =
    rollout !== null &&
    isExposed(bucketOf(rollout.salt, unitIdOf(rollout.unit, device)), rollout.thresholds[device.segment] ?? 0);
  const take = (content: Content, needsAcknowledgement: boolean): DeviceDecision => {
    if (content.contentVersion <= device.contentVersion || device.rejected.includes(content.contentVersion)) {
      return { action: 'keep', why: 'up-to-date' };
    }
    const fits = content.artefacts.some((artefact) => artefact.engine === device.engine);
    return fits ? { action: 'install', content, needsAcknowledgement } : { action: 'keep', why: 'no-artefact' };
  };
  if (mode === 'rollback' && rollback !== null && inside) return take(rollback, false);
  if (granted && rollout !== null && inside) return take(rollout.content, true);
  const behind = take(steady, false);
  if (behind.action === 'install') return behind;
  if ((mode === 'frozen' || mode === 'rolling') && !granted && inside) return { action: 'keep', why: 'frozen' };
  return rollout !== null && !inside ? { action: 'keep', why: 'holdout' } : behind;
};
