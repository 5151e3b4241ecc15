/**
 * What must hold of a release whatever has died or jumped while it ran: read from what Kafka, PostgreSQL and the store have,
 * not from what a service says about itself.
 */
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { expect } from 'vitest';
import type { DirectorDocument } from '../../domain/director.ts';
import { isExposed, unitIdOf } from '../../domain/exposure.ts';
import { compareRecomputed, createWindowFold } from '../../domain/judge/recompute.ts';
import { acceptWindow, foldTicks, newSession } from '../../domain/judge/session.ts';
import { engineId, segmentKey, type Verdict } from '../../domain/release.ts';
import { foldEvents, type ReleaseState } from '../../domain/release-state.ts';
import { type ControlRecord, decodeTelemetry, type TelemetryRecord, type Window } from '../../domain/telemetry.ts';
import type { StoredEvent } from '../../events/catalogue.ts';
import { verifyStream } from '../../events/verify.ts';
import { bucketOf } from '../../infra/cohort.ts';
import type { Config } from '../../infra/config.ts';
import { digestOf } from '../../infra/content/digests.ts';
import { createKafka, silent } from '../../infra/kafka/client.ts';
import { readReleaseEvents } from '../../infra/kafka/event-log.ts';
import { type KeyedRecord, readToEnd } from '../../infra/kafka/read.ts';
import { partitionsOf, topicName } from '../../infra/kafka/topics.ts';
import { createEvidenceReader, readEvidence } from '../../infra/postgres/evidence.ts';
import { readQuarantine, readRelease } from '../../infra/postgres/releases.ts';
import { storeDirOf } from '../../services/all.ts';
import { until } from './pipeline.ts';

// ---- every director document that devices could ever see

export type Published = {
  /** Of the role: grows with every renewal too. */
  readonly version: number;
  readonly document: DirectorDocument;
  readonly expiresAt: number;
  /** When it was written, by the clock of this machine's kernel, whatever a process believes. */
  readonly at: number;
};

/**
 * Reads each version of the director role as it is written; the store keeps the last thirty. A writer that was killed before
 * it named its version in a timestamp has signed it nevertheless: it counts, beside the one that was written over it.
 */
export const collectDirectors = (stateDir: string, family: string) => {
  const dir = join(storeDirOf(stateDir), 'repository', 'metadata');
  const found = new Map<string, Published>();
  const collect = async (): Promise<void> => {
    for (const file of await readdir(dir)) {
      const version = Number(new RegExp(`^(\\d+)\\.director-${family}\\.json$`).exec(file)?.[1] ?? 0);
      if (version === 0) continue;
      const path = join(dir, file);
      const at = (await stat(path).catch(() => null))?.mtimeMs;
      if (at === undefined || found.has(`${version} ${at}`)) continue;
      const text = await readFile(path, 'utf8').catch(() => null);
      if (text === null) continue; // removed meanwhile; a version that was never read is missed below
      const { signed } = JSON.parse(text);
      const { document } = signed.targets[`director/${family}.json`].custom;
      found.set(`${version} ${at}`, { version, document, expiresAt: Date.parse(signed.expires), at });
    }
  };
  const stopping = new AbortController();
  const run = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      await collect();
      await sleep(200, undefined, { signal: stopping.signal }).catch(() => {});
    }
  };
  const running = run();
  return {
    /** In order. Throws when a version was missed. */
    published: async (): Promise<readonly Published[]> => {
      await collect();
      const all = [...found.values()].sort((a, b) => a.version - b.version || a.at - b.at);
      const versions = [...new Set(all.map(({ version }) => version))];
      expect(versions).toEqual(versions.map((_, index) => index + 1));
      return all;
    },
    stop: async () => {
      stopping.abort();
      await running;
    },
  };
};

export type Directors = ReturnType<typeof collectDirectors>;

// ---- what must hold

