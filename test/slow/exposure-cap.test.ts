/** Devices offered never exceed the plan in force: at any instant, in any segment, whatever devices show, repeat or believe. */
import fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import { beat, type Device, mayInstall, newDevice } from '../../apps/device/cycle.ts';
import { type DirectorDocument, grantsExposure } from '../../domain/director.ts';
import { isExposed, planStages } from '../../domain/exposure.ts';
import { type AskingPoll, offerLasts } from '../../domain/offer.ts';
import type { StagePolicy } from '../../domain/policy.ts';
import { type Content, engineId, type FailMode, type SegmentKey, segmentKey } from '../../domain/release.ts';
import type { ReportsAnswer } from '../../domain/telemetry.ts';
import { bucketOf } from '../../infra/cohort.ts';
import { deviceKey } from '../../infra/device-auth.ts';
import { createMemoryTelemetryLog } from '../../infra/memory/telemetry-log.ts';
import { engineA } from '../support/devices.ts';
import { endlessMs, fleetKey, openStoreWorld, type StoreWorld } from '../support/store-world.ts';

const engine = engineId(engineA);
const failModes: readonly FailMode[] = ['fail-open', 'fail-closed'];
/** A third of the devices fails closed: segments of unlike size. */
const failModeOf = (n: number): FailMode => (n % 3 === 0 ? 'fail-closed' : 'fail-open');
const segmentOf = (n: number): SegmentKey => segmentKey(engine, failModeOf(n));
const idOf = (n: number): string => `device-${n}`;
const stage = (kind: StagePolicy['kind'], size: number): StagePolicy => ({
  ...{ name: `${kind} ${size}`, kind, size, minMs: 1, minDevices: 1 },
});
const planOf = (count: number, stages: readonly StagePolicy[], salt: string) => {
  const all = Array.from({ length: count }, (_, n) => n);
  const bySegment = failModes.map((mode): [SegmentKey, number[]] => {
    const segment = segmentKey(engine, mode);
    return [segment, all.filter((n) => segmentOf(n) === segment).map((n) => bucketOf(salt, idOf(n)))];
  });
  return planStages(stages, Object.fromEntries(bySegment));
};
const content = (contentVersion: number): Content => ({
  ...{ contentVersion, releaseId: `r${contentVersion}` },
  artefacts: [{ engine, path: `content/ips/${contentVersion}/${engine}.rules`, sha256: 'a'.repeat(64), length: 1 }],
});
const lease = { startedAt: 0, leaseMs: 60_000, freshMs: 10_000, clearedCells: [] };

