/** Writes small telemetry logs by hand and folds them, for tests. Times are ms after the start of tick 0. */
import fc from 'fast-check';
import { emptyState, foldRecord } from '../../domain/at-risk.ts';
import { fromSnapshot, toSnapshot } from '../../domain/at-risk-snapshot.ts';
import type { PartitionState } from '../../domain/at-risk-state.ts';
import type { BucketOf } from '../../domain/exposure.ts';
import { defaultPolicy, type MetricId, type RolloutPolicy } from '../../domain/policy.ts';
import { type EngineBuild, engineId, type FailMode, segmentKey } from '../../domain/release.ts';
import type { ControlRecord, DeviceReport, LeafCounts, TelemetryRecord, Window } from '../../domain/telemetry.ts';

export const start = 1_000_000;
export const hour = 3_600_000;
export const policy: RolloutPolicy = {
  ...defaultPolicy,
  tickMs: 1000,
  heartbeatMs: 2000,
  firstSilenceMs: 3000,
  silenceMs: 5000,
};
export const engine: EngineBuild = { name: 'ids', version: '1.0', packageVersion: '1.0-1', digest: 'ab'.repeat(32) };
export const segment = segmentKey(engineId(engine), 'fail-open');

/** Devices t… are inside a threshold of 100, u… inside one of 200, c… never. */
export const bucketOf: BucketOf = (_salt, id) => ({ t: 10, u: 150, c: 5000 })[id[0] ?? ''] ?? 9999;

export type LogRecord = { readonly at: number; readonly record: TelemetryRecord };
type Body = DeviceReport['body'];

/** One log in the making: every call appends a record. Sequences are numbered per device; `siteOf` a device, when it has one. */
export const newLog = (siteOf: (deviceId: string) => string | undefined = () => undefined) => {
  const records: LogRecord[] = [];
  const sequences = new Map<string, number>();
  const append = (at: number, record: TelemetryRecord) => records.push({ at: start + at, record });
  const report = (at: number, deviceId: string, body: Body) => {
    const sequence = (sequences.get(deviceId) ?? 0) + 1;
    sequences.set(deviceId, sequence);
    const site = siteOf(deviceId);
    append(at, { report: { deviceId, ...(site !== undefined && { site }), sequence, body } });
  };
  const poll = (
    at: number,
    deviceId: string,
    changes: { version?: number; offer?: number; of?: string; failMode?: FailMode } = {},
  ) =>
    report(at, deviceId, {
      kind: 'poll',
      engine,
      failMode: changes.failMode ?? 'fail-open',
      contentVersion: changes.version ?? 1,
      directorVersion: 1,
      offer: changes.offer === undefined ? null : { releaseId: changes.of ?? 'r1', contentVersion: changes.offer },
    });
  return {
    records,
    poll,
    /** A poll that asks for the content of r1 (version 2). */
    offer: (at: number, deviceId: string) => poll(at, deviceId, { offer: 2 }),
    say: (at: number, deviceId: string, kind: 'installed' | 'healthy' | 'reverted', contentVersion = 2) =>
      report(at, deviceId, { kind, contentVersion }),
    harm: (
      at: number,
      deviceId: string,
      kind: 'crash' | 'load-failure' | 'blocked-traffic' | 'update-failure' = 'crash',
      contentVersion = 2,
    ) => report(at, deviceId, { kind, contentVersion, words: 'it broke' }),
    clock: (at: number) => append(at, { control: { kind: 'clock' } }),
    open: (at: number, changes: Partial<Extract<ControlRecord, { kind: 'stage-opened' }>> = {}) =>
      append(at, {
        control: {
          kind: 'stage-opened',
          releaseId: 'r1',
          family: 'ips',
          stage: 0,
          salt: 'salt',
          contentVersion: 2,
          rollbackVersion: 3,
          thresholds: { [segment]: 100 },
          policy,
          startedAt: start,
          ...changes,
        },
      }),
    end: (at: number, releaseId = 'r1') => append(at, { control: { kind: 'release-ended', releaseId } }),
  };
};

