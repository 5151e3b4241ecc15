/** A family is frozen and thawed, and evidence goes missing, with everything real: what devices take, what the log and people are told. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import type { Alarm } from '../../domain/alarm.ts';
import { createKafka, silent } from '../../infra/kafka/client.ts';
import { readFamilyEvents } from '../../infra/kafka/family-log.ts';
import { endProcess, type Identity, spawnServer, waitReady } from '../../infra/servers/processes.ts';
import { readServices } from '../../infra/servers/services-record.ts';
import { createFileBlobs } from '../../infra/store/blobs.ts';
import { createDirectorStore } from '../../infra/tuf/director-store.ts';
import { keysDirOf, serviceNames, storeDirOf } from '../../services/all.ts';
import type { FreezeAnswer, ReleaseAnswer, ThawAnswer } from '../../services/api/contract.ts';
import { runCli } from '../support/cli.ts';
import { patient } from '../support/patience.ts';
import { type Pipeline, quickPolicy, startPipeline, until } from '../support/pipeline.ts';

const devices = 240;
const program = join(import.meta.dirname, '..', '..', 'services', 'main.ts');
let pipeline: Pipeline;
let logs: string;
let aggregator: Identity | null = null;

const launchAggregator = async (env: Readonly<Record<string, string>>): Promise<void> => {
  const log = join(logs, 'aggregator.log');
  const { identity } = spawnServer(process.execPath, [program, '--only', 'aggregator'], {
    ...{ log, env: { ...process.env, ...env } },
  });
  aggregator = identity;
  const recorded = async () => readServices(env.SIGREL_STATE_DIR ?? '').aggregator?.process.pid === identity.pid;
  await waitReady('aggregator', identity, log, recorded, patient.timeout);
};
const killAggregator = async (): Promise<void> => {
  if (aggregator) await endProcess(aggregator, 0);
  aggregator = null;
};

beforeAll(async () => {
  logs = await mkdtemp(join(tmpdir(), 'sigrel-freeze-'));
  pipeline = await startPipeline({
    ...{ namespace: 'freeze', devices, only: serviceNames.filter((name) => name !== 'aggregator') },
    beforeFleet: launchAggregator,
  });
});
afterAll(async () => {
  await killAggregator();
  await pipeline?.stop();
  await rm(logs, { recursive: true, force: true });
});

const director = () => {
  const dir = storeDirOf(pipeline.config.stateDir);
  const keysDir = keysDirOf(pipeline.config.stateDir);
  return createDirectorStore({ dir, keysDir, blobs: createFileBlobs(join(dir, 'blobs')), now: Date.now }).read('ips');
};
const running = (version: number) =>
  pipeline.simulator.devices.filter((device) => device.contentVersion === version).length;
const events = (topic: 'distribution.events.v1' | 'ops.events.v1') =>
  readFamilyEvents(
    createKafka({ brokers: inject('kafkaBrokers'), clientId: 'test', log: silent }),
    ...([pipeline.config.kafka.topicPrefix, topic] as const),
  );
const lastTick = async (id: string) => (await pipeline.api.get<ReleaseAnswer>(`/releases/${id}`)).judge?.lastTick ?? -1;
const alarms = async () => (await pipeline.api.get<{ alarms: readonly Alarm[] }>('/alarms')).alarms;
const inStage = (stage: number) => (state: { rollout: { stage: number } | null }) =>
  (state.rollout?.stage ?? -1) >= stage;

test('a frozen family offers nothing, holds its release, and goes on when it is thawed', async () => {
  // The canary's minimum time is an hour: the freeze finds it, however long it takes to be asked for.
  const stages = quickPolicy.stages.map((stage) => ({ ...stage, minMs: stage.name === 'canary' ? '1h' : '1s' }));
  const id = await pipeline.release('good', 'frozen', { stages });
  const { build } = await pipeline.wait(id, inStage(0));
  const version = build?.contentVersion ?? -1;
  await until(() => running(version) > 0);
  const ran = await runCli(['freeze', 'ips', '--reason', 'complaints', '--by', 'sam', '--json'], pipeline.env);
  expect(ran.code, ran.err).toBe(0);
  const frozen: FreezeAnswer = JSON.parse(ran.out);
  expect(frozen.freeze).toMatchObject({ by: 'sam', reason: 'complaints', until: null });
  const held = await pipeline.wait(id, ({ phase }) => phase === 'held');
  expect(held.hold).toMatchObject({ reasonCode: 'frozen', reason: expect.stringContaining('frozen by sam') });

  // After a lease, which is six ticks, who was acknowledged before it has taken it or not; then nobody does, for two leases.
  const before = await lastTick(id);
  await until(async () => (await lastTick(id)) > before + 7);
  const taken = running(version);
  await until(async () => (await lastTick(id)) > before + 20);
  expect(running(version)).toBe(taken);
  expect(taken).toBeLessThan(devices / 2);
  expect(await director()).toMatchObject({ freeze: { by: 'sam' }, document: { freezeId: frozen.freeze.freezeId } });
  await until(async () => (await alarms()).length === 0); // evidence arrives, and there is no lease to be renewed

  // What stands is no alarm: it is said all the same, and that a resume does not lift it.
  const standing = await runCli(['alarms'], pipeline.env);
  expect(standing.code).toBe(0);
  const lines = standing.out.replaceAll(/\s+/g, ' ');
  expect(lines).toMatch(
    /no alarm .*frozen .* ips, by sam: complaints .*held .* frozen of ips: the family is frozen by sam/,
  );
  const resumed = await runCli(['release', 'resume', id, '--reason', 'it looks well'], pipeline.env);
  expect(resumed.code).toBe(0);
  expect(resumed.out.replaceAll(/\s+/g, ' ')).toMatch(
    /the resume is recorded; .* still stopped: its family is frozen by sam since .*: complaints/,
  );
  const resumedAt = Number(/at event (\d+)/.exec(resumed.out)?.[1]);
  await pipeline.wait(id, ({ phase, seq }) => phase === 'held' && seq > resumedAt);
  const again = await runCli(
    ['freeze', 'ips', '--reason', 'more of them', '--by', 'eve', '--until', '1h'],
    pipeline.env,
  );
  expect(again.out.replaceAll(/\s+/g, ' ')).toMatch(/it takes the place of the freeze by sam since .*: complaints/);

  const thawed = await pipeline.api.post<ThawAnswer>('/families/ips/thaw', { by: 'ann', reason: 'it was the network' });
  expect(thawed).toEqual({ family: 'ips', thawed: true, freeze: null });
  expect(await runCli(['thaw', 'ips', '--reason', 'once more'], pipeline.env)).toMatchObject({
    ...{ code: 1, err: expect.stringContaining('SRP_RULE_NOT_FROZEN: family "ips" is not frozen') },
  });
  await pipeline.wait(id, ({ phase }) => phase === 'rolling');
  await pipeline.api.post(`/releases/${id}/promote`, { by: 'ann', reason: 'it was the network' });
  const state = await pipeline.wait(id);
  expect(state.phase).toBe('completed');
  const { events: stream } = await pipeline.stream(id);
  expect(stream.flatMap(({ type, data }) => (type === 'RolloutResumed' ? [data.reasonCode] : []))).toEqual([
    ...['person-resume', 'thawed'],
  ]);

  const told = await events('distribution.events.v1');
  const { freezeId } = frozen.freeze;
  expect(told.filter(({ type }) => type !== 'LeaseRenewed').map(({ type, data }) => ({ type, data }))).toMatchObject([
    { type: 'FamilyFrozen', data: { freezeId, by: 'sam', reason: 'complaints' } },
    { type: 'FamilyFrozen', data: { by: 'eve', reason: 'more of them' } },
    { type: 'FamilyThawed', data: { by: 'ann', reason: 'it was the network' } },
  ]);
  // The lease that the thaw left to be renewed was renewed, and that stands after it.
  const types = told.map(({ type }) => type);
  expect(types.lastIndexOf('LeaseRenewed')).toBeGreaterThan(types.indexOf('FamilyThawed'));
  // A renewal is recorded before it is signed: the one that was under way came too late for the store.
  const meanwhile = types.slice(types.indexOf('FamilyFrozen'), types.indexOf('FamilyThawed'));
  expect(meanwhile.filter((type) => type === 'LeaseRenewed').length).toBeLessThan(2);
});

test('without the aggregator nothing passes: the stage holds, the lease lapses, and alarms say which windows are missing', async () => {
  const id = await pipeline.release('good', 'no-data');
  const { build } = await pipeline.wait(id, inStage(0));
  const version = build?.contentVersion ?? -1;
  await until(() => running(version) > 0);
  await killAggregator();
  let standing: readonly Alarm[] = [];
  await until(async () => {
    standing = (await alarms()).filter(({ releaseId }) => releaseId === id);
    return standing.length === 2;
  });
  expect(standing.map(({ alarmId }) => alarmId).sort()).toEqual([`lease-lapsed/${id}`, `windows-late/${id}`]);
  const late = standing.find(({ kind }) => kind === 'windows-late');
  expect(late).toMatchObject({ family: 'ips', releaseId: id, operator: '>', limit: 3_000 });
  expect(late?.observed).toBeGreaterThan(3_000);
  expect(late?.partitions.length).toBeGreaterThan(0);
  const held = await pipeline.wait(id, ({ phase }) => phase === 'held');
  expect(held.hold?.reasonCode).toBe('no-data');
  await until(async () => (await director()).expiresAt < Date.now());

  const shown = await runCli(['alarms'], pipeline.env);
  expect(shown.code).toBe(3);
  expect(shown.out.replaceAll(/\s+/g, ' ')).toContain(`of ${id} has no window of`);
  const status = await runCli(['status'], pipeline.env);
  expect(status.out).toContain('2 alarms');
  // Only of this release: on a slow machine the lease of another one may have been late, too.
  const told = async (wanted: 'AlarmRaised' | 'AlarmCleared') =>
    (await events('ops.events.v1')).flatMap(({ type, data }) =>
      type === wanted && 'alarmId' in data && data.releaseId === id ? [data.alarmId] : [],
    );
  const ids = standing.map(({ alarmId }) => alarmId).sort();
  await until(async () => new Set(await told('AlarmRaised')).size >= 2);
  expect([...new Set(await told('AlarmRaised'))].sort()).toEqual(ids);

  await launchAggregator(pipeline.env);
  const state = await pipeline.wait(id);
  expect(state.phase).toBe('completed');
  await until(async () => (await alarms()).length === 0);
  await until(async () => new Set(await told('AlarmCleared')).size >= 2);
  expect([...new Set(await told('AlarmCleared'))].sort()).toEqual(ids);
  expect((await runCli(['alarms', '--json'], pipeline.env)).code).toBe(0);
});
