/** Devices that were not heard for longer than the log keeps reports go although releases always overlap; nobody else notices. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { emptyState, foldRecord } from '../../domain/at-risk.ts';
import { fromSnapshot, toSnapshot } from '../../domain/at-risk-snapshot.ts';
import type { PartitionState } from '../../domain/at-risk-state.ts';
import type { Window } from '../../domain/telemetry.ts';
import { asStored, bucketOf, hour, type LogRecord, newLog, policy, segment, start } from '../support/telemetry-log.ts';

const day = 24 * hour;
/** An open release of which ticks of a second would be many, and say the same. */
const slow = { ...policy, tickMs: hour };

type Log = ReturnType<typeof newLog>;
/** Days in which these devices poll once an hour, and the clock never stops. */
const pass = (log: Log, from: number, until: number, ids: readonly string[]): void => {
  for (let at = from; at < until; at += 50_000) {
    if ((at - from) % hour < 50_000) for (const id of ids) log.poll(at, id);
    log.clock(at);
  }
};

/** Ghosts are heard on the first day only, between the others; then r1 is open all the time, r2 from the ninth day on. */
const overlapping = (unit: 'device' | 'site', siteOf?: (id: string) => string | undefined) => {
  const log = newLog(siteOf);
  const living = ['t1', 't2', 'u1', 'c1', 'c2', 'c3'];
  const ghosts = ['t8', 't9', 'u9', 'c8', 'c9'];
  for (const [at, id] of ['t8', 't1', 'c8', 't2', 'u9', 'u1', 'c1', 'c2', 'c9', 'c3', 't9'].entries()) log.poll(at, id);
  log.open(100, { policy: { ...slow, unit } });
  pass(log, 1_000, 8 * day, living);
  const later = 8 * day;
  for (const id of living) log.poll(later, id);
  log.open(later + 100, {
    ...{ releaseId: 'r2', startedAt: start + later + 100, policy: { ...policy, unit }, contentVersion: 4 },
    thresholds: { [segment]: 100 },
  });
  return { log, living, ghosts, later };
};

/** `without`: devices of which no record is there; the places of theirs are. */
const fold = (records: readonly LogRecord[], without: readonly string[] = [], restarts: readonly number[] = []) => {
  let state: PartitionState = emptyState(0, 1);
  const windows: Window[] = [];
  records.forEach(({ at, record }, offset) => {
    const gone = 'report' in record && without.includes(record.report.deviceId);
    windows.push(...foldRecord(state, gone ? null : record, at, offset, bucketOf).windows);
    if (!restarts.includes(offset)) return;
    const restored = fromSnapshot(asStored(toSnapshot(state)));
    if (restored === null) throw new Error('the snapshot was refused');
    state = restored;
  });
  return { state, ofR2: windows.filter(({ releaseId }) => releaseId === 'r2').map((window) => JSON.stringify(window)) };
};

test('they stay while a release that is open counts them, and go when it has ended while another one is open', () => {
  const { log, living, ghosts, later } = overlapping('device');
  log.clock(later + 5_000);
  const during = fold(log.records).state;
  expect([...during.devices.rows.keys()].sort()).toEqual([...living, ...ghosts].sort());
  log.end(later + 6_000);
  log.clock(later + 7_000);
  const { state, ofR2 } = fold(log.records);
  expect([...state.devices.rows]).toEqual(['t1', 't2', 'u1', 'c1', 'c2', 'c3'].map((id, row) => [id, row]));
  // They were no part of it: whoever folds what is left of the log has the same windows.
  expect(JSON.parse(ofR2.at(-1) ?? '').counts[segment].enrolled).toBe(living.length);
  expect(ofR2).toEqual(fold(log.records, ghosts).ofR2);
});

test('one that is heard again is in every open release from then on', () => {
  const { log, living, later } = overlapping('device');
  log.poll(later + 500, 'c9');
  log.end(later + 1_500);
  log.clock(later + 3_200);
  const { state, ofR2 } = fold(log.records);
  expect([...state.devices.rows.keys()].sort()).toEqual([...living, 'c9'].sort());
  expect(JSON.parse(ofR2.at(-1) ?? '').counts[segment].enrolled).toBe(living.length + 1);
});

test('a unit whose trials of one kind fall due in one tick has one of them, also when rows move between them', () => {
  const { log, ghosts, later } = overlapping('device');
  for (const at of [1_200, 1_600]) log.poll(later + at, 'c1'); // due 3 s later
  log.end(later + 4_400);
  log.clock(later + 6_000);
  const { ofR2 } = fold(log.records);
  expect(ofR2).toEqual(fold(log.records, ghosts).ofR2);
  expect(ofR2.map((window) => JSON.parse(window).leaves[segment]?.['silence-first'])[4]).toEqual([0, 1, 0, 1]);
});

