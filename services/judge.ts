/**
 * The judge as a service: reads windows, folds each tick of each release when all partitions have delivered it
 * (domain/judge/session.ts), commits what it found together with its place in the log, and then says new verdicts until
 * somebody has taken them.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Kafka, KafkaMessage } from 'kafkajs';
import {
  acceptWindow,
  foldTicks,
  forkOf,
  newSession,
  type PendingWindow,
  type Session,
  type SessionContext,
  type TickResult,
} from '../domain/judge/session.ts';
import type { Verdict } from '../domain/release.ts';
import type { Window } from '../domain/telemetry.ts';
import { digestOf } from '../infra/content/digests.ts';
import type { Log } from '../infra/kafka/client.ts';
import { topicName } from '../infra/kafka/topics.ts';
import {
  commitBatch,
  type Decision,
  markNotified,
  readDecisionsToNotify,
  readFoldedDigest,
  readSession,
  type SessionChange,
} from '../infra/postgres/judge.ts';
import type { Pool } from '../infra/postgres/pool.ts';
import { readWatermark } from '../infra/postgres/watermarks.ts';
import { consumePartitions, type PartitionWork } from './consume.ts';

/**
 * `onVerdict` is called after the commit, at least once, also after a restart, and again until it resolves: it must take the
 * same verdict twice and must resolve when the release has ended already.
 */
export const startJudge = async (options: {
  readonly kafka: Kafka;
  readonly pool: Pool;
  readonly topicPrefix: string;
  readonly log: Log;
  readonly codeVersion: string;
  readonly onVerdict: (releaseId: string, verdict: Verdict) => Promise<void>;
}): Promise<{ stop(): Promise<void> }> => {
  const { kafka, pool, log, codeVersion } = options;
  const topic = topicName(options.topicPrefix, 'telemetry.windows.v1');
  const notifier = createNotifier(pool, log, options.onVerdict);
  for (const decision of await readDecisionsToNotify(pool)) notifier.notify(decision);
  const open = (partition: number) =>
    openPartition({ pool, topic, partition, log, codeVersion, notify: notifier.notify });
  const consumer = await consumePartitions({ kafka, groupId: `${options.topicPrefix}judge`, topic, log, open });
  return {
    stop: async () => {
      await consumer.stop();
      await notifier.stop();
    },
  };
};

/** How soon windows that wait for others are to be seen in the database. */
const showWaitingAfterMs = 1_000;

/** The releases of one partition of the windows topic. */
const openPartition = async (options: {
  readonly pool: Pool;
  readonly topic: string;
  readonly partition: number;
  readonly log: Log;
  readonly codeVersion: string;
  readonly notify: (decision: Decision) => void;
}): Promise<PartitionWork> => {
  const { pool, topic, partition, log, notify } = options;
  const context: SessionContext = { digestOf, codeVersion: options.codeVersion };
  const sessions = new Map<string, Session>();
  const batch = new Map<string, BatchOfRelease>();
  /** Releases whose refusal was told. */
  const told = new Set<string>();
  let committed = await readWatermark(pool, 'judge', topic, partition);
  let next = committed;
  let committedAt = performance.now();
  // What another judge has committed and could not say any more before it lost this partition.
  for (const decision of await readDecisionsToNotify(pool)) notify(decision);

  const sessionOf = async (releaseId: string): Promise<Session> => {
    const session = sessions.get(releaseId) ?? (await readSession(pool, releaseId, digestOf)) ?? newSession(releaseId);
    sessions.set(releaseId, session);
    return session;
  };

  return {
    nextOffset: () => next,
    take: async (messages) => {
      for (const message of messages) {
        next = Number(message.offset) + 1;
        const window = decode(message);
        if (window === null) {
          log('error', { topic, partition, offset: message.offset }, 'a record that is no window was left out');
          continue;
        }
        const session = await sessionOf(window.releaseId);
        // Also a refusal that was found in what is stored is told once.
        const refusedBefore = told.has(window.releaseId) ? session.refused : null;
        const found = batch.get(window.releaseId) ?? { session, refusedBefore, results: [], kept: [] };
        batch.set(window.releaseId, found);
        await takeWindow(pool, found, window, context);
      }
      const changes = [...batch.values()].map(changeOf);
      // The partitions deliver a tick one by one. What completes none is in the log until then, and needs no transaction; but
      // where one lags, people and alarms have to see which of them wait for it.
      const completes = changes.some(({ changed }) => changed);
      if (!completes && performance.now() - committedAt < showWaitingAfterMs) return;
      await commitBatch(pool, { topic, partition, from: committed, to: next }, changes);
      committed = next;
      committedAt = performance.now();
      for (const { session, refusedBefore, results } of batch.values()) {
        const { releaseId } = session;
        for (const { verdicts } of results) for (const verdict of verdicts) notify({ releaseId, verdict });
        if (session.refused !== refusedBefore) {
          told.add(releaseId);
          log('error', { releaseId, reason: session.refused }, 'the judge takes no further window of this release');
        }
      }
      batch.clear();
    },
  };
};

