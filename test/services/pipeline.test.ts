import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Client, Connection } from '@temporalio/client';
import { historyToJSON } from '@temporalio/common/lib/proto-utils.js';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { foldEvents, type ReleaseState } from '../../domain/release-state.ts';
import { total } from '../../domain/timeline.ts';
import { patient } from '../support/patience.ts';
import { type Pipeline, startPipeline } from '../support/pipeline.ts';

let pipeline: Pipeline;
beforeAll(async () => {
  pipeline = await startPipeline({ namespace: 'pipeline', devices: 240 });
});
afterAll(async () => {
  await pipeline?.stop();
});

/** What Kafka has is whole, and what PostgreSQL shows is its fold. */
const expectWhole = async (state: ReleaseState) => {
  const stream = await pipeline.stream(state.releaseId);
  expect(stream.findings).toEqual([]);
  expect(foldEvents(stream.events)).toEqual(state);
  return stream.events.map((event) => event.type);
};

const whatIsRed = ({ matrix }: ReleaseState): readonly string[] =>
  (matrix?.results ?? []).flatMap(({ cellId, gates }) =>
    gates.filter(({ verdict }) => verdict !== 'pass').map((gate) => `${cellId}: ${JSON.stringify(gate)}`),
  );

describe('three releases through the whole pipeline', () => {
  test('a good one reaches every device', async () => {
    const state = await pipeline.wait(await pipeline.release('good', 'story-good'));
    expect([state.phase, whatIsRed(state)]).toEqual(['completed', []]);
    const types = await expectWhole(state);
    expect(types.filter((type) => type === 'StagePassed')).toHaveLength(3);
    expect(state.matrix?.results.map((result) => result.verdict)).toEqual(Array(8).fill('pass'));
    expect(total(state.counts, 'harmed')).toBe(0);
    const version = state.build?.contentVersion ?? 0;
    // What the last of them were offered they take a moment later.
    const running = () => pipeline.simulator.devices.filter((device) => device.contentVersion === version).length;
    await expect.poll(running, patient).toBe(240);
  });

  test('one that does not fit an engine of the field is blocked by the matrix, and nobody is offered it', async () => {
    const before = pipeline.simulator.devices.map((device) => device.contentVersion);
    const state = await pipeline.wait(await pipeline.release('astaro', 'story-astaro'));
    expect(state.phase).toBe('blocked');
    const types = await expectWhole(state);
    expect(types).not.toContain('ManifestPublished');
    expect(types).not.toContain('StageOpened');
    const red = state.matrix?.results.filter((result) => result.verdict !== 'pass') ?? [];
    expect(whatIsRed(state).filter((one) => !/suricata-(6|7)/.test(one))).toEqual([]);
    expect(red.map((result) => result.cellId.replace(/-[0-9a-f]{8}\//, '/')).sort()).toEqual([
      'suricata-6.0.1/ids',
      'suricata-6.0.1/ips',
      'suricata-7.0.10/ids',
      'suricata-7.0.10/ips',
    ]);
    for (const result of red) {
      const loaded = result.gates.find((gate) => gate.gate === 'rules-loaded');
      expect(loaded?.details[0]).toMatchObject({ rule: 1000033, words: expect.stringContaining('entropy') });
    }
    expect(pipeline.simulator.devices.map((device) => device.contentVersion)).toEqual(before);
  });

  test('one that blocks legitimate traffic is halted in the canary, and the harmed devices recover', async () => {
    const state = await pipeline.wait(await pipeline.release('blocks-field', 'story-blocks'));
    expect(state.phase).toBe('halted');
    const types = await expectWhole(state);
    expect(types).toContain('MatrixPassed');
    expect(types.filter((type) => type === 'StageOpened')).toHaveLength(1);
    // Frozen by a HOLD already, when harm came in over more than one tick; and by the HALT in any case.
    expect(types.indexOf('RegressionDetected')).toBeLessThan(types.lastIndexOf('ExposureFrozen'));
    expect(types.lastIndexOf('ExposureFrozen')).toBeLessThan(types.indexOf('RollbackPublished'));
    expect(state.halt).toMatchObject({ by: 'judge', reasonCode: 'regression-blocked-traffic', recovered: true });
    expect(total(state.counts, 'harmed')).toBeGreaterThanOrEqual(3);
    expect(total(state.counts, 'recovered')).toBe(total(state.counts, 'harmed'));
    // Canaries only: 8 of each segment, or all where there are fewer.
    const canaries = Object.values(state.rollout?.stages[0]?.devices ?? {}).reduce((a, b) => a + b, 0);
    expect(total(state.counts, 'offered')).toBeLessThanOrEqual(canaries);
    const bad = state.build?.contentVersion;
    expect(pipeline.simulator.devices.filter((device) => device.contentVersion === bad)).toEqual([]);
    expect(pipeline.simulator.devices.filter((device) => device.trouble !== null)).toEqual([]);
  });

  test('what ran can be found in Temporal by release, family, state and halt reason', async () => {
    const { address, namespace } = pipeline.config.temporal;
    const connection = await Connection.connect({ address: address ?? '' });
    const client = new Client({ connection, namespace });
    /** What is written there is found a moment later. */
    const expectFound = (query: string, expected: readonly object[]) => {
      const find = async () => {
        const found = [];
        for await (const { workflowId, memo } of client.workflow.list({ query })) found.push({ workflowId, memo });
        return found;
      };
      return expect.poll(find, patient).toMatchObject(expected);
    };
    await expectFound("SigrelHaltReason = 'regression-blocked-traffic' AND SigrelFamily = 'ips'", [
      { workflowId: 'release/story-blocks', memo: { summary: expect.stringContaining('halted') } },
    ]);
    await expectFound("SigrelState = 'blocked'", [{ workflowId: 'release/story-astaro' }]);
    await expectFound("SigrelReleaseId = 'story-good' AND SigrelState = 'completed'", [
      { workflowId: 'release/story-good' },
    ]);
    if (process.env.RECORD_HISTORIES) await recordHistories(client);
    await connection.close();
  });
});

/** RECORD_HISTORIES=1 writes what test/unit/workflows.test.ts replays: to be done with a change of the workflows that is meant. */
const recordHistories = async (client: Client) => {
  for (const [story, name] of Object.entries({ good: 'completed', astaro: 'blocked', blocks: 'halted' })) {
    const query = `WorkflowId = 'release/story-${story}' OR WorkflowId = 'matrix/story-${story}'`;
    const runs = [];
    for await (const execution of client.workflow.list({ query })) runs.push(execution);
    runs.sort((a, b) => a.startTime.getTime() - b.startTime.getTime());
    const releases = runs.filter(({ type }) => type === 'releaseWorkflow');
    for (const run of runs) {
      const history = await client.workflow.getHandle(run.workflowId, run.runId).fetchHistory();
      const text = historyToJSON(history).replaceAll(/"identity": ?"[^"]*"/g, '"identity":"worker"');
      const part = releases.includes(run) ? `release-${releases.indexOf(run) + 1}` : 'matrix';
      await writeFile(join(import.meta.dirname, '..', 'histories', `${name}-${part}.json`), `${text}\n`);
    }
  }
};