/** 8 canaries beside 200 controls, all of whom poll every second; `harmed` of the canaries crash in tick 2. */
export const crashStory = (ticks: number, harmed = 8): readonly LogRecord[] => {
  const log = newLog();
  const canaries = Array.from({ length: 8 }, (_, n) => `t${n}`);
  const controls = Array.from({ length: 200 }, (_, n) => `c${n}`);
  for (const id of [...canaries, ...controls]) log.poll(-500, id);
  log.open(0);
  for (const id of canaries) log.offer(100, id);
  for (let at = 1_500; at < ticks * 1_000; at += 1_000) {
    for (const id of [...canaries, ...controls]) log.poll(at, id);
    if (at === 2_500) for (const id of canaries.slice(0, harmed)) log.harm(at, id);
  }
  log.clock(ticks * 1_000 + 50);
  return log.records;
};

/** A random but plausible log: devices poll, are served, report, fall silent; stages open; time moves on. */
export const randomLog = fc
  .array(
    fc.record({
      after: fc.integer({ min: 0, max: 900 }),
      device: fc.constantFrom('t1', 't2', 't3', 'u1', 'u2', 'c1', 'c2', 'c3'),
      act: fc.constantFrom('poll', 'offer', 'crash', 'blocked-traffic', 'healthy', 'clock', 'stage', 'other-segment'),
    }),
    { minLength: 20, maxLength: 150 },
  )
  .map((steps) => {
    const log = newLog();
    let at = 0;
    log.poll(-100, 'c1');
    log.open(0);
    for (const step of steps) {
      at += step.after;
      if (step.act === 'poll') log.poll(at, step.device);
      else if (step.act === 'offer') log.offer(at, step.device);
      else if (step.act === 'healthy') log.say(at, step.device, 'healthy');
      else if (step.act === 'clock') log.clock(at);
      else if (step.act === 'stage') log.open(at, { stage: 1, thresholds: { [segment]: 200 } });
      else if (step.act === 'other-segment') log.poll(at, step.device, { failMode: 'fail-closed' });
      else log.harm(at, step.device, step.act);
    }
    log.clock(at + 20_000);
    return log.records;
  });

/** The same bytes inside a larger buffer, as a database client hands them out. */
export const asStored = (bytes: Uint8Array): Uint8Array => {
  const larger = Buffer.alloc(bytes.length + 16, 255);
  larger.set(bytes, 8);
  return larger.subarray(8, 8 + bytes.length);
};

/** Folds a log; `restartEvery` n: after every n records the state goes through its bytes, as after a crash. */
export const foldLog = (records: readonly LogRecord[], restartEvery?: number) => {
  let state: PartitionState = emptyState(0, 1);
  const windows: Window[] = [];
  records.forEach(({ at, record }, offset) => {
    windows.push(...foldRecord(state, record, at, offset, bucketOf).windows);
    if (restartEvery !== undefined && offset % restartEvery === 0) {
      const restored = fromSnapshot(asStored(toSnapshot(state)));
      if (restored === null) throw new Error('the snapshot was refused');
      state = restored;
    }
  });
  return { state, windows };
};

/** One leaf of one tick, exposure per device-hour back in ms to be readable. */
export const leafMs = (windows: readonly Window[], tick: number, metric: MetricId, of = segment): LeafCounts => {
  const [x, y, treated, control] = windows.find((window) => window.tick === tick)?.leaves[of]?.[metric] ?? [0, 0, 0, 0];
  const unit = metric.startsWith('silence') ? 1 : hour;
  return [x, y, Math.round(treated * unit), Math.round(control * unit)];
};

/** What windows say, whichever records of the log they were made of. */
export const withoutRange = (windows: readonly Window[]) =>
  windows.map(({ firstOffset: _first, lastOffset: _last, ...window }) => window);