describe('in any order of stages, stops, polls, repetitions and clocks', () => {
  const devices = 60;
  const stages = planOf(devices, [stage('canary', 2), stage('share', 0.1), stage('share', 0.5), stage('all', 1)], 's');
  type Step =
    | { readonly kind: 'raise' | 'pause' | 'resume' | 'freeze' | 'thaw' | 'renew' | 'halt' }
    | { readonly kind: 'wait'; readonly ms: number }
    | {
        readonly kind: 'poll';
        readonly device: number;
        /** Which of the documents so far it shows, from the newest back. */
        readonly back: number;
        readonly skewMs: number;
        /** How long the answer is on its way. */
        readonly delayMs: number;
      };
  const pauses = Array.from({ length: 20 }, (_, n) => (n % 2 === 0 ? 'pause' : 'freeze'));
  const step: fc.Arbitrary<Step> = fc.oneof(
    // A halt is for good: rarer, so that much happens before it.
    { weight: 2, arbitrary: fc.constantFrom(...pauses, 'halt').map((kind) => ({ kind }) as Step) },
    { weight: 20, arbitrary: fc.constantFrom('raise', 'resume', 'thaw', 'renew').map((kind) => ({ kind }) as Step) },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant('wait' as const), ms: fc.nat(40_000) }) },
    {
      weight: 60,
      arbitrary: fc.record({
        ...{ kind: fc.constant('poll' as const), device: fc.nat(devices - 1), back: fc.nat(8) },
        ...{ skewMs: fc.constantFrom(0, -600_000, 600_000), delayMs: fc.constantFrom(0, 500, 30_000) },
      }),
    },
  );

  test('nobody outside the cohort in force is acknowledged, and nobody at all under a stop or after the lease', () => {
    let acknowledged = 0;
    const property = fc.property(fc.array(step, { minLength: 60, maxLength: 240, size: 'max' }), (steps) => {
      let now = 1_000_000;
      let current: { document: DirectorDocument; expiresAt: number } = {
        expiresAt: now + endlessMs,
        document: {
          ...{ family: 'ips', directorVersion: 1, mode: 'steady', steady: content(1), rollout: null, rollback: null },
        },
      };
      const history = [current];
      const publish = (changes: Partial<DirectorDocument>, lasts = 60_000) => {
        const directorVersion = current.document.directorVersion + 1;
        current = { document: { ...current.document, ...changes, directorVersion }, expiresAt: now + lasts };
        history.push(current);
      };
      const fleet = Array.from({ length: devices }, (_, n): Device => {
        const key = deviceKey(fleetKey, idOf(n));
        const device = newDevice({
          ...{ deviceId: idOf(n), engine: engineA, failMode: failModeOf(n), profile: '', key },
        });
        device.contentVersion = 1;
        return device;
      });
      const offered = new Set<number>();
      for (const one of steps) {
        const { document } = current;
        switch (one.kind) {
          case 'wait':
            now += one.ms;
            break;
          case 'raise': {
            const next = (document.rollout?.stage ?? -1) + 1;
            const thresholds = stages[next]?.thresholds;
            if (!thresholds || document.freezeId || !['steady', 'rolling'].includes(document.mode)) break;
            publish({ mode: 'rolling', rollout: { content: content(2), salt: 's', stage: next, thresholds, lease } });
            break;
          }
          case 'pause':
            if (document.mode === 'rolling') publish({ mode: 'frozen' }, endlessMs);
            break;
          case 'resume':
            if (document.mode === 'frozen' && !document.freezeId) publish({ mode: 'rolling' });
            break;
          case 'halt':
            if (document.rollout) publish({ mode: 'rollback', rollback: content(3) }, endlessMs);
            break;
          case 'freeze':
            publish({ freezeId: 'f' }, endlessMs);
            break;
          case 'thaw': {
            const { freezeId: _freezeId, ...rest } = document;
            current = { document: rest, expiresAt: document.mode === 'rolling' ? now : now + endlessMs };
            history.push(current);
            break;
          }
          case 'renew':
            if (grantsExposure(document)) publish({});
            break;
          case 'poll': {
            const device = fleet[one.device];
            const shown = history.at(-1 - (one.back % history.length));
            if (!device || !shown) break;
            const clock = now + one.skewMs;
            const { reports, wants } = beat(device, shown.expiresAt > clock ? shown.document : null);
            const poll = reports.at(-1)?.body as AskingPoll;
            const forMs = offerLasts([current], device, poll, bucketOf, now);
            const answer =
              forMs > 0 ? { status: 'accepted' as const, acknowledgedForMs: forMs } : { status: 'accepted' as const };
            if (forMs > 0) {
              acknowledged += 1;
              offered.add(one.device);
              expect(grantsExposure(document) && current.expiresAt > now).toBe(true);
            }
            const time = { expiresAt: shown.expiresAt, now: clock + one.delayMs, sinceAskedMs: one.delayMs };
            if (mayInstall(wants, answer, time) && wants?.needsAcknowledgement) {
              // It takes it before the lease that the server knew of was over.
              expect(now + one.delayMs).toBeLessThan(current.expiresAt);
              device.contentVersion = wants.content.contentVersion;
            }
            break;
          }
        }
        const { rollout } = current.document;
        for (const n of offered) {
          expect(isExposed(bucketOf('s', idOf(n)), rollout?.thresholds[segmentOf(n)] ?? 0)).toBe(true);
        }
        for (const [segment, planned] of Object.entries(stages[rollout?.stage ?? 0]?.devices ?? {})) {
          const count = [...offered].filter((n) => segmentOf(n) === segment).length;
          expect(count).toBeLessThanOrEqual(planned);
        }
      }
    });
    fc.assert(property, { seed: 20_261_128, numRuns: 200 });
    // It can fail: offers were made, and many.
    expect(acknowledged).toBeGreaterThan(500);
  });
});

