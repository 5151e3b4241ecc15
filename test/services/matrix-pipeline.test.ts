/** The matrix as a release meets it: cut content, engines that nobody can test, and what two people decide about them. */
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ApiError } from '../../apps/cli/context.ts';
import { foldEvents, type ReleaseState } from '../../domain/release-state.ts';
import type { StoredEvent } from '../../events/catalogue.ts';
import type { ImportAnswer, WaiverAnswer } from '../../services/api/contract.ts';
import { runCli } from '../support/cli.ts';
import { examples, type Pipeline, startPipeline, until } from '../support/pipeline.ts';

let pipeline: Pipeline;
let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sigrel-matrix-'));
  pipeline = await startPipeline({ namespace: 'matrix', devices: 120 });
});
afterAll(async () => {
  await pipeline?.stop();
  await rm(dir, { recursive: true, force: true });
});

/** A folder like an example's release, with some files written otherwise. */
const contentLike = async (
  example: string,
  name: string,
  changes: Readonly<Record<string, string>>,
): Promise<string> => {
  const releases = join(dir, 'releases');
  const folder = join(releases, name);
  await mkdir(releases, { recursive: true });
  await cp(join(examples, 'families'), join(dir, 'families'), { recursive: true, force: true });
  await cp(join(examples, 'releases', example), folder, { recursive: true });
  for (const [path, text] of Object.entries(changes)) await writeFile(join(folder, path), text);
  return folder;
};

const eventsOf = async (state: ReleaseState): Promise<readonly StoredEvent[]> => {
  const { events, findings } = await pipeline.stream(state.releaseId);
  expect(findings).toEqual([]);
  expect(foldEvents(events)).toEqual(state);
  return events;
};
const ofType = <T extends StoredEvent['type']>(events: readonly StoredEvent[], type: T) =>
  events.filter((event): event is Extract<StoredEvent, { type: T }> => event.type === type);

const day = 24 * 3_600_000;
const until30 = (): string => new Date(Date.now() + 30 * day).toISOString().slice(0, 10);
const exclude = (engine: string, by: string) =>
  pipeline.api.post<WaiverAnswer>('/families/ips/exclusions', { engine, by, reason: 'a lab device', until: until30() });
const override = (releaseId: string, cell: string, by: string) =>
  pipeline.api.post<WaiverAnswer>(`/releases/${releaseId}/overrides`, { cell, by, reason: 'known', until: until30() });
const sigrel = (...args: string[]) => runCli(args, pipeline.env);
const importDevice = (device: string, engine: string) =>
  pipeline.api.post<ImportAnswer>('/fleet', { devices: [{ device, engine, failMode: 'fail-open' }] });
const codeOf = (problem: Promise<unknown>): Promise<string> =>
  problem.then(
    () => 'no error',
    (error) => (error instanceof ApiError ? error.code : String(error)),
  );

describe('content that does not fit every engine', () => {
  test('with misfit: cut each engine gets what it loads, and the gaps are recorded with their devices', async () => {
    const head = 'base: ../../families/ips\nname: ips\nengine: suricata\nmodes: [ids, ips]\nmisfit: cut\n';
    const folder = await contentLike('astaro', 'cut', { 'family.yaml': head });
    const state = await pipeline.wait(await pipeline.release(folder, 'matrix-cut'));
    expect(state.phase).toBe('completed');
    const events = await eventsOf(state);
    const gaps = ofType(events, 'CoverageGapRecorded').map(({ data }) => data);
    expect(gaps.map(({ version }) => version)).toEqual(['6.0.1', '7.0.10']);
    for (const { rules, devices } of gaps) {
      expect(rules).toEqual([{ rule: 1000033, words: expect.stringContaining('entropy') }]);
      expect(devices).toBeGreaterThan(0);
    }
    const devices = (version: string) =>
      pipeline.simulator.devices.filter((device) => device.engine.version === version).length;
    expect(gaps.map((gap) => gap.devices)).toEqual([devices('6.0.1'), devices('7.0.10')]);
    const digests = new Map(state.build?.artefacts.map(({ engine, sha256 }) => [engine.split('-')[1], sha256]));
    expect(digests.get('6.0.1')).toBe(digests.get('7.0.10'));
    expect(digests.get('6.0.1')).not.toBe(digests.get('8.0.7'));
    expect(state.matrix?.results.every((result) => result.verdict === 'pass')).toBe(true);
    const version = state.build?.contentVersion;
    expect(pipeline.simulator.devices.every((device) => device.contentVersion === version)).toBe(true);
  });

  test('features that an engine never got before are recorded, and the stages last longer', async () => {
    const state = await pipeline.wait('matrix-cut');
    const [first] = ofType(await eventsOf(state), 'FirstUseRecorded');
    expect(first?.data.engines.map(({ engine }) => engine.split('-')[1])).toEqual(['8.0.7', '8.0.8']);
    expect(first?.data.engines[0]?.features).toContain('entropy');
  });
});

