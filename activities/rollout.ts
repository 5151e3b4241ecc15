/** Stages: plan, open, watch, complete, verify a halt. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type FamilyFreeze, type LeaseTerms, openRelease, steadyExpiryMs } from '../domain/director.ts';
import { SigrelError } from '../domain/errors.ts';
import { type BucketOf, planStages, unitIdOf } from '../domain/exposure.ts';
import type { RolloutPolicy } from '../domain/policy.ts';
import type { DirectorStore, EvidenceReader, Inventory, TelemetryLog, Watches } from '../domain/ports.ts';
import { engineId, type SegmentKey, segmentKey } from '../domain/release.ts';
import {
  assessStage,
  endOfWatch,
  frozenBy,
  isNearlyStale,
  isStale,
  type JudgeStatus,
  refuseGrant,
} from '../domain/stage-rule.ts';
import { sumOf, total } from '../domain/timeline.ts';
import type { Refusal, RolloutActivities } from './contract.ts';
import { asRefusal, hasEnded, wasNeverGranted } from './halt.ts';

export type RolloutPorts = {
  readonly inventory: Inventory;
  readonly telemetry: TelemetryLog;
  readonly director: DirectorStore;
  readonly evidence: EvidenceReader;
  readonly watches: Watches;
  readonly bucketOf: BucketOf;
  readonly now: () => number;
  /** Tells Temporal that this attempt is alive; rejects (or aborts `cancelled`) when it is not wanted any more. */
  readonly heartbeat: (details: unknown) => void;
  readonly cancelled: () => AbortSignal;
};

/** How often a watch looks: four times a tick, at most every second, so that heartbeats keep coming. */
const lookEveryMs = (policy: RolloutPolicy): number => Math.min(1_000, Math.max(50, policy.tickMs / 4));

/** How old the note of a watch may grow: it costs a question to Temporal, and counts four times as long. */
const noteEveryMs = (policy: RolloutPolicy): number => (policy.freshTicks * policy.tickMs) / 4;

