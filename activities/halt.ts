/**
 * Exposure down: freeze and rollback need the online keys and the file store only, no Kafka, no PostgreSQL, no judge. Taking
 * a freeze back raises exposure again and asks the judge first.
 */
import { type DirectorDocument, steadyExpiryMs } from '../domain/director.ts';
import { SigrelError } from '../domain/errors.ts';
import type { DirectorStore, EvidenceReader } from '../domain/ports.ts';
import { refuseGrant } from '../domain/stage-rule.ts';
import type { HaltActivities, Refusal } from './contract.ts';

/** The document shows that no device was ever offered this release. In doubt, also once another one has followed it, false. */
export const wasNeverGranted = ({ steady, rollout }: DirectorDocument, releaseId: string): boolean =>
  rollout?.content.releaseId !== releaseId && steady.releaseId !== releaseId;

/** The document says already that this release was rolled back, or that it completed. */
export const hasEnded = ({ steady, rollback }: DirectorDocument, releaseId: string): boolean =>
  rollback?.releaseId === releaseId || steady.releaseId === releaseId;

/** What passes is no failure. */
export const asRefusal = (error: unknown): Refusal => {
  if (!(error instanceof SigrelError)) throw error;
  if (error.code === 'SRP_HOLD_FROZEN') return { kind: 'frozen', why: error.message };
  if (error.code === 'SRP_HOLD_STOPPED') return { kind: 'stopped', why: error.message };
  throw error;
};

export const createHaltActivities = (ports: {
  readonly director: DirectorStore;
  readonly evidence: EvidenceReader;
  readonly now: () => number;
}): HaltActivities => ({
  freezeExposure: async ({ releaseId, family, stopId }) => {
    const { document: before } = await ports.director.read(family);
    const { document, publishedAt } = await ports.director.change(
      family,
      (current) =>
        current.mode === 'rolling' && current.rollout?.content.releaseId === releaseId
          ? { ...current, mode: 'frozen' }
          : null,
      // A release that waits behind another one, or has ended, must not stop what goes on without it.
      {
        expiresInMs: steadyExpiryMs,
        unlessRolling: releaseId,
        ...(hasEnded(before, releaseId) ? {} : { stop: 'set', stopId }),
      },
    );
    return { directorVersion: document.directorVersion, frozenAt: publishedAt };
  },

  thawExposure: async ({ releaseId, family, stopId, clearedCells }) => {
    const { document } = await ports.director.read(family);
    const granted = document.rollout && { ...document.rollout.lease, clearedCells };
    const status = granted && (await ports.evidence.judgeStatus(releaseId));
    const asOf = ports.now();
    const refused = granted && refuseGrant(granted, status, asOf);
    // Without evidence, held or halted while it was paused: it stays frozen, and a watch over the stage sees the end of it.
    if (refused) return { directorVersion: document.directorVersion, refused };
    const thawing = ports.director.change(
      family,
      (current) => {
        if (current.mode !== 'frozen' || current.rollout?.content.releaseId !== releaseId) return null;
        const { rollout } = current;
        return { ...current, mode: 'rolling', rollout: { ...rollout, lease: { ...rollout.lease, clearedCells } } };
      },
      {
        ...{ expiresInMs: document.rollout?.lease.leaseMs ?? steadyExpiryMs, asOf },
        ...({ stop: 'clear', stopId, unlessRolling: releaseId } as const),
      },
    );
    const thawed = await thawing.catch(asRefusal);
    if ('kind' in thawed) return { directorVersion: document.directorVersion, refused: thawed };
    return { directorVersion: thawed.document.directorVersion };
  },

  publishRollback: async ({ releaseId, family, rollback }) => {
    const { document } = await ports.director.change(
      family,
      (current) => {
        if (current.mode === 'rollback' && current.rollback?.contentVersion === rollback.contentVersion) return null;
        if (current.rollout?.content.releaseId === releaseId) return { ...current, mode: 'rollback', rollback };
        // Halted before its first stage was granted: there is no cohort, and what was good before stays so. The document
        // says that the release has ended, so that an opening that comes late is refused.
        return { family, mode: 'rollback', steady: current.rollback ?? current.steady, rollout: null, rollback };
      },
      // While another release is rolling out, nobody was offered this one: there is nothing to roll back.
      { expiresInMs: steadyExpiryMs, stop: 'clear', unlessRolling: releaseId },
    );
    return { directorVersion: document.directorVersion };
  },
});
