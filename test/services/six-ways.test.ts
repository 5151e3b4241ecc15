/**
 * Six ways to stop a rollout, each with all the others broken:
 *
 *   1  judge's verdict → workflow      broken: nobody signals it (way 2), or no judge runs at all
 *   2  result of the watch             broken: the watch hangs and never looks
 *   3  person → workflow update        broken: no api runs, and nobody asks
 *   4  freezeWorkflow                  broken: its worker does not run
 *   5  break-glass                     broken: nobody has the keys at hand
 *   6  the lease running out           broken: it lasts an hour
 *
 * The log takes nothing any more (Kafka is dead for whoever records), except where telemetry has to come through it. Before
 * each stop a device takes the release, so that it could; afterwards none does, although gateway and repository are well.
 */
import { randomUUID } from 'node:crypto';
import { Context } from '@temporalio/activity';
import { Client, Connection } from '@temporalio/client';
import { NativeConnection } from '@temporalio/worker';
import type { Kafka } from 'kafkajs';
import { afterAll, afterEach, beforeAll, describe, expect, inject, test } from 'vitest';
import { createHaltActivities } from '../../activities/halt.ts';
import { createRolloutActivities } from '../../activities/rollout.ts';
import { SigrelError } from '../../domain/errors.ts';
import { planStages } from '../../domain/exposure.ts';
import type { EvidenceReader, TelemetryLog } from '../../domain/ports.ts';
import { engineId, type FailMode, segmentKey, type Verdict } from '../../domain/release.ts';
import { bucketOf } from '../../infra/cohort.ts';
import { createKafka, silent } from '../../infra/kafka/client.ts';
import { createTelemetryLog } from '../../infra/kafka/telemetry-log.ts';
import { createTopics } from '../../infra/kafka/topics.ts';
import { createMemoryFamilyLog } from '../../infra/memory/family-log.ts';
import { createMemoryInventory } from '../../infra/memory/inventory.ts';
import { createMemoryTelemetryLog } from '../../infra/memory/telemetry-log.ts';
import { createEvidenceReader } from '../../infra/postgres/evidence.ts';
import { startAggregator } from '../../services/aggregator.ts';
import { freezeFamily, thawFamily } from '../../services/api/freeze.ts';
import { signalRegression } from '../../services/api/releases.ts';
import { bundleFreeze, startFreezer } from '../../services/freezer.ts';
import { startJudge } from '../../services/judge.ts';
import { runCli } from '../support/cli.ts';
import { createDatabase, type TestDatabase } from '../support/database.ts';
import { engineA, newFleet, pollBody } from '../support/devices.ts';
import { patient } from '../support/patience.ts';
import { type ScriptedReleases, startScriptedReleases } from '../support/scripted.ts';
import { endlessMs, fleetKey, openStoreWorld, policyOf, type StoreWorld } from '../support/store-world.ts';

const namespace = 'six-ways';

let connection: Connection;
let temporal: Client;
let releases: ScriptedReleases;
const ended: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  connection = await Connection.connect({ address: inject('temporalAddress') });
  temporal = new Client({ connection, namespace });
  releases = await startScriptedReleases(inject('temporalAddress'), namespace);
});
afterEach(async () => {
  for (const end of ended.splice(0).reverse()) await end();
});
afterAll(async () => {
  await releases?.stop();
  await connection?.close();
});

// ---- a fleet, and a release of which its canaries may take

const failModes: readonly FailMode[] = ['fail-open', 'fail-closed'];
const fleet = Array.from({ length: 200 }, (_, n) => `device-${n}`);
const failModeOf = (id: string): FailMode => failModes[fleet.indexOf(id) % 2] ?? 'fail-open';
const segmentOf = (failMode: FailMode) => segmentKey(engineId(engineA), failMode);
const policy = policyOf();
const plan = (releaseId: string, stages = policy.stages) =>
  planStages(
    stages,
    Object.fromEntries(
      failModes.map((mode) => [
        segmentOf(mode),
        fleet.filter((id) => failModeOf(id) === mode).map((id) => bucketOf(releaseId, id)),
      ]),
    ),
  );