export type Sound = {
  readonly state: ReleaseState;
  readonly types: readonly StoredEvent['type'][];
  readonly events: readonly StoredEvent[];
  readonly verdicts: readonly Verdict[];
};

/**
 * Of a release that has ended in `phase`. No event is lost, doubled or forked, and PostgreSQL shows what Kafka has. Exposure
 * was never above plan: no document before its stage was durable in Kafka, none above the stage's thresholds or beyond its
 * lease, and no device outside was offered anything. Windows, evidence and verdicts are those that the telemetry log gives.
 */
export const expectSound = async (
  config: Config,
  directors: Directors,
  releaseId: string,
  phase: ReleaseState['phase'],
): Promise<Sound> => {
  const kafka = createKafka({ brokers: config.kafka.brokers ?? [], clientId: 'test', log: silent });
  const pool = new pg.Pool({ connectionString: config.postgres.url ?? '', max: 2 });
  pool.on('error', () => {});
  try {
    const records = await readReleaseEvents(kafka, config.kafka.topicPrefix);
    const mine = records.filter(({ key }) => key === releaseId);
    const { events, findings } = verifyStream(releaseId, mine);
    expect(findings).toEqual([]);
    expect(events.map(({ seq }) => seq)).toEqual(events.map((_, index) => index + 1));
    const state = foldEvents(events);
    if (state === null) throw new Error(`${releaseId} has no events`);
    expect(state.phase).toBe(phase);
    await until(async () => (await readRelease(pool, releaseId))?.headHash === events.at(-1)?.hash);
    expect((await readRelease(pool, releaseId))?.state).toEqual(state);
    expect(await readQuarantine(pool, releaseId)).toEqual([]);

    expectWithinPlan(state, mine, await directors.published());
    const telemetry = await readTelemetry(config, releaseId);
    expectOffersWithinPlan(state, telemetry);

    const windows = await readToEnd(kafka, topicName(config.kafka.topicPrefix, 'telemetry.windows.v1'));
    const verdicts = await expectRecomputed(pool, releaseId, telemetry, windows, events);
    return { state, events, verdicts, types: events.map(({ type }) => type) };
  } finally {
    await pool.end();
  }
};

const expectWithinPlan = (
  { releaseId, rollout }: ReleaseState,
  records: readonly KeyedRecord[],
  published: readonly Published[],
): void => {
  const { events } = verifyStream(releaseId, records);
  const durableAt = new Map<number, number>();
  for (const { value, appendedAt } of records) {
    const event: StoredEvent = JSON.parse(new TextDecoder().decode(value));
    if (event.type === 'StageOpened' && !durableAt.has(event.data.stage)) durableAt.set(event.data.stage, appendedAt);
  }
  const opened = new Map(events.flatMap((one) => (one.type === 'StageOpened' ? [[one.data.stage, one.data]] : [])));
  const own = published.filter(({ document }) => document.rollout?.content.releaseId === releaseId);
  expect(own.length).toBeGreaterThan(0);
  let last = -1;
  for (const { document, expiresAt, at } of own) {
    if (document.rollout === null || document.mode !== 'rolling') continue;
    const { stage, thresholds, lease } = document.rollout;
    expect(stage).toBeGreaterThanOrEqual(last);
    last = stage;
    expect(thresholds).toEqual(opened.get(stage)?.thresholds);
    for (const [segment, threshold] of Object.entries(thresholds)) {
      expect(threshold).toBeLessThanOrEqual(rollout?.stages[stage]?.thresholds[segment] ?? 0);
    }
    // Both are the kernel's clock; the broker's has whole milliseconds.
    expect(at).toBeGreaterThanOrEqual(durableAt.get(stage) ?? Number.POSITIVE_INFINITY);
    expect(expiresAt - at).toBeLessThanOrEqual(lease.leaseMs);
  }
};

export type Telemetry = readonly (KeyedRecord & { readonly telemetry: TelemetryRecord | null })[];

