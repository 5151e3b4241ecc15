/** Exposure down. Everything here needs the online keys and the file store only: no Kafka, no PostgreSQL, no judge. */
import type { DirectorDocument } from '../domain/director.ts';
import type { DirectorStore } from '../domain/ports.ts';
import type { HaltActivities } from './contract.ts';

/** Expiry of documents that grant nothing new: a device that comes back after a weekend still verifies them. */
export const steadyExpiryMs = 7 * 24 * 3_600_000;

/** Another release is under way: this one was granted nothing, and a stop would be the other one's. */
const isAnothers = ({ mode, rollout }: DirectorDocument, releaseId: string): boolean =>
  (mode === 'rolling' || mode === 'frozen') && rollout?.content.releaseId !== releaseId;

/** The document says already that this release was rolled back, or that it completed. */
export const hasEnded = ({ steady, rollback }: DirectorDocument, releaseId: string): boolean =>
  rollback?.releaseId === releaseId || steady.releaseId === releaseId;

export const createHaltActivities = (ports: { readonly director: DirectorStore }): HaltActivities => ({
  freezeExposure: async ({ releaseId, family }) => {
    const { document: before } = await ports.director.read(family);
    const stops = !isAnothers(before, releaseId) && !hasEnded(before, releaseId);
    const { document, publishedAt } = await ports.director.change(
      family,
      (current) =>
        current.mode === 'rolling' && current.rollout?.content.releaseId === releaseId
          ? { ...current, mode: 'frozen' }
          : null,
      { expiresInMs: steadyExpiryMs, ...(stops ? { stop: 'set' } : {}) },
    );
    return { directorVersion: document.directorVersion, frozenAt: publishedAt };
  },

  thawExposure: async ({ releaseId, family, holdCleared }) => {
    const { document } = await ports.director.read(family);
    const { document: thawed } = await ports.director.change(
      family,
      (current) => {
        if (current.mode !== 'frozen' || current.rollout?.content.releaseId !== releaseId) return null;
        const { rollout } = current;
        return { ...current, mode: 'rolling', rollout: { ...rollout, lease: { ...rollout.lease, holdCleared } } };
      },
      { expiresInMs: document.rollout?.lease.leaseMs ?? steadyExpiryMs, stop: 'clear' },
    );
    return { directorVersion: thawed.directorVersion };
  },

  publishRollback: async ({ releaseId, family, rollback }) => {
    const { document: before } = await ports.director.read(family);
    if (isAnothers(before, releaseId)) return { directorVersion: before.directorVersion };
    const { document } = await ports.director.change(
      family,
      (current) => {
        if (current.mode === 'rollback' && current.rollback?.contentVersion === rollback.contentVersion) return null;
        if (current.rollout?.content.releaseId === releaseId) return { ...current, mode: 'rollback', rollback };
        // Halted before its first stage was granted: there is no cohort, and what was good before stays so. The document
        // says that the release has ended, so that an opening that comes late is refused.
        return { family, mode: 'rollback', steady: current.rollback ?? current.steady, rollout: null, rollback };
      },
      { expiresInMs: steadyExpiryMs, stop: 'clear' },
    );
    return { directorVersion: document.directorVersion };
  },
});
