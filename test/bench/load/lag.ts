/** How far the aggregator and the judge are behind their logs, sampled every second from outside. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Kafka } from 'kafkajs';
import type { Window } from '../../../domain/telemetry.ts';
import { topicName } from '../../../infra/kafka/topics.ts';
import type { Pool } from '../../../infra/postgres/pool.ts';

export type Sample = {
  readonly at: number;
  /** Ends of the partitions of the telemetry log. */
  readonly reportEnds: ReadonlyMap<number, number>;
  /** Windows that the judge has not taken yet. */
  readonly judge: number;
};

export type LagSampler = { readonly samples: readonly Sample[]; stop(): Promise<void> };

export const sampleLag = async (kafka: Kafka, pool: Pool, topicPrefix: string): Promise<LagSampler> => {
  const admin = kafka.admin();
  await admin.connect();
  const reports = topicName(topicPrefix, 'telemetry.reports.v1');
  const windows = topicName(topicPrefix, 'telemetry.windows.v1');
  const stopping = new AbortController();
  const samples: Sample[] = [];
  const run = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      const at = Date.now();
      const ends = await admin.fetchTopicOffsets(reports);
      // The judge's place first: what comes between both questions makes the lag larger, never smaller.
      const { rows } = await pool.query<{ next: string }>(
        `select coalesce(sum(next_offset), 0) as next from consumer_watermarks where consumer = 'judge' and topic = $1`,
        [windows],
      );
      const written = (await admin.fetchTopicOffsets(windows)).reduce((sum, { high }) => sum + Number(high), 0);
      samples.push({
        at,
        reportEnds: new Map(ends.map(({ partition, high }) => [partition, Number(high)])),
        judge: written - Number(rows[0]?.next ?? 0),
      });
      await sleep(Math.max(0, at + 1_000 - Date.now()), undefined, { signal: stopping.signal }).catch(() => {});
    }
  };
  const running = run();
  return {
    samples,
    stop: async () => {
      stopping.abort();
      await running;
      await admin.disconnect();
    },
  };
};

export type WrittenWindow = { readonly window: Window; readonly appendedAt: number };

/**
 * Records that the aggregator had not folded into a window yet, at each sample that has a window of every partition from the
 * last second. A window covers whole ticks: up to a tick's records are missing from it by nature.
 */
export const aggregatorLag = (
  samples: readonly Sample[],
  written: readonly WrittenWindow[],
): readonly { readonly at: number; readonly records: number }[] => {
  const byPartition = Map.groupBy(
    written.toSorted((a, b) => a.appendedAt - b.appendedAt),
    ({ window }) => window.partition,
  );
  const places = new Map<number, number>();
  return samples.flatMap(({ at, reportEnds }) => {
    let records = 0;
    for (const [partition, end] of reportEnds) {
      const own = byPartition.get(partition) ?? [];
      let place = places.get(partition) ?? 0;
      while ((own[place + 1]?.appendedAt ?? Number.POSITIVE_INFINITY) <= at) place += 1;
      places.set(partition, place);
      const last = own[place];
      if (last === undefined || last.appendedAt > at || at - last.appendedAt > 1_000) return [];
      records += Math.max(0, end - Number(last.window.lastOffset) - 1);
    }
    return [{ at, records }];
  });
};

/** Mean of the first and of the last quarter of the run. */
export const growthOf = (values: readonly number[]): { readonly first: number; readonly last: number } => {
  const quarter = Math.max(1, Math.floor(values.length / 4));
  const mean = (list: readonly number[]) => list.reduce((a, b) => a + b, 0) / Math.max(1, list.length);
  return { first: mean(values.slice(0, quarter)), last: mean(values.slice(-quarter)) };
};
