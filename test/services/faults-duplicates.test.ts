/** Every record of every log comes a second time, while releases run. */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createWindowFold } from '../../domain/judge/recompute.ts';
import { acceptWindow, foldTicks, newSession, type TickResult } from '../../domain/judge/session.ts';
import { total } from '../../domain/timeline.ts';
import { bucketOf } from '../../infra/cohort.ts';
import { digestOf } from '../../infra/content/digests.ts';
import { createKafka, keyPartitioner, silent } from '../../infra/kafka/client.ts';
import { partitionsOf, topicName } from '../../infra/kafka/topics.ts';
import { type FaultyPipeline, startFaultyPipeline } from '../support/faults.ts';
import { until } from '../support/pipeline.ts';
import { expectSound, readTelemetry, type Telemetry } from '../support/soundness.ts';

const devices = 120;

let faulty: FaultyPipeline;
let repeater: { stop(): Promise<void> };
beforeAll(async () => {
  faulty = await startFaultyPipeline({ namespace: 'duplicates', devices, own: [], apart: [] });
  repeater = await repeatEverything();
});
afterAll(async () => {
  await repeater?.stop();
  await faulty?.stop();
});

const openKafka = () =>
  createKafka({ brokers: faulty.pipeline.config.kafka.brokers ?? [], clientId: 'repeater', log: silent });

/** Appends what it reads to the same partition once more. Its own records have a header, which nobody else looks at. */
const repeatEverything = async (): Promise<{ stop(): Promise<void> }> => {
  const kafka = openKafka();
  const { topicPrefix } = faulty.pipeline.config.kafka;
  const topics = (['telemetry.reports.v1', 'telemetry.windows.v1', 'release.events.v1'] as const).map((topic) =>
    topicName(topicPrefix, topic),
  );
  const producer = kafka.producer({ createPartitioner: keyPartitioner, allowAutoTopicCreation: false });
  const consumer = kafka.consumer({ groupId: `repeater-${randomUUID()}`, maxWaitTimeInMs: 50 });
  await Promise.all([producer.connect(), consumer.connect()]);
  await consumer.subscribe({ topics, fromBeginning: true });
  await consumer.run({
    partitionsConsumedConcurrently: 12,
    eachBatch: async ({ batch: { topic, partition, messages } }) => {
      const originals = messages.filter(({ headers }) => headers?.repeated === undefined);
      if (originals.length === 0) return;
      const again = originals.map(({ key, value }) => ({ key, value, partition, headers: { repeated: 'yes' } }));
      await producer.send({ topic, acks: -1, messages: again });
    },
  });
  return {
    stop: async () => {
      await consumer.disconnect();
      await producer.disconnect();
    },
  };
};

/** Without what came before: equal bytes in the same partition. The clock says the same each time, and stays. */
const withoutRepeats = (telemetry: Telemetry): Telemetry => {
  const seen = new Set<string>();
  return telemetry.filter(({ partition, value, telemetry: record }) => {
    if (record !== null && 'control' in record && record.control.kind === 'clock') return true;
    const name = `${partition} ${Buffer.from(value).toString()}`;
    const isNew = !seen.has(name);
    seen.add(name);
    return isNew;
  });
};

const judged = (releaseId: string, telemetry: Telemetry): readonly TickResult[] => {
  const fold = createWindowFold({ releaseId, partitions: partitionsOf('telemetry.reports.v1'), bucketOf });
  for (const { partition, offset, appendedAt, telemetry: record } of telemetry) {
    fold.take(partition, Number(offset), appendedAt, record);
  }
  const session = newSession(releaseId);
  for (const window of fold.windows()) acceptWindow(session, window, digestOf(window));
  return foldTicks(session, { digestOf, codeVersion: 'recomputed' });
};
/** What was counted and decided; not which records it came from. */
const countedIn = (ticks: readonly TickResult[]) =>
  ticks.map(({ evidence: { offsets: _offsets, ...evidence }, status, verdicts }) => ({ evidence, status, verdicts }));

/** Counts, evidence and decisions are those of the log without its repeats, and nearly everything was repeated. */
const expectUnmoved = async (releaseId: string): Promise<void> => {
  const reports = (records: Telemetry) => records.filter(({ telemetry: record }) => record && 'report' in record);
  let telemetry: Telemetry = [];
  let once: Telemetry = [];
  // What repeats may be behind for a while.
  await until(async () => {
    telemetry = await readTelemetry(faulty.pipeline.config, releaseId);
    once = withoutRepeats(telemetry);
    return reports(telemetry).length > 1.8 * reports(once).length;
  });
  expect(reports(once).length).toBeGreaterThan(1_000);
  expect(countedIn(judged(releaseId, telemetry))).toEqual(countedIn(judged(releaseId, once)));
};

test('a good release: nobody is counted twice, and nothing halts it', async () => {
  const state = await faulty.pipeline.wait(await faulty.release('good', 'said-twice'));
  expect(state.phase).toBe('completed');
  const { verdicts } = await expectSound(faulty.pipeline.config, faulty.directors, state.releaseId, 'completed');
  expect(verdicts).toEqual([]);
  await expectUnmoved(state.releaseId);
  expect([total(state.counts, 'offered'), total(state.counts, 'installed'), total(state.counts, 'harmed')]).toEqual([
    ...[devices, devices, 0],
  ]);
  await until(async () => {
    const { duplicates, events } = await faulty.pipeline.stream(state.releaseId);
    return duplicates >= events.length - 1;
  });
});

test('a release that does harm: halted once, by the evidence of each device once', async () => {
  const state = await faulty.pipeline.wait(await faulty.release('blocks-field', 'harms-twice'));
  expect(state.phase).toBe('halted');
  const { types, verdicts } = await expectSound(faulty.pipeline.config, faulty.directors, state.releaseId, 'halted');
  expect(types.filter((type) => type === 'RegressionDetected')).toHaveLength(1);
  expect(verdicts.filter(({ kind }) => kind === 'halt')).toHaveLength(1);
  await expectUnmoved(state.releaseId);
  const harmed = total(state.counts, 'harmed');
  expect(harmed).toBeGreaterThan(0);
  expect(harmed).toBeLessThanOrEqual(total(state.counts, 'offered'));
});