/** All telemetry, once every partition says that the release has ended: what comes later changes nothing of it any more. */
export const readTelemetry = async (config: Config, releaseId: string): Promise<Telemetry> => {
  const kafka = createKafka({ brokers: config.kafka.brokers ?? [], clientId: 'test', log: silent });
  const topic = topicName(config.kafka.topicPrefix, 'telemetry.reports.v1');
  let found: Telemetry = [];
  await until(async () => {
    found = (await readToEnd(kafka, topic)).map((record) => ({ ...record, telemetry: decodeTelemetry(record.value) }));
    const ended = found.flatMap(({ partition, telemetry: record }) => {
      const control = record !== null && 'control' in record ? record.control : null;
      return control?.kind === 'release-ended' && control.releaseId === releaseId ? [partition] : [];
    });
    return new Set(ended).size === partitionsOf('telemetry.reports.v1');
  });
  return found;
};

/** Every device that asked to be offered the release was inside what its partition knew as granted. */
const expectOffersWithinPlan = ({ releaseId }: ReleaseState, telemetry: Telemetry): void => {
  const granted = new Map<number, Extract<ControlRecord, { kind: 'stage-opened' }>>();
  const outside: string[] = [];
  let offers = 0;
  for (const { partition, telemetry: record } of telemetry) {
    if (record === null) continue;
    if ('control' in record) {
      const { control } = record;
      if (control.kind === 'stage-opened' && control.releaseId === releaseId) granted.set(partition, control);
      continue;
    }
    const { deviceId, body } = record.report;
    if (body.kind !== 'poll' || body.offer?.releaseId !== releaseId) continue;
    offers += 1;
    const stage = granted.get(partition);
    const threshold = stage?.thresholds[segmentKey(engineId(body.engine), body.failMode)] ?? 0;
    if (stage === undefined) outside.push(deviceId);
    else if (!isExposed(bucketOf(stage.salt, unitIdOf(stage.policy.unit, record.report)), threshold))
      outside.push(deviceId);
  }
  expect(outside).toEqual([]);
  expect(offers).toBeGreaterThan(0);
};

const expectRecomputed = async (
  pool: pg.Pool,
  releaseId: string,
  telemetry: Telemetry,
  written: readonly KeyedRecord[],
  events: readonly StoredEvent[],
): Promise<readonly Verdict[]> => {
  const fold = createWindowFold({ releaseId, partitions: partitionsOf('telemetry.reports.v1'), bucketOf });
  for (const { partition, offset, appendedAt, telemetry: record } of telemetry) {
    fold.take(partition, Number(offset), appendedAt, record);
  }
  const windows = fold.windows();
  const session = newSession(releaseId);
  for (const window of windows) acceptWindow(session, window, digestOf(window));
  const ticks = foldTicks(session, { digestOf, codeVersion: 'recomputed' });
  expect(ticks.length).toBeGreaterThan(0);
  const status = () => createEvidenceReader(pool).judgeStatus(releaseId);
  await until(async () => (await status())?.lastTick === ticks.at(-1)?.status.lastTick);
  expect(await readEvidence(pool, releaseId)).toEqual(ticks.map(({ evidence }) => evidence));
  const { counts, exposed, openTrials } = ticks.at(-1)?.status ?? {};
  expect(await status()).toMatchObject({ counts, exposed, openTrials });

  const recorded = written.filter(({ key }) => key === releaseId);
  const known = {
    windows: recorded.map(({ value }): Window => JSON.parse(new TextDecoder().decode(value))),
    verdicts: events.flatMap((event) => {
      if (event.type === 'StageHeld') return event.data.verdict ?? [];
      if (event.type !== 'RegressionDetected') return [];
      const { stage: _stage, ...verdict } = event.data;
      return verdict;
    }),
  };
  const { differences, verdicts } = compareRecomputed(releaseId, windows, known, digestOf);
  expect(differences).toEqual([]);
  return verdicts;
};