const canariesOf = (releaseId: string) => {
  const thresholds = plan(releaseId)[0]?.thresholds ?? {};
  return fleet.filter((id) => bucketOf(releaseId, id) < (thresholds[segmentOf(failModeOf(id))] ?? 0));
};

const gone = async (): Promise<never> => {
  throw new SigrelError('SRP_DEP_POSTGRES', 'PostgreSQL is dead');
};
const noEvidence: EvidenceReader = { judgeStatus: gone };
/** As long as no window can be due. */
const nothingYet: EvidenceReader = { judgeStatus: async () => null };

const openWorld = async (family: string, telemetry?: Parameters<typeof openStoreWorld>[1]): Promise<StoreWorld> => {
  const world = await openStoreWorld(family, telemetry);
  ended.push(world.stop);
  return world;
};

const rolloutOn = (world: StoreWorld, telemetry: TelemetryLog, evidence: EvidenceReader, inActivity: boolean) =>
  createRolloutActivities({
    ...{ director: world.director, telemetry, evidence, bucketOf, now: Date.now },
    inventory: createMemoryInventory([]),
    watches: { note: gone, lastSeen: gone },
    heartbeat: (details) => (inActivity ? Context.current().heartbeat(details) : undefined),
    cancelled: () => (inActivity ? Context.current().cancellationSignal : new AbortController().signal),
  });

/** Grants the canary without any workflow, under a lease of this length. */
const grant = async (world: StoreWorld, releaseId: string, leaseMs: number) => {
  const { release, rollback } = await world.prepare(releaseId);
  await rolloutOn(world, createMemoryTelemetryLog(), nothingYet, false).openStage({
    ...{ releaseId, family: world.family, stage: 0, salt: releaseId, release, startedAt: Date.now() },
    ...{ rollbackVersion: rollback.contentVersion, clearedCells: [], policy: policyOf({ leaseMs }) },
    thresholds: plan(releaseId)[0]?.thresholds ?? {},
  });
  return release;
};

/**
 * A release whose workflow is real, on a store that is real; its watch hangs unless `watch` looks at evidence. From `breakLog` on
 * nothing that it records becomes durable.
 */
const roll = async (world: StoreWorld, telemetry: TelemetryLog, watch: EvidenceReader | null) => {
  const id = world.family;
  const { release, rollback } = await world.prepare(id);
  const artefacts = release.artefacts;
  let logWorks = true;
  let granted = false;
  // What has to work for a stage to be granted is dead from then on.
  const untilGranted: EvidenceReader = { judgeStatus: async () => (granted ? gone() : null) };
  // Everything of the real ones but the plan and the proof of recovery, which are no part of this.
  const { planRollout: _plan, verifyHalt: _verify, ...real } = rolloutOn(world, telemetry, watch ?? untilGranted, true);
  const halt = createHaltActivities({ director: world.director, evidence: noEvidence, now: Date.now });
  const started = await releases.start(id, {
    policy,
    asked: { recordEvents: () => !logWorks, watchStage: () => watch === null },
    answers: {
      buildRelease: async () => ({
        ok: true,
        bundle: { bundleDigest: '0'.repeat(64), rules: 1, vectors: 1, contentVersion: 2, artefacts },
        ...{ gaps: [], excluded: [], waysBack: [] },
      }),
      planMatrix: async () => ({ cells: [cell], fleetDevices: 200 }),
      signRelease: async () => ({
        ...{ threshold: 1, signatures: [{ keyId: 'k', signer: 'k' }], release, rollback },
        previous: (await world.director.read(id)).document.steady,
      }),
      planRollout: async ({ policy: { stages } }) => ({ salt: id, stages: plan(id, stages) }),
      ...real,
      ...halt,
    },
  });
  ended.push(() => started.handle.terminate('the test is over').catch(() => {}));
  await started.until('openStage');
  await expect.poll(async () => (await world.director.read(id)).document.mode, patient).toBe('rolling');
  granted = true;
  return {
    release: started,
    breakLog: () => {
      logWorks = false;
    },
  };
};
const cell = {
  ...{ cellId: `${engineId(engineA)}/ids`, engine: engineA, mode: 'ids' as const, devices: 200 },
};