describe('a real store and gateway under 1,200 devices that all ask at once', () => {
  let world: StoreWorld;
  afterEach(() => world.stop());
  const count = 1_200;

  test('offers exactly the 1 % ring, then exactly the next one, then nothing', async () => {
    const telemetry = createMemoryTelemetryLog();
    world = await openStoreWorld('ips', telemetry, endlessMs);
    const { release } = await world.prepare('r1');
    const stages = planOf(count, [stage('canary', 3), stage('share', 0.01), stage('share', 0.05)], 'r1');
    const grant = (index: number) =>
      world.director.change(
        'ips',
        (current) => ({
          ...current,
          mode: 'rolling',
          rollout: { content: release, salt: 'r1', stage: index, thresholds: stages[index]?.thresholds ?? {}, lease },
        }),
        { expiresInMs: endlessMs },
      );
    const cohort = (index: number) =>
      Array.from({ length: count }, (_, n) => n).filter((n) =>
        isExposed(bucketOf('r1', idOf(n)), stages[index]?.thresholds[segmentOf(n)] ?? 0),
      );
    const devices = Array.from({ length: count }, (_, n) => world.device(idOf(n), failModeOf(n)));
    /** What was in force last when an answer came: at least what it was decided by. */
    let inForce = -1;
    const offered = new Set<number>();
    const exceeded: number[] = [];
    const post = async (reports: readonly unknown[]) => {
      const response = await fetch(`${world.gatewayUrl}/v1/reports`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ reports }),
      });
      return ((await response.json()) as ReportsAnswer).results;
    };
    /** They show a document under which they would be inside; every request goes out twice at once, and once more later. */
    const checkIn = async (group: readonly Device[]): Promise<void> => {
      const thresholds = Object.fromEntries(failModes.map((mode) => [segmentKey(engine, mode), 2 ** 32]));
      const shown = { ...release, artefacts: content(2).artefacts };
      const forged: DirectorDocument = {
        ...{ family: 'ips', directorVersion: 1, mode: 'rolling', steady: content(1), rollback: null },
        rollout: { content: shown, salt: 'r1', stage: 0, thresholds, lease },
      };
      const polls = group.map((device) => {
        const { reports, wants } = beat(device, forged);
        if (wants === null || reports.length !== 1) throw new Error(`${device.deviceId} does not ask`);
        return { device, report: reports[0], wants };
      });
      const asked = performance.now();
      const reports = polls.map(({ report }) => report);
      const answers = [...(await Promise.all([post(reports), post(reports)])), await post(reports)];
      const sinceAskedMs = performance.now() - asked;
      for (const [index, { device, wants }] of polls.entries()) {
        const n = devices.indexOf(device);
        const now = Date.now() + ([0, -600_000, 600_000][n % 3] ?? 0);
        const time = { expiresAt: now + 1_000, now, sinceAskedMs };
        if (!answers.some((results) => mayInstall(wants, results[index] ?? { status: 'rejected' }, time))) continue;
        offered.add(n);
        const threshold = stages[inForce]?.thresholds[segmentOf(n)] ?? 0;
        if (!isExposed(bucketOf('r1', device.deviceId), threshold)) exceeded.push(n);
      }
    };
    /** In requests of so many devices, all under way at once. */
    const everybody = (perRequest = 50): Promise<unknown> =>
      Promise.all(
        Array.from({ length: Math.ceil(count / perRequest) }, (_, group) =>
          checkIn(devices.slice(group * perRequest, (group + 1) * perRequest)),
        ),
      );
    const offeredInLog = () =>
      new Set(
        telemetry.partitions
          .flat()
          .flatMap((record) =>
            'report' in record && record.report.body.kind === 'poll' && record.report.body.offer !== null
              ? [record.report.deviceId]
              : [],
          ),
      ).size;

    await everybody();
    expect(offered.size).toBe(0);
    inForce = 1;
    await grant(1);
    await everybody(1);
    expect([...offered].sort((a, b) => a - b)).toEqual(cohort(1));
    expect(offeredInLog()).toBe(cohort(1).length);

    // The next stage opens while everybody asks.
    inForce = 2;
    await Promise.all([everybody(), grant(2)]);
    expect(exceeded).toEqual([]);
    expect(offered.size).toBeLessThanOrEqual(cohort(2).length);
    await everybody();
    expect([...offered].sort((a, b) => a - b)).toEqual(cohort(2));
    for (const segment of failModes.map((mode) => segmentKey(engine, mode))) {
      const inSegment = [...offered].filter((n) => segmentOf(n) === segment).length;
      expect(inSegment).toBe(stages[2]?.devices[segment]);
    }

    // Frozen while everybody asks: whoever asks after that gets nothing.
    await Promise.all([
      everybody(),
      world.director.freeze('ips', { freezeId: 'f', by: 'sam', reason: 'r', at: '', until: null }),
    ]);
    offered.clear();
    const before = offeredInLog();
    await everybody();
    expect(offered.size).toBe(0);
    expect(offeredInLog()).toBe(before);
  });
});
