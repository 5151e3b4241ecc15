/** The report that crosses the threshold, against the log folded without it. */
import { expect, test } from 'vitest';
import { emptyState, foldRecord } from '../../domain/at-risk.ts';
import { acceptWindow, foldTicks, newSession } from '../../domain/judge/session.ts';
import { defaultPolicy } from '../../domain/policy.ts';
import type { TelemetryRecord, Window } from '../../domain/telemetry.ts';
import { bucketOf } from '../../infra/cohort.ts';
import { digestOf } from '../../infra/content/digests.ts';
import { createHarmReader, findCrossing } from '../bench/load/crossing.ts';

type Entry = { readonly at: number; readonly record: TelemetryRecord };

const engine = { name: 'e', version: '1', packageVersion: '1', digest: 'a'.repeat(64) };
const segment = 'e-1-aaaaaaaa/fail-open';
const releaseId = 'r';
const contentVersion = 2;
const tickMs = 250;
const startedAt = 1_000_000;
const devices = Array.from({ length: 3_000 }, (_, index) => `d${index}`);
const buckets = devices.map((id) => bucketOf(releaseId, id)).sort((a, b) => a - b);
const canaries = devices.filter((id) => bucketOf(releaseId, id) <= (buckets[19] ?? 0));

const report = (deviceId: string, sequence: number, body: object): TelemetryRecord => ({
  report: { deviceId, sequence, body: body as never },
});
const poll = (deviceId: string, sequence: number, offered: boolean): TelemetryRecord =>
  report(deviceId, sequence, {
    ...{ kind: 'poll', engine, failMode: 'fail-open', contentVersion: 1, directorVersion: 1 },
    offer: offered ? { releaseId, contentVersion } : null,
  });

/** Everybody is there; canaries are served one after the other and block traffic 60 ms later, twice. */
const log: readonly Entry[] = [
  ...devices.map((id): Entry => ({ at: startedAt - 100, record: poll(id, 1, false) })),
  {
    at: startedAt,
    record: {
      control: {
        ...{ kind: 'stage-opened', releaseId, family: 'f', stage: 0, salt: releaseId, contentVersion },
        ...{ rollbackVersion: 3, thresholds: { [segment]: (buckets[19] ?? 0) + 1 }, startedAt },
        policy: { ...defaultPolicy, tickMs, judge: { ...defaultPolicy.judge, alphaHold: 1e-6 } },
      } as never,
    },
  },
  ...canaries
    .flatMap((id, index): Entry[] => {
      const at = startedAt + 130 + index * 47;
      const harmed = report(id, 3, { kind: 'blocked-traffic', contentVersion, words: '' });
      const again = report(id, 4, { kind: 'blocked-traffic', contentVersion, words: '' });
      return [
        { at, record: poll(id, 2, true) },
        { at: at + 60, record: harmed },
        { at: at + 61, record: again },
      ];
    })
    .sort((a, b) => a.at - b.at),
  { at: startedAt + 20_000, record: { control: { kind: 'clock' } } },
];

const windowsOf = (entries: readonly (Entry & { readonly offset: number })[]): readonly Window[] => {
  const state = emptyState(0, 1);
  return entries.flatMap(({ at, record, offset }) => foldRecord(state, record, at, offset, bucketOf).windows);
};
const haltTick = (windows: readonly Window[]): number | null => {
  const session = newSession(releaseId);
  for (const window of windows) acceptWindow(session, window, digestOf(window));
  foldTicks(session, { digestOf, codeVersion: 'test' });
  return session.halt?.tick ?? null;
};

const numbered = log.map((entry, offset) => ({ ...entry, offset }));
const started = { releaseId, contentVersion, startedAt, tickMs };
const harmIn = (entries: typeof numbered) => {
  const reader = createHarmReader([started]);
  for (const { at, record, offset } of entries) reader.take(0, offset, at, record);
  return reader.harmOf(releaseId);
};

test('with it and without what follows there is a HALT in that tick; without it there is none', () => {
  const windows = windowsOf(numbered);
  const tick = haltTick(windows);
  expect(tick).not.toBeNull();
  const crossing = findCrossing(started, windows, harmIn(numbered), digestOf);
  expect(crossing.tick).toBe(tick);
  expect(crossing.tickEnd).toBe(startedAt + (crossing.tick + 1) * tickMs);
  const isHarm = ({ record }: Entry) => 'report' in record && record.report.body.kind === 'blocked-traffic';
  const upTo = (last: number) => numbered.filter((entry) => !isHarm(entry) || entry.offset <= last);
  expect(haltTick(windowsOf(upTo(crossing.report.offset)))).toBe(tick);
  expect(haltTick(windowsOf(upTo(crossing.report.offset - 1)))).not.toBe(tick);
});

test('a log that is not that of the windows is noticed', () => {
  const windows = windowsOf(numbered);
  const harm = harmIn(numbered).slice(1);
  expect(() => findCrossing(started, windows, harm, digestOf)).toThrow(/reports in the log, the window counts/);
});

test('windows without a HALT have no crossing report', () => {
  const healthy = numbered.filter(({ record }) => !('report' in record) || record.report.body.kind === 'poll');
  expect(() => findCrossing(started, windowsOf(healthy), [], digestOf)).toThrow(/no HALT/);
});
