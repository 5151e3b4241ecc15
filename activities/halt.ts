/** Exposure down. Everything here needs the online keys and the file store only: no Kafka, no PostgreSQL, no judge. */
import { SigrelError } from '../domain/errors.ts';
import type { DirectorStore } from '../domain/ports.ts';
import type { HaltActivities } from './contract.ts';

/** Expiry of documents that grant nothing new: a device that comes back after a weekend still verifies them. */
export const steadyExpiryMs = 7 * 24 * 3_600_000;

export const createHaltActivities = (ports: { readonly director: DirectorStore }): HaltActivities => ({
  freezeExposure: async ({ releaseId, family }) => {
    const { document, publishedAt } = await ports.director.change(
      family,
      (current) =>
        current.mode === 'rolling' && current.rollout?.content.releaseId === releaseId
          ? { ...current, mode: 'frozen' }
          : null,
      { expiresInMs: steadyExpiryMs, stop: 'set' },
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
    const { document } = await ports.director.change(
      family,
      (current) => {
        if (current.mode === 'rollback' && current.rollback?.contentVersion === rollback.contentVersion) return null;
        if (current.rollout !== null && current.rollout.content.releaseId !== releaseId) {
          throw new SigrelError(
            'SRP_RULE_FAMILY_BUSY',
            `family ${family} is rolling out ${current.rollout.content.releaseId}, not ${releaseId}: nothing was rolled back`,
          );
        }
        return { ...current, mode: 'rollback', rollback };
      },
      { expiresInMs: steadyExpiryMs, stop: 'clear' },
    );
    return { directorVersion: document.directorVersion };
  },
});