describe('a red cell', () => {
  const wrong = async () => {
    const folder = await contentLike('good', 'wrong', {});
    const vectors = await readFile(join(folder, 'vectors.yaml'), 'utf8');
    // The first vector of the release expects a rule of the base too, which stays silent on it.
    const changed = vectors.replace(/mustMatch: \[(\d+)\]/, 'mustMatch: [$1, 1000001]');
    expect(changed).not.toBe(vectors);
    await writeFile(join(folder, 'vectors.yaml'), changed);
    return folder;
  };

  test('blocks; one person alone changes nothing; two let exactly this content pass, and are on record', async () => {
    const folder = await wrong();
    const blocked = await pipeline.wait(await pipeline.release(folder, 'matrix-red'));
    expect(blocked.phase).toBe('blocked');
    const red = blocked.matrix?.results.filter((result) => result.verdict === 'fail') ?? [];
    expect(red).toHaveLength(8);
    for (const { gates } of red) {
      expect(gates.find(({ gate }) => gate === 'must-match')?.details).toMatchObject([{ rule: 1000001 }]);
    }
    for (const { cellId } of red) {
      expect(await override('matrix-red', cellId, 'ann')).toMatchObject({ inForce: false });
      expect(await codeOf(override('matrix-red', cellId, 'ann'))).toBe('SRP_RULE_FOUR_EYES');
    }
    const again = await pipeline.wait(await pipeline.release(folder, 'matrix-red-2'));
    expect(again.phase).toBe('blocked');
    // Nothing has changed since: the engines are not asked again, and the results say so.
    expect(again.matrix?.results.map((result) => result.reused?.from)).toEqual(Array(8).fill('matrix-red'));

    for (const { cellId } of red) {
      expect(await override('matrix-red', cellId, 'bob')).toMatchObject({ inForce: true });
    }
    const passed = await pipeline.wait(await pipeline.release(folder, 'matrix-red-3'));
    expect(passed.phase).toBe('completed');
    const events = ofType(await eventsOf(passed), 'CellOverridden');
    expect(events.map(({ data }) => data.cellId).sort()).toEqual(red.map(({ cellId }) => cellId).sort());
    expect(events[0]?.data).toMatchObject({ gates: ['must-match'], waiver: { by: ['ann', 'bob'], reason: 'known' } });
  });
});

