/**
 * A compromised device can at worst spoil its own count: whatever it says under its own key, in any order, as often as it likes,
 * about any release, segment, site or content, the evidence differs from that without it by one device and one event per metric.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { metrics } from '../../domain/policy.ts';
import { type EngineBuild, engineId, segmentKey } from '../../domain/release.ts';
import { type DeviceReport, partitionKey, type Window } from '../../domain/telemetry.ts';
import { bucketOf as hashed } from '../../infra/cohort.ts';
import { silent } from '../../infra/kafka/client.ts';
import { createMemoryAcknowledgements } from '../../infra/memory/acknowledgements.ts';
import { createMemorySites } from '../../infra/memory/sites.ts';
import { createMemoryTelemetryLog } from '../../infra/memory/telemetry-log.ts';
import { startGateway } from '../../services/gateway.ts';
import { gatewayPorts, newFleet, pollBody } from '../support/devices.ts';
import {
  engine,
  foldLog,
  hour,
  type LogRecord,
  newLog,
  segment,
  start,
  withoutRange,
} from '../support/telemetry-log.ts';

const otherSegment = segmentKey(engineId(engine), 'fail-closed');
const endMs = 20_000;

/** Canaries, controls and devices of the next stage in both segments; some crash, some fall silent. */
const honestLog = (): readonly LogRecord[] => {
  const log = newLog();
  const ids = ['t1', 't2', 't3', 'u1', 'u2', 'c1', 'c2', 'c3', 'c4'];
  const modeOf = (id: string) => (id.endsWith('2') ? 'fail-closed' : 'fail-open');
  for (const id of ids) log.poll(-500, id, { failMode: modeOf(id) });
  const thresholds = { [segment]: 100, [otherSegment]: 100 };
  log.open(0, { thresholds });
  log.open(5, { releaseId: 'r2', contentVersion: 4, rollbackVersion: 5, thresholds });
  for (let at = 250; at <= endMs; at += 250) {
    log.clock(at);
    if (at === 500) for (const id of ['t1', 't2', 't3']) log.poll(at, id, { offer: 2, failMode: modeOf(id) });
    if (at === 2_250) log.harm(at, 't1', 'crash');
    if (at === 3_250) log.harm(at, 'c1', 'blocked-traffic', 1);
    if (at === 9_000) {
      log.open(at, { stage: 1, thresholds: { [segment]: 200, [otherSegment]: 200 } });
      log.offer(at, 'u1');
    }
    if (at % 1_000 !== 0) continue;
    for (const id of ids) {
      const silent = (id === 't3' && at > 4_000) || (id === 'c3' && at > 6_000 && at < 15_000);
      if (!silent) log.poll(at, id, { failMode: modeOf(id) });
    }
  }
  return log.records;
};
const honest = honestLog();

const invented: EngineBuild = { name: 'doom', version: '6.6.6', packageVersion: '6', digest: '66'.repeat(32) };
const versions = fc.constantFrom(0, 1, 2, 3, 4, 5, 99);
const words = fc.constant('it broke');
const body: fc.Arbitrary<DeviceReport['body']> = fc.oneof(
  fc.record({
    kind: fc.constant('poll' as const),
    engine: fc.constantFrom(engine, invented),
    failMode: fc.constantFrom('fail-open' as const, 'fail-closed' as const),
    ...{ contentVersion: versions, directorVersion: versions },
    offer: fc.option(
      fc.record({ releaseId: fc.constantFrom('r1', 'r2', 'r3'), contentVersion: fc.constantFrom(2, 4, 9) }),
    ),
  }),
  fc.record({ kind: fc.constantFrom('installed' as const, 'healthy', 'reverted'), contentVersion: versions }),
  fc.record({
    kind: fc.constantFrom('crash' as const, 'load-failure', 'blocked-traffic', 'update-failure'),
    ...{ contentVersion: versions, words },
  }),
);
/** Numbers that repeat, go back, and jump to the end of what there is. */
const sequence = fc.oneof(fc.nat(60), fc.constantFrom(1_000, 1_001, Number.MAX_SAFE_INTEGER));
const spoilt = fc.record({ at: fc.integer({ min: -900, max: endMs - 1 }), sequence, body });

/** In the arms of the first stage, of a later one, and of none. */
const names = fc.constantFrom('t9', 'u9', 'c9');

