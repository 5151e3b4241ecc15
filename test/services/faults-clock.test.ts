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
  /** Not so quick that a stage passes before it was looked at. */
  const patient = '20s';
  const stages = [
    { name: 'canary', kind: 'canary', size: 8, minMs: patient, minDevices: 8 },
    { name: '40 %', kind: 'share', size: 0.4, minMs: '1s', minDevices: 20 },
    { name: '60 %', kind: 'share', size: 0.6, minMs: '1s', minDevices: 20 },
    { name: '80 %', kind: 'share', size: 0.8, minMs: patient, minDevices: 20 },
    { name: 'holdback', kind: 'all', size: 1, minMs: '1s', minDevices: 20 },
  ];

  beforeAll(async () => {
    await faulty.release('good', id, { stages });
  });

  const expectLapse = async (service: Clocked, offset: number): Promise<void> => {
    await jump(service, offset);
    await faulty.lapsed();
    expect((await faulty.pollAsNewDevice()).kind).toBe('no-offer');
  };

  test('that of the lease service, forwards and backwards: the lease runs out', async () => {
    await faulty.granted(id, 0);
    await expectLapse('lease', hour);
    await jump('lease', 0);
    await until(async () => (await faulty.director()).expiresAt > Date.now());
    await expectLapse('lease', -hour);
    await jump('lease', 0);
  });

  test.each([
    ['forwards', hour, 1],
    ['backwards', -hour, 2],
  ] as const)('that of the worker, %s: the lease runs out, and no stage passes', async (_, offset, stage) => {
    await faulty.granted(id, stage);
    await expectLapse('worker', offset);
    expect((await faulty.director()).document.rollout?.stage).toBe(stage);
    await jump('worker', 0);
  });

  test('that of the gateway, forwards and backwards: ticks go on, and nobody outside takes it', async () => {
    const rollout = await faulty.granted(id, 3);
    const { contentVersion } = rollout.content;
    for (const offset of [hour, -hour]) {
      await jump('gateway', offset);
      const jumpedAt = Date.now();
      await until(async () => (await clockRecordsSince(jumpedAt)) >= 5 * partitionsOf('telemetry.reports.v1'));
      const taken = faulty.running(contentVersion);
      const { document } = await faulty.director();
      expect(taken).toBeLessThanOrEqual(document.rollout ? faulty.insideOf(document.rollout) : devices);
    }
    await jump('gateway', 0);
    await until(() => faulty.running(contentVersion) >= faulty.insideOf(rollout));
  });

  test('it is completed, and all of it is as the logs say', async () => {
    const state = await faulty.pipeline.wait(id);
    expect(state.phase).toBe('completed');
    const { types } = await expectSound(faulty.pipeline.config, faulty.directors, id, 'completed');
    expect(types.filter((type) => type === 'StagePassed')).toHaveLength(stages.length);
    expect(types).not.toContain('RegressionDetected');
    await expect.poll(() => faulty.running(state.build?.contentVersion ?? -1)).toBe(devices);
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
    const { content } = await faulty.granted(id, 0);
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