type BatchOfRelease = {
  readonly session: Session;
  readonly refusedBefore: string | null;
  readonly results: TickResult[];
  readonly kept: PendingWindow[];
};

const takeWindow = async (
  pool: Pool,
  { session, kept, results }: BatchOfRelease,
  window: Window,
  context: SessionContext,
): Promise<void> => {
  const digest = digestOf(window);
  const outcome = acceptWindow(session, window, digest);
  if (outcome === 'kept') {
    kept.push({ window, digest });
    results.push(...foldTicks(session, context));
  } else if (outcome === 'folded') {
    // Ticks of this very batch are not in the table yet.
    const known =
      originIn(results, window)?.digest ??
      (await readFoldedDigest(pool, window.releaseId, window.tick, window.partition));
    if (known !== digest) session.refused = forkOf(window);
  }
};

const originIn = (results: readonly TickResult[], window: Window) =>
  results
    .find((result) => result.evidence.tick === window.tick)
    ?.evidence.offsets.find((origin) => origin.partition === window.partition);

const changeOf = ({ session, refusedBefore, results, kept }: BatchOfRelease): SessionChange => ({
  session,
  results,
  waiting: kept.filter(({ window }) => session.pending.get(window.tick)?.has(window.partition)),
  changed: results.length > 0 || session.refused !== refusedBefore,
});

/** null: not a window. What it says is checked when it is folded. */
const decode = (message: KafkaMessage): Window | null => {
  try {
    const value: unknown = JSON.parse(message.value?.toString() ?? '');
    return isWindow(value) ? value : null;
  } catch {
    return null;
  }
};

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null;
const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && Number(value) >= 0;

const isWindow = (value: unknown): value is Window =>
  isObject(value) &&
  typeof value.releaseId === 'string' &&
  isCount(value.tick) &&
  isCount(value.partition) &&
  isCount(value.partitions) &&
  value.partition < value.partitions &&
  isCount(value.stage) &&
  [value.leaves, value.counts, value.exposed, value.openTrials].every(isObject);

/** Says each verdict until it was taken, every one by itself: one release that cannot be reached delays no other. */
const createNotifier = (
  pool: Pool,
  log: Log,
  onVerdict: (releaseId: string, verdict: Verdict) => Promise<void>,
): { notify(decision: Decision): void; stop(): Promise<void> } => {
  const stopping = new AbortController();
  const running = new Map<string, Promise<void>>();
  const deliver = async (decision: Decision): Promise<void> => {
    const { releaseId, verdict } = decision;
    for (let wait = 100; !stopping.signal.aborted; wait = Math.min(wait * 2, 5_000)) {
      try {
        await onVerdict(releaseId, verdict);
        await markNotified(pool, decision);
        return;
      } catch (error) {
        log('warn', { releaseId, kind: verdict.kind, error: String(error) }, 'a verdict was not taken; said again');
        await sleep(wait, undefined, { signal: stopping.signal }).catch(() => {});
      }
    }
  };
  return {
    notify: (decision) => {
      const name = `${decision.releaseId} ${decision.verdict.kind} ${decision.verdict.cell}`;
      if (running.has(name)) return;
      running.set(
        name,
        deliver(decision).finally(() => running.delete(name)),
      );
    },
    stop: async () => {
      stopping.abort();
      await Promise.all(running.values());
    },
  };
};