type Sums = { readonly events: Record<string, number>; readonly exposure: Record<string, number> };
/** Over both segments and arms, of one release. */
const sumsOf = (windows: readonly Window[], releaseId: string): Sums => {
  const sums: Sums = { events: {}, exposure: {} };
  for (const { leaves } of windows.filter((window) => window.releaseId === releaseId)) {
    for (const leaf of Object.values(leaves)) {
      for (const [metric, [x, y, treated, control]] of Object.entries(leaf)) {
        sums.events[metric] = (sums.events[metric] ?? 0) + x + y;
        sums.exposure[metric] = (sums.exposure[metric] ?? 0) + treated + control;
      }
    }
  }
  return sums;
};
const lastOf = (windows: readonly Window[], releaseId: string) =>
  windows.filter((window) => window.releaseId === releaseId).at(-1);
const total = (bySegment: Readonly<Record<string, number>> | undefined) =>
  Object.values(bySegment ?? {}).reduce((sum, one) => sum + one, 0);

const before = foldLog(honest).windows;

test('the honest fleet has something to count in both releases', () => {
  expect(sumsOf(before, 'r1').events).toMatchObject({ crash: 1, 'blocked-traffic': 1 });
  expect(sumsOf(before, 'r1').events['silence-later']).toBeGreaterThan(0);
  expect(sumsOf(before, 'r2').exposure.crash).toBeGreaterThan(0);
});

test('one device: at most one event per metric, one exposure, and one in every count of devices', () => {
  fc.assert(
    fc.property(names, fc.array(spoilt, { minLength: 1, maxLength: 120 }), (deviceId, reports) => {
      const records = reports.map(
        ({ at, ...rest }): LogRecord => ({ at: start + at, record: { report: { deviceId, ...rest } } }),
      );
      const mixed = [...honest, ...records].toSorted((a, b) => a.at - b.at);
      const after = foldLog(mixed).windows;
      expect(after.length).toBe(before.length);
      for (const releaseId of ['r1', 'r2']) {
        const [was, is] = [sumsOf(before, releaseId), sumsOf(after, releaseId)];
        for (const { id, trial } of metrics) {
          const events = (is.events[id] ?? 0) - (was.events[id] ?? 0);
          expect(events).toBeGreaterThanOrEqual(0);
          expect(events).toBeLessThanOrEqual(1);
          const exposure = (is.exposure[id] ?? 0) - (was.exposure[id] ?? 0);
          expect(exposure).toBeGreaterThanOrEqual(-1e-9);
          // Hours: those that there were. Trials: one in each tick, however often it was heard.
          const ticks = before.filter((window) => window.releaseId === releaseId).length;
          expect(exposure).toBeLessThanOrEqual(trial === 'device-hour' ? endMs / hour + 1e-9 : ticks);
        }
        const [last, then] = [lastOf(after, releaseId), lastOf(before, releaseId)];
        for (const name of ['enrolled', 'offered', 'installed', 'healthy', 'harmed', 'recovered'] as const) {
          const of = (window: Window | undefined) =>
            Object.values(window?.counts ?? {}).reduce((sum, counts) => sum + counts[name], 0);
          expect(Math.abs(of(last) - of(then))).toBeLessThanOrEqual(1);
        }
        expect(Math.abs(total(last?.exposed) - total(then?.exposed))).toBeLessThanOrEqual(1);
        expect(Math.abs(total(last?.openTrials) - total(then?.openTrials))).toBeLessThanOrEqual(1);
        // No segment of its own invention comes to be.
        expect(Object.keys(last?.counts ?? {}).sort()).toEqual([segment, otherSegment].sort());
      }
    }),
    { numRuns: 400 },
  );
});

