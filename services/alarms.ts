/**
 * Alarms: what domain/alarms.ts finds in what stands in the store and in the judge's tables. The service records in
 * `ops.events.v1` which ones came and went; who wants to know what stands now asks for the same facts (`createFactReader`).
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Alarm } from '../domain/alarm.ts';
import { alarmsOf, changesOf, type FamilyFacts, type UnreadableFamily } from '../domain/alarms.ts';
import type { DirectorStore, EvidenceReader, FamilyLog, Watches } from '../domain/ports.ts';
import type { FamilyEvent, FamilyEvents } from '../events/catalogue.ts';
import { familyEventVersion } from '../events/family-events.ts';
import type { Log } from '../infra/kafka/client.ts';
import { partitionsOf } from '../infra/kafka/topics.ts';

const lookEveryMs = 500;
/** A read that failed is made again so much later: a single one that fails is no trouble yet. */
const readAgainMs = 250;

export type FactPorts = {
  readonly director: Pick<DirectorStore, 'families' | 'read'>;
  readonly evidence: EvidenceReader;
  readonly watches: Watches;
  /** Partitions whose window of this tick is there, while the tick is not complete. */
  readonly arrived: (releaseId: string, tick: number) => Promise<readonly number[]>;
  readonly now: () => number;
};

/**
 * What is known of each family now; what is wrong with one hides no other. Since when one is unreadable is remembered from
 * look to look, in this process alone: another one counts from its own first look. Throws when the store says of no family.
 */
export const createFactReader = (ports: FactPorts): (() => Promise<readonly (FamilyFacts | UnreadableFamily)[]>) => {
  const unreadableSince = new Map<string, number>();

  const factsOf = async (family: string): Promise<FamilyFacts> => {
    const read = await ports.director.read(family);
    const releaseId = read.document.rollout?.content.releaseId;
    const evidence = releaseId === undefined ? null : await readEvidenceOf(ports, releaseId).catch(() => null);
    return { ...read, evidence, partitions: partitionsOf('telemetry.reports.v1') };
  };

  const readAgain = async (family: string): Promise<FamilyFacts> => {
    await sleep(readAgainMs);
    return factsOf(family);
  };

  const look = async (family: string): Promise<FamilyFacts | UnreadableFamily> => {
    const since = unreadableSince.get(family);
    const lookedAt = ports.now();
    try {
      const facts = await factsOf(family).catch((error) => {
        if (since !== undefined) throw error;
        return readAgain(family);
      });
      unreadableSince.delete(family);
      return facts;
    } catch (error) {
      unreadableSince.set(family, since ?? lookedAt);
      return { family, unreadable: String(error), since: since ?? lookedAt };
    }
  };

  return async () => Promise.all((await ports.director.families()).map(look));
};

const readEvidenceOf = async (ports: FactPorts, releaseId: string): Promise<FamilyFacts['evidence']> => {
  const [status, watchedAt] = await Promise.all([
    ports.evidence.judgeStatus(releaseId),
    ports.watches.lastSeen(releaseId),
  ]);
  return { status, watchedAt, arrived: await ports.arrived(releaseId, (status?.lastTick ?? -1) + 1) };
};

/** Those that stand according to what was recorded, each as it was raised. */
export const openAlarms = (events: readonly FamilyEvent[]): Map<string, Alarm> => {
  const open = new Map<string, Alarm>();
  for (const event of events) {
    if (event.type === 'AlarmRaised') open.set(event.data.alarmId, event.data);
    if (event.type === 'AlarmCleared') open.delete(event.data.alarmId);
  }
  return open;
};

/** `recorded`: what the log says of alarms so far; asked until it answers, so that none is raised twice or left standing. */
export const startAlarms = (options: {
  readonly facts: () => Promise<readonly (FamilyFacts | UnreadableFamily)[]>;
  readonly recorded: () => Promise<readonly FamilyEvent[]>;
  readonly familyLog: FamilyLog;
  readonly log: Log;
  readonly now: () => number;
}): { stop(): Promise<void> } => {
  const { facts, recorded, familyLog, log, now } = options;
  const stopping = new AbortController();
  /** null: the log could not be read yet. */
  let open: Map<string, Alarm> | null = null;
  /** Said to people already, whether or not it could be recorded. */
  const said = new Set<string>();

  const look = async (): Promise<void> => {
    const found = (await facts()).flatMap((one) => alarmsOf(one, now()));
    for (const alarm of found) if (!said.has(alarm.alarmId)) log('error', { ...alarm }, `alarm: ${alarm.words}`);
    said.clear();
    for (const { alarmId } of found) said.add(alarmId);
    open ??= openAlarms(await recorded());
    const standing = open;
    const { raised, cleared } = changesOf(standing, found);
    const raise = async (alarm: Alarm): Promise<void> => {
      await familyLog.append(eventOf(alarm.family, { type: 'AlarmRaised', data: alarm }, now()));
      standing.set(alarm.alarmId, alarm);
    };
    const clear = async ({ family, alarmId, kind, releaseId, since }: Alarm): Promise<void> => {
      const data = { alarmId, kind, releaseId, since };
      await familyLog.append(eventOf(family, { type: 'AlarmCleared', data }, now()));
      standing.delete(alarmId);
      log('info', data, 'an alarm is over');
    };
    // Each by itself: one that the log does not take keeps no other one from it.
    const done = await Promise.allSettled([...raised.map(raise), ...cleared.map(clear)]);
    const failed = done.find((one) => one.status === 'rejected');
    if (failed) throw failed.reason;
  };

  const run = async (): Promise<void> => {
    let working = true;
    while (!stopping.signal.aborted) {
      await look().then(
        () => {
          working = true;
        },
        (error: Error) => {
          if (working) log('warn', { error: error.message }, 'alarms could not be looked at or recorded');
          working = false;
        },
      );
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

type AlarmEvent = {
  [T in 'AlarmRaised' | 'AlarmCleared']: { readonly type: T; readonly data: FamilyEvents[T] };
}['AlarmRaised' | 'AlarmCleared'];

const eventOf = (family: string, event: AlarmEvent, now: number): FamilyEvent => ({
  ...event,
  ...{ eventId: `alarm/${event.data.alarmId}/${randomUUID()}`, family, schemaVersion: familyEventVersion },
  ...{ occurredAt: new Date(now).toISOString(), actor: { kind: 'service', id: 'alarms' } },
});
