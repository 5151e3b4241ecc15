/**
 * The renewal of the lease: a document that grants exposure gets a new expiry only while nothing stands against it, the
 * judge's last window is fresh, and the event log has taken the record of this very renewal. When anything it needs is gone,
 * it does nothing, and the rollout stops by itself. Documents that grant nothing are kept verifiable.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { type DirectorDocument, grantsExposure, steadyExpiryMs } from '../domain/director.ts';
import type { DirectorStore, EvidenceReader, FamilyLog, Watches } from '../domain/ports.ts';
import { refuseRenewal } from '../domain/stage-rule.ts';
import type { FamilyEvent } from '../events/catalogue.ts';
import { familyEventVersion } from '../events/family-events.ts';
import type { Log } from '../infra/kafka/client.ts';

const lookEveryMs = 250;

export const startLeaseRenewal = (options: {
  readonly director: DirectorStore;
  readonly evidence: EvidenceReader;
  readonly watches: Watches;
  readonly familyLog: FamilyLog;
  readonly log: Log;
  readonly now: () => number;
}): { stop(): Promise<void> } => {
  const { director, evidence, watches, familyLog, log, now } = options;
  const stopping = new AbortController();
  const refused = new Map<string, string>();
  /** Renewals that the log has taken and the store has not: they are tried again, not recorded again. */
  const recorded = new Map<string, { readonly of: string; readonly asOf: number }>();

  const whyNot = async (document: DirectorDocument, releaseId: string, asOf: number): Promise<string | null> => {
    const [status, watchedAt] = await Promise.all([evidence.judgeStatus(releaseId), watches.lastSeen(releaseId)]);
    return refuseRenewal(document, status, watchedAt, asOf);
  };

  const renew = async (family: string): Promise<void> => {
    const { document, expiresAt, stopped, freeze } = await director.read(family);
    const { rollout, directorVersion } = document;
    if (!grantsExposure(document) || rollout === null) {
      refused.delete(family);
      // Grants nothing: it only has to stay verifiable, also when there is no release for a long time.
      if (expiresAt - now() < steadyExpiryMs / 2) await director.renew(family, directorVersion, steadyExpiryMs, now());
      return;
    }
    const { leaseMs } = rollout.lease;
    const { releaseId } = rollout.content;
    const left = expiresAt - now();
    if (left > leaseMs) {
      // No lease is longer: the clock of whoever signed it is fast. Ending it sooner grants nothing, and waits for nothing.
      if (!(await director.renew(family, directorVersion, leaseMs, now()))) return;
      log('warn', { family, releaseId, left, leaseMs }, 'a lease that was too long is signed again, shorter');
      return;
    }
    // Renewed when a third of it is gone.
    if (left > (leaseMs * 2) / 3) return;
    const stands = stopped ? 'the release was stopped' : freeze ? `the family is frozen by ${freeze.by}` : null;
    // The lease counts from the moment at which the evidence was found fresh, and ends when its record says.
    const of = `${directorVersion} ${expiresAt}`;
    const before = recorded.get(family);
    const age = now() - (before?.asOf ?? 0);
    // One that has grown as old as a lease that is due would be due at once.
    const known = before?.of === of && age >= 0 && age <= leaseMs / 3 ? before : null;
    const asOf = known?.asOf ?? now();
    let why = stands ?? (await whyNot(document, releaseId, now()));
    if (why === null && known === null) {
      await familyLog.append(renewalOf(document, rollout, asOf));
      recorded.set(family, { of, asOf });
      // While the log was written the judge may have spoken, or what it had seen has grown old.
      why = await whyNot(document, releaseId, now());
    }
    const renewed = why === null && (await director.renew(family, directorVersion, leaseMs, asOf));
    if (renewed) {
      recorded.delete(family);
      if (refused.delete(family)) log('info', { family, releaseId }, 'the lease is renewed again');
    } else refuse(family, releaseId, why ?? 'it was stopped or changed meanwhile');
  };

  const refuse = (family: string, releaseId: string | null, why: string): void => {
    if (refused.has(family)) return;
    refused.set(family, why);
    log('warn', { family, releaseId, why }, 'the lease is not renewed');
  };

  // Each by itself: what one family's lease waits for keeps no other one waiting.
  const renewing = new Map<string, Promise<void>>();
  const begin = (family: string): void => {
    if (renewing.has(family)) return;
    const one = renew(family)
      .catch((error: Error) => refuse(family, null, `what it needs is not there: ${error.message}`))
      .finally(() => renewing.delete(family));
    renewing.set(family, one);
  };

  const run = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      try {
        for (const family of await director.families()) begin(family);
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
      await Promise.all(renewing.values());
    },
  };
};

const renewalOf = (
  { family, directorVersion }: DirectorDocument,
  { content, stage, lease }: NonNullable<DirectorDocument['rollout']>,
  now: number,
): FamilyEvent => {
  const until = new Date(now + lease.leaseMs).toISOString();
  return {
    type: 'LeaseRenewed',
    data: { releaseId: content.releaseId, stage, directorVersion, until },
    ...{ eventId: `lease/${family}/${randomUUID()}`, family, schemaVersion: familyEventVersion },
    ...{ occurredAt: new Date(now).toISOString(), actor: { kind: 'service', id: 'lease' } },
  };
};