describe('an engine that nobody can test', () => {
  const engine = 'suricata-5.0.2-00000000';

  test('blocks a release as an untested cell, until two people exclude its devices', async () => {
    expect(await importDevice('lab-1', 'suricata@5.0.2')).toEqual({
      ...{ imported: 1, unknown: [{ engine: 'suricata@5.0.2', devices: 1 }] },
    });
    const blocked = await pipeline.wait(await pipeline.release('good', 'matrix-untested'));
    expect(blocked).toMatchObject({ phase: 'blocked', end: { reasonCode: 'matrix-failed' } });
    const errors = blocked.matrix?.results.filter((result) => result.verdict === 'error') ?? [];
    expect(errors.map(({ cellId }) => cellId).sort()).toEqual([`${engine}/ids`, `${engine}/ips`]);
    expect(errors[0]?.gates[0]?.details[0]?.words).toMatch(/no pack of suricata 5\.0\.2/);
    // A cell that was not tested is nothing that anybody could let pass.
    expect(await codeOf(override('matrix-untested', `${engine}/ids`, 'ann'))).toBe('SRP_RULE_WAIVER');

    expect(await exclude(engine, 'ann')).toMatchObject({ inForce: false });
    expect(await codeOf(exclude(engine, 'ann'))).toBe('SRP_RULE_FOUR_EYES');
    expect(await exclude(engine, 'bob')).toMatchObject({ inForce: true });
    const state = await pipeline.wait(await pipeline.release('good', 'matrix-excluded'));
    expect(state.phase).toBe('completed');
    const [excluded] = ofType(await eventsOf(state), 'CellExcluded');
    expect(excluded?.data).toMatchObject({ engine, devices: 1, waiver: { by: ['ann', 'bob'] } });
    expect(state.build?.artefacts.map((artefact) => artefact.engine)).not.toContain(engine);
    expect(Object.keys(state.counts).some((segment) => segment.startsWith(engine))).toBe(false);

    // One person takes it back, and the engine is an untested cell again; until two exclude it anew.
    const withdrawn = await sigrel('matrix', 'withdraw', 'ips', engine, '--by', 'eve', '--reason', 'it is ours');
    expect(withdrawn).toMatchObject({
      code: 0,
      out: expect.stringContaining(`the exclusion of ${engine} by ann and bob`),
    });
    expect((await sigrel('matrix', 'withdraw', 'ips', engine, '--reason', 'again')).err).toContain(
      'SRP_MISSING_WAIVER',
    );
    const open = await pipeline.wait(await pipeline.release('good', 'matrix-withdrawn'));
    expect(open).toMatchObject({ phase: 'blocked', end: { reasonCode: 'matrix-failed' } });
    const sooner = new Date(Date.now() + 10 * day).toISOString().slice(0, 10);
    for (const [by, end] of [
      ['ann', until30()],
      ['bob', sooner],
    ] as const) {
      const asked = ['--by', by, '--reason', 'a lab device', '--until', end];
      expect((await sigrel('matrix', 'exclude', 'ips', engine, ...asked)).out).toContain(`until ${end}`);
    }
    const listed = (await sigrel('matrix', 'waivers', 'ips')).out.replaceAll(/\s+/g, ' ');
    expect(listed).toMatch(/withdrawn .* ann, bob a lab device; withdrawn by eve on .*: it is ours/);
    expect(listed).toMatch(
      new RegExp(`in force ${sooner} ann, bob a lab device \\(the earlier of .*, ${until30()} and ${sooner}\\)`),
    );
  });

  test('that a device brings while a release is open opens the matrix again, and exposure does not grow', async () => {
    const stages = [
      { name: 'canary', kind: 'canary', size: 8, minMs: '4s', minDevices: 8 },
      { name: 'holdback', kind: 'all', size: 1, minMs: '1s', minDevices: 20 },
    ];
    await pipeline.release('blocks-field', 'matrix-other'); // another content, so that nothing is used again
    await pipeline.wait('matrix-other');
    const id = await pipeline.release('good', 'matrix-reopened', { stages });
    await pipeline.wait(id, (state) => (state.rollout?.stage ?? -1) === 0);
    await importDevice('lab-2', 'suricata@5.0.3');
    const held = await pipeline.wait(id, (state) => state.phase === 'held');
    expect(held).toMatchObject({ rollout: { stage: 0, passed: 1 }, hold: { reasonCode: 'engine-untested' } });
    expect(held.hold?.reason).toMatch(/suricata-5\.0\.3-00000000\/ids/);
    const offered = () => pipeline.simulator.devices.filter(({ contentVersion }) => contentVersion === version).length;
    const version = held.build?.contentVersion ?? 0;
    const before = offered();
    expect(before).toBeLessThan(pipeline.simulator.devices.length);

    // Asked to go on without a decision, it finds the same again.
    await pipeline.api.post(`/releases/${id}/resume`, { by: 'sre', reason: 'try' });
    await until(async () => {
      const { events } = await pipeline.stream(id);
      return ofType(events, 'StageHeld').length === 2;
    });
    expect(offered()).toBe(before);

    for (const by of ['ann', 'bob']) await exclude('suricata-5.0.3-00000000', by);
    await pipeline.api.post(`/releases/${id}/resume`, { by: 'sre', reason: 'excluded' });
    const state = await pipeline.wait(id);
    expect(state.phase).toBe('completed');
    const events = await eventsOf(state);
    const types = events.map((event) => event.type);
    expect(types.indexOf('MatrixReopened')).toBeGreaterThan(types.indexOf('StageOpened'));
    expect(ofType(events, 'MatrixReopened')[0]?.data.cells.map(({ cellId }) => cellId)).toEqual([
      ...['suricata-5.0.3-00000000/ids', 'suricata-5.0.3-00000000/ips'],
    ]);
    expect(types.filter((type) => type === 'StageOpened')).toHaveLength(2);
  });
});