test('whatever sites it says, the gateway lets it into one partition: its event is one', async () => {
  const partitions = 8;
  const fleetKey = Buffer.alloc(32, 5);
  const sites = Array.from({ length: 12 }, (_, n) => `site-${n}`);
  expect(
    new Set(sites.map((site) => hashed('', partitionKey({ site, deviceId: 't9' })) % partitions)).size,
  ).toBeGreaterThan(4);
  await fc.assert(
    fc.asyncProperty(fc.array(fc.constantFrom(null, ...sites), { minLength: 4, maxLength: 12 }), async (said) => {
      const telemetry = createMemoryTelemetryLog(partitions);
      const ports = gatewayPorts(fleetKey);
      const gateway = await startGateway({
        ...{ ...ports, sites: createMemorySites(), acknowledgements: createMemoryAcknowledgements() },
        ...{ telemetry, port: 0, clockMs: 60_000, ackMs: 1_000, log: silent },
      });
      try {
        const fleet = newFleet(gateway.url, fleetKey);
        const [poll, crash] = [pollBody({ offer: { releaseId: 'r1', contentVersion: 2 } }), 'crash' as const];
        const bodies = [poll, { kind: crash, contentVersion: 2, words: 'signal 11' }];
        const spoken = said.flatMap((site, n) =>
          bodies.map((body, m) =>
            fleet.sign({ deviceId: 't9', ...(site !== null && { site }), sequence: 2 * n + m + 1, body }),
          ),
        );
        await fleet.post(spoken);
      } finally {
        await gateway.stop();
      }
      const crashes = telemetry.partitions.map((records) => {
        const log = newLog();
        for (const id of ['t1', 't2', 'c1']) log.poll(-500, id);
        log.open(0);
        const own = records.flatMap((record, n): LogRecord[] =>
          'report' in record ? [{ at: start + 500 + n, record }] : [],
        );
        const { windows } = foldLog([
          ...log.records,
          ...own,
          { at: start + 5_000, record: { control: { kind: 'clock' } } },
        ]);
        return sumsOf(windows, 'r1').events.crash ?? 0;
      });
      expect(crashes.reduce((sum, one) => sum + one, 0)).toBe(1);
    }),
    { numRuns: 30 },
  );
});

test('saying it again changes nothing: a report that was caught and sent once more is not counted twice', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(honest.length - 1), fc.nat(4_000)), { maxLength: 60 }), (repeats) => {
      const caught = repeats.flatMap(([index, delay]): LogRecord[] => {
        const record = honest[index];
        if (record === undefined || 'control' in record.record) return [];
        return [{ at: Math.min(record.at + delay, start + endMs - 1), record: record.record }];
      });
      const mixed = [...honest, ...caught].toSorted((a, b) => a.at - b.at);
      expect(withoutRange(foldLog(mixed).windows)).toEqual(withoutRange(before));
    }),
    { numRuns: 200 },
  );
});

const sites: Readonly<Record<string, string>> = {
  ...{ t1: 't-a', t2: 't-b', t3: 't-a', u1: 'u-a', u2: 'u-b', c1: 'c-a', c2: 'c-a', c3: 'c-b', c4: 'c-b' },
};
/** The same fleet at sites, in releases that update sites as units. */
const atSites = honest.map(({ at, record }): LogRecord => {
  if ('report' in record) {
    const site = sites[record.report.deviceId];
    return { at, record: { report: { ...record.report, ...(site !== undefined && { site }) } } };
  }
  const { control } = record;
  if (control.kind !== 'stage-opened') return { at, record };
  return { at, record: { control: { ...control, policy: { ...control.policy, unit: 'site' } } } };
});
const claim = fc.constantFrom(undefined, 't-a', 't-b', 'u-a', 'c-a', 't-z', 'c-z');

test('one device that names many sites: it spoils one of them, and no more is remembered of it', () => {
  const was = foldLog(atSites);
  const rows = was.state.devices.rows.size;
  const spoiltAt = fc.tuple(spoilt, claim);
  fc.assert(
    fc.property(names, fc.array(spoiltAt, { minLength: 1, maxLength: 120 }), (deviceId, reports) => {
      const records = reports.map(([{ at, ...rest }, site]): LogRecord => {
        const report = { deviceId, ...(site !== undefined && { site }), ...rest };
        return { at: start + at, record: { report } };
      });
      const mixed = [...atSites, ...records].toSorted((a, b) => a.at - b.at);
      const after = foldLog(mixed);
      expect(after.state.devices.rows.size).toBeLessThanOrEqual(rows + 2);
      for (const releaseId of ['r1', 'r2']) {
        const [honestly, now] = [sumsOf(was.windows, releaseId), sumsOf(after.windows, releaseId)];
        const ticks = was.windows.filter((window) => window.releaseId === releaseId).length;
        for (const { id, trial } of metrics) {
          expect(Math.abs((now.events[id] ?? 0) - (honestly.events[id] ?? 0))).toBeLessThanOrEqual(1);
          const exposure = Math.abs((now.exposure[id] ?? 0) - (honestly.exposure[id] ?? 0));
          // A site that is served in a tick has that tick in both arms.
          expect(exposure).toBeLessThanOrEqual(trial === 'device-hour' ? (endMs + 1_000) / hour + 1e-9 : ticks);
        }
      }
    }),
    { numRuns: 200 },
  );
});
