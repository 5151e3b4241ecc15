/**
 * The renewal of the lease: a rolling director document gets a new expiry only while the judge's last window is fresh and
 * nothing stands against it. When anything it needs is gone, it does nothing, and the rollout stops by itself. Documents
 * that grant nothing are kept verifiable.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { steadyExpiryMs } from '../domain/director.ts';
import type { DirectorStore, EvidenceReader, Watches } from '../domain/ports.ts';
import { refuseRenewal } from '../domain/stage-rule.ts';
import type { Log } from '../infra/kafka/client.ts';

const lookEveryMs = 250;

export const startLeaseRenewal = (options: {
  readonly director: DirectorStore;
  readonly evidence: EvidenceReader;
  readonly watches: Watches;
  readonly log: Log;
  readonly now: () => number;
}): { stop(): Promise<void> } => {
  const { director, evidence, watches, log, now } = options;
  const stopping = new AbortController();
  const refused = new Map<string, string>();

  const renew = async (family: string): Promise<void> => {
    const { document, expiresAt } = await director.read(family);
    const { rollout, mode, directorVersion } = document;
    if (mode !== 'rolling' || rollout === null) {
      refused.delete(family);
      // Grants nothing: it only has to stay verifiable, also when there is no release for a long time.
      if (expiresAt - now() < steadyExpiryMs / 2) await director.renew(family, directorVersion, steadyExpiryMs, now());
      return;
    }
    const { leaseMs } = rollout.lease;
    // Renewed when a third of it is gone.
    if (expiresAt - now() > (leaseMs * 2) / 3) return;
    const { releaseId } = rollout.content;
    const [status, watchedAt] = await Promise.all([evidence.judgeStatus(releaseId), watches.lastSeen(releaseId)]);
    // The lease counts from the moment at which the evidence was found fresh.
    const asOf = now();
    const why = refuseRenewal(document, status, watchedAt, asOf);
    const renewed = why === null && (await director.renew(family, directorVersion, leaseMs, asOf));
    if (renewed) refused.delete(family);
    else if (!refused.has(family)) {
      refused.set(family, why ?? 'stopped');
      log('warn', { family, releaseId, why: why ?? 'it was stopped or changed meanwhile' }, 'the lease is not renewed');
    }
  };

  const run = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      try {
        for (const family of await director.families()) await renew(family);
      } catch (error) {
        log('warn', { error: String(error) }, 'the lease could not be renewed');
      }
      await sleep(lookEveryMs, undefined, { signal: stopping.signal }).catch(() => {});
    }
  };
  const running = run();
  return {
    stop: async () => {
      stopping.abort();
      await running;
    },
  };
};