/** Canaries that have not taken the release yet. */
const expectTakes = async (world: StoreWorld, ids: readonly string[]) => {
  for (const id of ids) expect(await world.takes(world.device(id, failModeOf(id))), id).toBe(true);
};
/** Three times, each device anew, with clocks that are right, slow and fast. */
const expectNobodyTakes = async (world: StoreWorld, ids: readonly string[]) => {
  expect(ids.length).toBeGreaterThan(3);
  for (const skewMs of [0, -600_000, 600_000]) {
    for (const id of ids) {
      const device = world.device(id, failModeOf(id));
      expect(await world.takes(device, skewMs), `${id}, clock wrong by ${skewMs} ms`).not.toBe(true);
      expect(device.contentVersion).not.toBe(2);
    }
  }
};

// ---- real evidence, for the ways that begin with it

type Evidence = { readonly reader: EvidenceReader; readonly telemetry: ReturnType<typeof createTelemetryLog> };

const evidenceStack = async (onVerdict: (releaseId: string, verdict: Verdict) => Promise<void>): Promise<Evidence> => {
  const prefix = `six-ways-${randomUUID()}.`;
  const kafka: Kafka = createKafka({ brokers: inject('kafkaBrokers'), clientId: 'test', log: silent });
  await createTopics(kafka, prefix, silent);
  const database: TestDatabase = await createDatabase();
  ended.push(database.close);
  const telemetry = createTelemetryLog(kafka, prefix);
  ended.push(telemetry.close);
  const shared = { kafka, topicPrefix: prefix, log: silent };
  const aggregator = await startAggregator({ ...shared, pool: database.openPool(), snapshotEveryMs: 1_000 });
  ended.push(aggregator.stop);
  const judge = await startJudge({ ...shared, pool: database.openPool(), codeVersion: 'test', onVerdict });
  ended.push(judge.stop);
  return { telemetry, reader: createEvidenceReader(database.pool) };
};

/** Everybody enrols; some canaries take the release and crash. */
const crash = async (world: StoreWorld, release: { contentVersion: number }, victims: readonly string[]) => {
  const { send } = newFleet(world.gatewayUrl, fleetKey);
  const offer = { releaseId: world.family, contentVersion: release.contentVersion };
  const poll = (id: string, asks: boolean) =>
    [id, pollBody({ failMode: failModeOf(id), ...(asks ? { offer } : {}) })] as const;
  await send(fleet.map((id) => poll(id, false)));
  await send(victims.map((id) => poll(id, true)));
  await send(victims.map((id) => [id, { kind: 'installed', contentVersion: 2 }] as const));
  await send(victims.map((id) => [id, { kind: 'crash', contentVersion: 2, words: 'signal 11' }] as const));
};

const frozenMode = async (world: StoreWorld) => (await world.director.read(world.family)).document.mode;