export const createRolloutActivities = (ports: RolloutPorts): RolloutActivities => ({
  planRollout: async ({ releaseId, family, policy, engines }) => {
    // A salt of its own for every release: the canaries of one release are not those of the next.
    const salt = `${family}/${releaseId}`;
    const buckets: Record<SegmentKey, number[]> = {};
    for await (const device of ports.inventory.devices()) {
      const engine = engineId(device.engine);
      if (!engines.includes(engine)) continue;
      const segment = segmentKey(engine, device.failMode);
      buckets[segment] ??= [];
      buckets[segment].push(ports.bucketOf(salt, unitIdOf(policy.unit, device)));
    }
    if (Object.keys(buckets).length === 0) {
      throw new SigrelError(
        'SRP_RULE_NO_FLEET',
        `no device is enrolled for family ${family}: there is nobody to roll out to`,
      );
    }
    const { document } = await ports.director.read(family);
    const open = openRelease(document);
    if (open !== null && open !== releaseId) throw familyBusy(family, open);
    return { salt, stages: planStages(policy.stages, buckets) };
  },

  openStage: async (input) => {
    const { releaseId, family, stage, salt, thresholds, release, rollbackVersion, policy, startedAt } = input;
    const lease = {
      startedAt,
      leaseMs: policy.leaseMs,
      freshMs: policy.freshTicks * policy.tickMs,
      clearedCells: input.clearedCells,
    };
    // Windows of a stage that nobody is offered would count as evidence for it. The marker of the first stage is what makes
    // the judge look at the release at all: it goes out whatever stands in the way of the grant.
    if (stage > 0) {
      const { document, freeze } = await ports.director.read(family);
      const { directorVersion } = document;
      if (freeze !== null) return { directorVersion, refused: { kind: 'frozen', why: frozenBy(freeze) } };
      const found = refuseGrant(lease, await ports.evidence.judgeStatus(releaseId), ports.now());
      if (found !== null) return { directorVersion, refused: found };
    }
    // The evidence path knows of the stage before any device can be offered it: no evidence, no exposure.
    await ports.telemetry.control({
      kind: 'stage-opened',
      contentVersion: release.contentVersion,
      ...{ releaseId, family, stage, salt, rollbackVersion, thresholds, policy, startedAt },
    });
    // The first stage needs none before a first window can be due; every later one needs evidence that is fresh now.
    const status = await ports.evidence.judgeStatus(releaseId);
    const asOf = ports.now();
    const refused = refuseGrant(lease, status, asOf);
    const opening = ports.director.change(
      family,
      (current) => {
        // An attempt that hung on the telemetry log may come when the release was rolled back, or had completed.
        if (hasEnded(current, releaseId)) {
          throw new SigrelError('SRP_RULE_ENDED', `release ${releaseId} has ended: its stage is not opened any more`);
        }
        const open = openRelease(current);
        if (open !== null && open !== releaseId) throw familyBusy(family, open);
        // The watch over the stage finds the verdict and acts on it, and sees fresh evidence when it comes.
        if (refused !== null) return null;
        if (current.mode === 'rolling' && current.rollout !== null && current.rollout.stage >= stage) return null;
        return {
          family,
          mode: 'rolling',
          steady: current.rollback ?? current.steady,
          rollout: {
            ...{ content: release, salt, stage, thresholds, lease },
            ...(policy.unit === 'site' && { unit: policy.unit }),
          },
          rollback: null,
        };
      },
      { expiresInMs: policy.leaseMs, asOf },
    );
    const opened = await opening.catch(asRefusal);
    if ('kind' in opened) {
      const { document } = await ports.director.read(family);
      return { directorVersion: document.directorVersion, refused: opened };
    }
    const { directorVersion } = opened.document;
    return refused === null ? { directorVersion } : { directorVersion, refused };
  },

  watchStage: async ({ releaseId, family, policy, stage, openedAt, promote, clearedCells, heldFor }) => {
    let status: JudgeStatus | null = null;
    let freeze: FamilyFreeze | null | 'unknown' = 'unknown';
    let notedAt = Number.NEGATIVE_INFINITY;
    for (;;) {
      freeze = await ports.director.read(family).then(
        (read) => read.freeze,
        () => freeze,
      );
      // Without the database nothing new is known: what was known grows old, and that is what the stage is held for.
      status = await ports.evidence.judgeStatus(releaseId).catch(() => status);
      const now = ports.now();
      // Without this the lease runs out: who renews it must know that somebody would act on a verdict.
      if (Math.abs(now - notedAt) >= noteEveryMs(policy)) {
        await ports.watches.note(releaseId, now).then(
          () => {
            notedAt = now;
          },
          () => {},
        );
      }
      const assessment = assessStage({ policy, stage, openedAt, now, promote, clearedCells }, status);
      const isLate = heldFor?.reason === 'no-data' ? isNearlyStale : isStale;
      const outcome = endOfWatch(assessment, heldFor, isLate(policy, status, now), freeze);
      if (outcome !== null) return outcome;
      ports.heartbeat(assessment.evidence.waitingFor);
      await sleep(lookEveryMs(policy), undefined, { signal: ports.cancelled() });
    }
  },

  completeRollout: async ({ releaseId, family, release }) => {
    // What cannot be read is no evidence: the stage is held for that, where people may still stop it.
    const evidence = await ports.evidence.judgeStatus(releaseId).catch(() => null);
    const asOf = ports.now();
    let refused: Refusal | null = null;
    const completing = ports.director.change(
      family,
      (current) => {
        if (current.mode === 'steady' && current.steady.contentVersion === release.contentVersion) return null;
        // A stop that came first stands: the store refuses new steady content under a stop marker.
        const mine = current.rollout?.content.releaseId === releaseId;
        if (current.rollout === null || !mine || current.mode !== 'rolling') throw haltedMeanwhile(releaseId);
        // After this there is nothing left to stop: what came since the last look of the watch counts.
        refused = refuseCompletion(current.rollout.lease, evidence, asOf);
        if (refused !== null) return null;
        return { family, mode: 'steady', steady: release, rollout: null, rollback: null };
      },
      { expiresInMs: steadyExpiryMs },
    );
    const completed = await completing.catch(asRefusal);
    const status = await ports.evidence.judgeStatus(releaseId);
    const counts = status?.counts ?? {};
    if ('kind' in completed) {
      const { document } = await ports.director.read(family);
      return { directorVersion: document.directorVersion, counts, refused: completed };
    }
    const { directorVersion } = completed.document;
    return refused === null ? { directorVersion, counts } : { directorVersion, counts, refused };
  },

  closeTelemetry: async ({ releaseId }) => {
    await ports.telemetry.control({ kind: 'release-ended', releaseId });
  },

  verifyHalt: async ({ releaseId, family, settleMs, waitMs }) => {
    const started = ports.now();
    /** The broker's clock when this began, whatever this process's clock says; in doubt the later one. */
    let from: number | null = null;
    let neverGranted = false;
    for (;;) {
      // Only the document can say so: that the judge knows nothing of the release does not mean that nobody took it.
      neverGranted ||= await ports.director.read(family).then(
        ({ document }) => wasNeverGranted(document, releaseId),
        () => false,
      );
      const read = await ports.evidence.judgeStatus(releaseId).then(
        (status) => ({ status }),
        () => null,
      );
      const status = read?.status ?? null;
      const counts = status?.counts ?? {};
      const waitedMs = ports.now() - started;
      const harmed = total(counts, 'harmed');
      const recovered = total(counts, 'recovered');
      // Windows that end before the rollback was out say nothing about recovery.
      from ??= status && Math.max(started, status.lastWindowClosedAt);
      const late = from !== null && (status?.lastWindowClosedAt ?? 0) >= from + settleMs;
      // A device that died of the content just before the freeze is counted when its silence is due.
      const open = sumOf(status?.openTrials ?? {});
      const settled = late && open === 0;
      // The judge answers, and not one window of the release has closed in all this time.
      const nobody = neverGranted && read?.status === null && waitedMs >= settleMs;
      if (nobody || (settled && recovered >= harmed)) return { counts, recovered: true, waitedMs };
      if (waitedMs >= waitMs) return { counts, recovered: false, waitedMs };
      ports.heartbeat({ harmed, recovered });
      await sleep(Math.min(1_000, settleMs / 8), undefined, { signal: ports.cancelled() });
    }
  },
});

/** As for a grant; the time before the first window excuses nothing: a release that completes has had windows. */
const refuseCompletion = (lease: LeaseTerms, status: JudgeStatus | null, now: number): Refusal | null =>
  status === null ? { kind: 'stale', why: 'the judge has no evidence' } : refuseGrant(lease, status, now);

const familyBusy = (family: string, other: string): SigrelError =>
  new SigrelError('SRP_RULE_FAMILY_BUSY', `family ${family} is rolling out ${other}: wait for its end, or halt it`, {
    details: { release: other },
  });

const haltedMeanwhile = (releaseId: string): SigrelError =>
  new SigrelError('SRP_RULE_STOPPED', `release ${releaseId} was stopped meanwhile: exposure is not raised any more`);
