/** Kafka's disk is full: the broker dies of it, for real, and nothing that was acknowledged is lost. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { beat, keepUnsent } from '../../apps/device/cycle.ts';
import type { ReportsAnswer } from '../../domain/telemetry.ts';
import { readServers } from '../../infra/servers/local.ts';
import { readServices } from '../../infra/servers/services-record.ts';
import { cleanUp } from '../support/clean-up.ts';
import { type FaultyPipeline, startFaultyPipeline } from '../support/faults.ts';
import { patient } from '../support/patience.ts';
import { until } from '../support/pipeline.ts';
import { openSmallDisk, type SmallDisk } from '../support/small-disk.ts';
import { expectSound, readTelemetry } from '../support/soundness.ts';

const devices = 120;

describe('the disk of Kafka is full', () => {
  let small: SmallDisk;
  let whyNot: string | null = null;
  let faulty: FaultyPipeline;
  beforeAll(async () => {
    const disk = await openSmallDisk(192);
    if ('why' in disk) {
      whyNot = `this system gives no small disk: ${disk.why}`;
      return;
    }
    small = disk;
    faulty = await startFaultyPipeline({
      ...{ namespace: 'disk', devices, own: ['kafka'], apart: [] },
      kafkaDir: small.path,
    });
  });
  beforeEach(({ skip }) => {
    if (whyNot !== null) skip(whyNot);
  });
  afterAll(async () => {
    await cleanUp([() => faulty?.stop(), () => small?.close()]);
  });

  const fillUp = async (): Promise<void> => {
    small.fill();
    // What it cannot write ends it: it has no other disk.
    await until(() => readServers(faulty.dir).kafka === undefined);
  };
  const makeSpace = async (): Promise<void> => {
    await small.free();
    await faulty.start('kafka');
  };

  /** The simulated devices say something beside their heartbeats; what the gateway answers is kept. */
  const talk = () => {
    const stopping = new AbortController();
    const accepted: string[] = [];
    const answers = new Map<number, number>();
    const url = readServices(faulty.pipeline.config.stateDir).gateway?.url ?? '';
    const say = async (): Promise<void> => {
      const speakers = faulty.pipeline.simulator.devices.slice(0, 20);
      const said = speakers.map((device) => ({ device, reports: beat(device, null).reports }));
      const response = await fetch(`${url}/v1/reports`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ reports: said.flatMap(({ reports }) => reports) }),
      });
      answers.set(response.status, (answers.get(response.status) ?? 0) + 1);
      if (response.status !== 200) {
        for (const { device, reports } of said) keepUnsent(device, reports.slice(0, -1));
        return;
      }
      const { results } = (await response.json()) as ReportsAnswer;
      const reports = said.flatMap((one) => one.reports);
      for (const [index, { status }] of results.entries()) {
        const { deviceId, sequence } = reports[index] ?? {};
        if (status === 'accepted') accepted.push(`${deviceId} ${sequence}`);
      }
    };
    const run = async (): Promise<void> => {
      while (!stopping.signal.aborted) {
        await say();
        await sleep(500); // well below what a device may send
      }
    };
    const running = run();
    const stop = async (): Promise<readonly string[]> => {
      stopping.abort();
      await running;
      return accepted;
    };
    onTestFinished(async () => {
      await stop();
    });
    return { answers, stop };
  };
  const expectKept = async (id: string, accepted: readonly string[]): Promise<void> => {
    const telemetry = await readTelemetry(faulty.pipeline.config, id);
    const kept = new Set(
      telemetry.flatMap(({ telemetry: record }) =>
        record !== null && 'report' in record ? [`${record.report.deviceId} ${record.report.sequence}`] : [],
      ),
    );
    expect(accepted.length).toBeGreaterThan(0);
    expect(accepted.filter((one) => !kept.has(one))).toEqual([]);
  };
  const granted = async (id: string): Promise<number> => {
    const { content } = await faulty.granted(id, 0);
    await until(() => faulty.running(content.contentVersion) > 0);
    return content.contentVersion;
  };
  const long = {
    stages: [
      { name: 'canary', kind: 'canary', size: 8, minMs: '15s', minDevices: 8 },
      { name: 'holdback', kind: 'all', size: 1, minMs: '1s', minDevices: 20 },
    ],
  };

  test('in a stage: reports are refused, the lease runs out, and with space again the release goes on', async () => {
    const id = 'full-disk';
    await faulty.release('good', id, long);
    const version = await granted(id);
    const talking = talk();
    await until(() => (talking.answers.get(200) ?? 0) > 0);
    await fillUp();
    await until(() => (talking.answers.get(503) ?? 0) > 0);
    await faulty.lapsed();
    expect((await faulty.pollAsNewDevice()).kind).toBe('no-offer');
    expect((await faulty.director()).document.rollout?.stage).toBe(0);
    await makeSpace();
    const before = talking.answers.get(200) ?? 0;
    await until(() => (talking.answers.get(200) ?? 0) > before);
    expect((await faulty.pipeline.wait(id)).phase).toBe('completed');
    const accepted = await talking.stop();
    expect([...talking.answers.keys()].sort()).toEqual([200, 503]);
    await expectSound(faulty.pipeline.config, faulty.directors, id, 'completed');
    await expectKept(id, accepted);
    await expect.poll(() => faulty.running(version), patient).toBe(devices);
  });

  test('a person halts meanwhile: frozen at once, recorded when there is space again', async () => {
    const id = 'full-disk-halted';
    await faulty.release('good', id, long);
    await granted(id);
    const talking = talk();
    await fillUp();
    const request = { by: 'sam', reason: 'complaints' };
    const answer = await faulty.pipeline.api.post<{ phase: string }>(`/releases/${id}/halt`, request);
    expect(answer.phase).toBe('halting');
    expect(['frozen', 'rollback']).toContain((await faulty.director()).document.mode);
    await makeSpace();
    expect((await faulty.pipeline.wait(id)).halt).toMatchObject(request);
    const accepted = await talking.stop();
    const { types } = await expectSound(faulty.pipeline.config, faulty.directors, id, 'halted');
    expect(types.slice(types.indexOf('HaltRequested'))).toEqual([
      ...['HaltRequested', 'ExposureFrozen', 'RollbackPublished', 'HaltVerified', 'ReleaseHalted'],
    ]);
    await expectKept(id, accepted);
  });
});