describe('each way stops alone', () => {
  test('1: the judge’s verdict, said to the workflow', async () => {
    const { telemetry, reader } = await evidenceStack((id, verdict) => signalRegression(temporal, id, verdict));
    const world = await openWorld('way-1', telemetry);
    const { release, breakLog } = await roll(world, telemetry, null);
    const [first = '', ...others] = canariesOf('way-1');
    await expectTakes(world, [first]);
    breakLog();
    await crash(world, { contentVersion: 2 }, others.slice(0, 9));
    await expect.poll(async () => (await reader.judgeStatus('way-1'))?.halt?.metric, patient).toBe('crash');
    await expect.poll(() => frozenMode(world), patient).not.toBe('rolling');
    await expectNobodyTakes(world, others.slice(9));
    expect(release.happened).not.toContain('RegressionDetected'); // it waits for the log; the stop did not
  });

  test('2: the result of the watch over the stage', async () => {
    const { telemetry, reader } = await evidenceStack(async () => {
      throw new Error('nobody can be told');
    });
    const world = await openWorld('way-2', telemetry);
    const { breakLog } = await roll(world, telemetry, reader);
    const [first = '', ...others] = canariesOf('way-2');
    await expectTakes(world, [first]);
    breakLog();
    await crash(world, { contentVersion: 2 }, others.slice(0, 9));
    await expect.poll(() => frozenMode(world), patient).not.toBe('rolling');
    await expectNobodyTakes(world, others.slice(9));
  });

  test('3: a person, by an update of the workflow', async () => {
    const world = await openWorld('way-3');
    const { release, breakLog } = await roll(world, createMemoryTelemetryLog(), null);
    const [first = '', ...others] = canariesOf('way-3');
    await expectTakes(world, [first]);
    breakLog();
    expect((await release.command('halt', 'sam', 'customers call')).phase).toBe('halting');
    await expectNobodyTakes(world, others);
    expect(release.happened).not.toContain('HaltRequested');
  });

  test('4: the freeze of the family, whose workflow knows nothing of releases', async () => {
    const world = await openWorld('way-4');
    await grant(world, 'r4', endlessMs);
    const memory = createMemoryFamilyLog();
    let logWorks = false;
    const native = await NativeConnection.connect({ address: inject('temporalAddress') });
    ended.push(() => native.close());
    const freezer = await startFreezer({
      ...{ connection: native, namespace, bundle: await bundleFreeze(), director: world.director, log: silent },
      familyLog: {
        append: async (event) => {
          if (!logWorks) throw new SigrelError('SRP_DEP_KAFKA', 'Kafka is dead');
          await memory.append(event);
        },
      },
    });
    ended.push(freezer.stop);
    const ports = { temporal, director: world.director, now: Date.now };
    const [first = '', ...others] = canariesOf('r4');
    await expectTakes(world, [first]);
    const frozen = await freezeFamily(ports, 'way-4', { by: 'sam', reason: 'customers call', until: null });
    expect(frozen).toMatchObject({ family: 'way-4', freeze: { by: 'sam', reason: 'customers call' } });
    await expectNobodyTakes(world, others);
    expect(memory.events).toEqual([]);

    // Exposure up waits for the log, and for fresh evidence: a thaw grants nothing by itself.
    const thawing = thawFamily(ports, 'way-4', { by: 'ann', reason: 'it was something else' });
    await expectNobodyTakes(world, others);
    expect((await world.director.read('way-4')).freeze).not.toBeNull();
    logWorks = true;
    expect(await thawing).toEqual({ family: 'way-4', thawed: true, freeze: null });
    expect(memory.events.map(({ type, data }) => [type, 'by' in data ? data.by : ''])).toEqual([
      ['FamilyFrozen', 'sam'],
      ['FamilyThawed', 'ann'],
    ]);
    await expectNobodyTakes(world, others);
    const { document } = await world.director.read('way-4');
    expect(await world.director.renew('way-4', document.directorVersion, endlessMs)).toBe(true);
    await expectTakes(world, others.slice(0, 1));

    // A freeze by hand takes its place, and is lifted by hand: the workflow that it overtook lifts nothing of it.
    await freezeFamily(ports, 'way-4', { by: 'sam', reason: 'once more', until: null });
    const byHand = {
      freezeId: 'break-glass/1',
      by: 'eve',
      reason: 'by hand',
      at: new Date().toISOString(),
      until: null,
    };
    await world.director.freeze('way-4', byHand);
    const left = await thawFamily(ports, 'way-4', { by: 'ann', reason: 'r' });
    expect(left).toEqual({ family: 'way-4', thawed: false, freeze: byHand });
    await expect.poll(() => memory.events.at(-1), patient).toMatchObject({ type: 'FamilyFrozen', data: { by: 'eve' } });
    // Asked while the workflow that was overtaken is still ending, it answers once more.
    const thawn = () => thawFamily(ports, 'way-4', { by: 'ann', reason: 'r' }).catch((error: SigrelError) => error);
    await expect.poll(thawn, patient).toMatchObject({
      ...{ code: 'SRP_RULE_BREAK_GLASS', message: expect.stringContaining('frozen by eve') },
    });
    expect(await world.director.thaw('way-4', null)).toMatchObject({ thawed: true });

    // One that stands is replaced, and ends by itself when its time is over.
    await freezeFamily(ports, 'way-4', { by: 'sam', reason: 'again', until: null });
    const until = new Date(Date.now() + 1_500).toISOString();
    await freezeFamily(ports, 'way-4', { by: 'sam', reason: 'for a moment', until });
    await expect.poll(async () => (await world.director.read('way-4')).freeze, patient).toBeNull();
    expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(until));
    expect(memory.events.at(-1)).toMatchObject({ type: 'FamilyThawed', actor: { kind: 'workflow', id: 'freeze' } });
    const answers: object[] = [];
    const lastAnswer = async () => answers[answers.push(await thawn()) - 1];
    await expect.poll(lastAnswer, patient).toMatchObject({ code: 'SRP_RULE_NOT_FROZEN' });
    expect(answers).not.toContainEqual(expect.objectContaining({ thawed: true }));
  });

  test('5: break-glass, with the keys and the files alone', async () => {
    const world = await openWorld('way-5');
    await grant(world, 'r5', endlessMs);
    const [first = '', ...others] = canariesOf('r5');
    await expectTakes(world, [first]);
    const place = ['--store', world.dir, '--keys', world.keysDir];
    const nowhere = { SIGREL_STATE_DIR: '/nonexistent/sigrel', SIGREL_API_URL: 'http://127.0.0.1:9' };
    const ran = await runCli(['director', 'freeze', 'way-5', ...place, '--reason', 'all is down'], nowhere);
    expect(ran.code, ran.err).toBe(0);
    await expectNobodyTakes(world, others);
  });

  describe('6: the lease, which nobody renews', () => {
    test.each(['alive', 'dead'] as const)(
      'with a gateway that is %s: also for a clock that is wrong',
      async (state) => {
        const family = `way-6-${state}`;
        const world = await openWorld(family);
        const leaseMs = patient.timeout;
        await grant(world, 'r6', leaseMs);
        const { document, expiresAt } = await world.director.read(family);
        expect(expiresAt).toBeLessThanOrEqual(Date.now() + leaseMs);
        const [first = '', fast = '', slow = '', ...others] = canariesOf('r6');
        await expectTakes(world, [first]);
        // A fast clock waits, says what it runs, and goes on protecting with it.
        const early = world.device(fast, failModeOf(fast));
        expect(await world.takes(early, 600_000)).toContain('expired');
        expect(early).toMatchObject({ contentVersion: 1, trouble: null });
        // A slow one takes what is granted as long as it is.
        expect(await world.takes(world.device(slow, failModeOf(slow)), -600_000)).toBe(true);
        if (state === 'dead') await world.stopGateway();
        // Its last renewal is a short one: what is left of the lease is waited for.
        expect(await world.director.renew(family, document.directorVersion, 1_000)).toBe(true);
        await expect.poll(async () => (await world.director.read(family)).expiresAt <= Date.now(), patient).toBe(true);
        await expectNobodyTakes(world, [...others, fast]);
      },
    );
  });
});