/** What r2 says when r1 ends, and when it does not. */
const withAndWithoutEnd = (records: readonly LogRecord[]) => {
  const endless = records.map(({ at, record }): LogRecord => {
    const ends = 'control' in record && record.control.kind === 'release-ended';
    return { at, record: ends ? { control: { kind: 'clock' } } : record };
  });
  return [fold(records), fold(endless)] as const;
};

test('the device whose kind a site has stays with the site while that is counted', () => {
  const log = newLog((id) => ({ c8: 'shop', c1: 'shop', c2: 'shop' })[id]);
  for (const [at, id] of ['t9', 'c8'].entries()) log.poll(at, id);
  log.open(100, { policy: { ...slow, unit: 'site' } });
  pass(log, 1_000, 8 * day, ['c1', 'c3']);
  const later = 8 * day;
  log.open(later + 100, {
    ...{ releaseId: 'r2', startedAt: start + later + 100, policy: { ...policy, unit: 'site' } },
    thresholds: { [segment]: 100 },
  });
  log.end(later + 2_500);
  for (let at = 2_600; at < 9_000; at += 700) {
    // Of another segment: the site, which has lost its device, must not take it from this one.
    log.poll(later + at, 'c2', { failMode: 'fail-closed' });
    log.poll(later + at + 100, 'c1');
  }
  log.clock(later + 20_000);
  const [ended, endless] = withAndWithoutEnd(log.records);
  expect(endless.state.devices.rows.has('t9')).toBe(true);
  expect(ended.state.devices.rows.has('t9')).toBe(false);
  expect(ended.ofR2).toEqual(endless.ofR2);
});

test('a device that does not stand for itself does not begin to when its site is silent for long', () => {
  const log = newLog((id) => ({ c8: 'shop', c2: 'shop' })[id]);
  log.poll(0, 't9');
  log.open(100, { policy: { ...slow, unit: 'site' } });
  pass(log, 1_000, 2 * day, ['c3']);
  // In no segment of the plan, and neither is its site.
  log.poll(2 * day, 'c8', { failMode: 'fail-closed' });
  pass(log, 2 * day + 1, 8 * day, ['c3']);
  log.open(8 * day, {
    ...{ releaseId: 'r2', startedAt: start + 8 * day, policy: { ...slow, unit: 'site' } },
    thresholds: { [segment]: 100 },
  });
  pass(log, 8 * day + 1, 10 * day, ['c2', 'c3']);
  log.end(10 * day);
  pass(log, 10 * day + 1, 11 * day, ['c2', 'c3']);
  const [ended, endless] = withAndWithoutEnd(log.records);
  expect(ended.state.devices.rows.has('t9')).toBe(false);
  expect(ended.ofR2).toEqual(endless.ofR2);
});

const act = fc.record({
  after: fc.integer({ min: 0, max: 900 }),
  device: fc.constantFrom('t1', 't2', 'u1', 'c1', 'c2', 'c3'),
  what: fc.constantFrom('poll', 'offer', 'crash', 'healthy', 'clock', 'stage', 'end'),
});

test.each(['device', 'site'] as const)(
  'that rows move in the middle of a release changes none of its windows, nor does a restart (unit: %s)',
  (unit) => {
    const siteOf = (id: string) =>
      ({ t1: 'a', t2: 'a', t8: 'a', u1: 'b', c1: 'c', c2: 'c', c8: 'c', c3: 'd', t9: 'e', c9: 'f' })[id];
    let moved = 0;
    fc.assert(
      fc.property(fc.array(act, { minLength: 10, maxLength: 60 }), fc.array(fc.nat(60)), (acts, restarts) => {
        const { log, ghosts, later } = overlapping(unit, siteOf);
        const first = log.records.length;
        let at = later + 200;
        for (const { after, device, what } of acts) {
          at += after;
          if (what === 'poll') log.poll(at, device);
          else if (what === 'offer') log.poll(at, device, { offer: 4, of: 'r2' });
          else if (what === 'crash') log.harm(at, device, 'crash', 4);
          else if (what === 'healthy') log.say(at, device, 'healthy', 4);
          else if (what === 'stage') log.open(at, { releaseId: 'r2', stage: 1, thresholds: { [segment]: 200 } });
          else if (what === 'end') log.end(at);
          else log.clock(at);
        }
        log.clock(at + 12_000);
        const whole = fold(log.records);
        if (!whole.state.devices.rows.has('t9')) moved += 1;
        expect(whole.ofR2).toEqual(fold(log.records, ghosts).ofR2);
        expect(whole.ofR2).toEqual(withAndWithoutEnd(log.records)[1].ofR2);
        const places = restarts.map((place) => first + place);
        expect(fold(log.records, [], places).ofR2).toEqual(whole.ofR2);
      }),
      { numRuns: 25 },
    );
    expect(moved).toBeGreaterThan(5);
  },
);
