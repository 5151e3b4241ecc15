/** The clock of one process jumps by an hour, forwards and backwards, while a release runs. */
import { randomUUID } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { decodeTelemetry } from '../../domain/telemetry.ts';
import { createKafka, silent } from '../../infra/kafka/client.ts';
import { readToEnd } from '../../infra/kafka/read.ts';
import { partitionsOf, topicName } from '../../infra/kafka/topics.ts';
import { type FaultyPipeline, startFaultyPipeline } from '../support/faults.ts';
import { until } from '../support/pipeline.ts';
import { expectSound } from '../support/soundness.ts';

const devices = 240;
const apart = ['lease', 'gateway', 'worker'] as const;
type Clocked = (typeof apart)[number];
const hour = 3_600_000;

let dir: string;
let faulty: FaultyPipeline;
const fileOf = (service: string): string => join(dir, service);
const preload = pathToFileURL(join(import.meta.dirname, '..', 'support', 'jumping-clock.ts')).href;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sigrel-clocks-'));
  for (const service of apart) writeFileSync(fileOf(service), '0');
  faulty = await startFaultyPipeline({
    ...{ namespace: 'clock', devices, own: [], apart },
    processOf: (service) => ({ args: ['--import', preload], env: { CLOCK_OFFSET_FILE: fileOf(service) } }),
  });
});
afterAll(async () => {
  await faulty?.stop();
  await rm(dir, { recursive: true, force: true });
});

/** Resolves when that process has the new time. */
const jump = async (service: Clocked, offset: number): Promise<void> => {
  const before = randomUUID();
  writeFileSync(`${fileOf(service)}.taken`, before);
  writeFileSync(fileOf(service), String(offset));
  await until(() => readFileSync(`${fileOf(service)}.taken`, 'utf8') === String(offset));
};

const granted = (id: string, stage: number) => faulty.granted(id, stage);
const offered = async (id: string): Promise<number> => {
  type Answer = { readonly judge: { readonly counts: Readonly<Record<string, { readonly offered: number }>> } | null };
  const { judge } = await faulty.pipeline.api.get<Answer>(`/releases/${id}`);
  return Object.values(judge?.counts ?? {}).reduce((sum, counts) => sum + counts.offered, 0);
};

const clockRecordsSince = async (at: number): Promise<number> => {
  const { brokers = [], topicPrefix } = faulty.pipeline.config.kafka;
  const kafka = createKafka({ brokers, clientId: 'test', log: silent });
  const records = await readToEnd(kafka, topicName(topicPrefix, 'telemetry.reports.v1'));
  const kinds = records.flatMap(({ value, appendedAt }) => {
    const record = appendedAt >= at ? decodeTelemetry(value) : null;
    return record !== null && 'control' in record ? [record.control.kind] : [];
  });
  return kinds.filter((kind) => kind === 'clock').length;
};

describe('in the stages of one release: exposure is never above plan, and it goes on when the clock is right again', () => {
  const id = 'clocks-jump';
  /** Not so quick that a stage passes before its lease has run out. */
  const patient = '15s';
  const stages = [
    { name: 'canary', kind: 'canary', size: 8, minMs: patient, minDevices: 8 },
    { name: '35 %', kind: 'share', size: 0.35, minMs: patient, minDevices: 20 },
    { name: '50 %', kind: 'share', size: 0.5, minMs: '1s', minDevices: 20 },
    { name: '65 %', kind: 'share', size: 0.65, minMs: '1s', minDevices: 20 },
    { name: '80 %', kind: 'share', size: 0.8, minMs: '1s', minDevices: 20 },
    { name: '90 %', kind: 'share', size: 0.9, minMs: '1s', minDevices: 20 },
    // Until a person says that it is enough.
    { name: 'holdback', kind: 'all', size: 1, minMs: '1h', minDevices: 20 },
  ];

  beforeAll(async () => {
    await faulty.release('good', id, { stages });
  });

  test.each([
    ['lease', 'forwards', hour, 0],
    ['lease', 'backwards', -hour, 1],
    ['worker', 'forwards', hour, 2],
    ['worker', 'backwards', -hour, 3],
  ] as const)('that of the %s jumps %s: the lease runs out, and no stage passes', async (service, _, offset, stage) => {
    await granted(id, stage);
    await jump(service, offset);
    await faulty.lapsed();
    expect((await faulty.pollAsNewDevice()).kind).toBe('no-offer');
    expect((await faulty.director()).document.rollout?.stage).toBe(stage);
    await jump(service, 0);
  });

  test('that of the gateway jumps forwards: what it acknowledges for longer ends with the lease', async () => {
    const { content } = await granted(id, 4);
    await jump('gateway', hour);
    const rollout = await granted(id, 5);
    await until(() => faulty.running(content.contentVersion) === faulty.insideOf(rollout));
  });

  test('that of the gateway jumps backwards: what it acknowledges is over already, and nobody takes it', async () => {
    const before = await granted(id, 5);
    const { contentVersion } = before.content;
    await jump('gateway', -hour);
    await granted(id, 6);
    // Every device has asked, and none of the last stage could take it.
    await until(async () => (await offered(id)) === devices);
    expect(faulty.running(contentVersion)).toBe(faulty.insideOf(before));
    // Ticks close all the same, also where no device reports.
    const jumpedAt = Date.now();
    await until(async () => (await clockRecordsSince(jumpedAt)) >= 5 * partitionsOf('telemetry.reports.v1'));
    await jump('gateway', 0);
    await until(() => faulty.running(contentVersion) === devices);
    await faulty.pipeline.api.post(`/releases/${id}/promote`, { by: 'sam', reason: 'the clocks are right again' });
  });

  test('it is completed, and all of it is as the logs say', async () => {
    const state = await faulty.pipeline.wait(id);
    expect(state.phase).toBe('completed');
    const { types } = await expectSound(faulty.pipeline.config, faulty.directors, id, 'completed');
    expect(types.filter((type) => type === 'StagePassed')).toHaveLength(stages.length);
    expect(types).not.toContain('RegressionDetected');
    expect(faulty.running(state.build?.contentVersion ?? -1)).toBe(devices);
  });
});

describe('a person halts while every clock is wrong', () => {
  test.each([
    ['ahead', hour],
    ['behind', -hour],
  ])('an hour %s: frozen at once, and rolled back', async (name, offset) => {
    const id = `halted-${name}`;
    const stages = [
      { name: 'canary', kind: 'canary', size: 8, minMs: '1h', minDevices: 8 },
      { name: 'holdback', kind: 'all', size: 1, minMs: '1s', minDevices: 20 },
    ];
    await faulty.release('good', id, { stages });
    const { content } = await granted(id, 0);
    await until(() => faulty.running(content.contentVersion) > 0);
    for (const service of apart) await jump(service, offset);
    const request = { by: 'sam', reason: 'complaints' };
    await faulty.pipeline.api.post(`/releases/${id}/halt`, request);
    expect(['frozen', 'rollback']).toContain((await faulty.director()).document.mode);
    expect((await faulty.pipeline.wait(id)).halt).toMatchObject(request);
    await until(() => faulty.running(content.contentVersion) === 0);
    for (const service of apart) await jump(service, 0);
    const { types } = await expectSound(faulty.pipeline.config, faulty.directors, id, 'halted');
    expect(types.slice(types.indexOf('HaltRequested'))).toEqual([
      ...['HaltRequested', 'ExposureFrozen', 'RollbackPublished', 'HaltVerified', 'ReleaseHalted'],
    ]);
  });
});
