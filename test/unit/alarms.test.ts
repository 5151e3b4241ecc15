import { describe, expect, test, vi } from 'vitest';
import type { Alarm } from '../../domain/alarm.ts';
import { alarmsOf, changesOf, type FamilyFacts, freezeOldMs, stopsOf } from '../../domain/alarms.ts';
import type { DirectorDocument } from '../../domain/director.ts';
import { defaultPolicy } from '../../domain/policy.ts';
import { foldEvents } from '../../domain/release-state.ts';
import { silent } from '../../infra/kafka/client.ts';
import { createMemoryFamilyLog } from '../../infra/memory/family-log.ts';
import { startAlarms } from '../../services/alarms.ts';
import { patient } from '../support/patience.ts';
import { judgeStatus, sampleStream, sampleVerdict } from '../support/streams.ts';

const now = 10_000_000_000;
const content = { contentVersion: 2, releaseId: 'r1', artefacts: [] };
const lease = { startedAt: now - 60_000, leaseMs: 6_000, freshMs: 3_000, clearedCells: [] };
const document: DirectorDocument = {
  ...{ family: 'ips', directorVersion: 7, mode: 'rolling', steady: { ...content, contentVersion: 1 }, rollback: null },
  rollout: { content, salt: 's', stage: 0, thresholds: {}, lease },
};
const evidence = (changes: Parameters<typeof judgeStatus>[0] = {}, arrived: readonly number[] = []) => ({
  ...{ status: judgeStatus({ lastWindowClosedAt: now - 500, ...changes }), watchedAt: now - 100, arrived },
});
const facts = (changes: Partial<FamilyFacts> = {}): FamilyFacts => ({
  ...{ document, expiresAt: now + 5_000, signedAt: now - 86_400_000, stopped: false, freeze: null },
  ...{ evidence: evidence(), partitions: 4 },
  ...changes,
});
const found = (changes: Partial<FamilyFacts>) => alarmsOf(facts(changes), now);
const kinds = (changes: Partial<FamilyFacts>) => found(changes).map(({ kind }) => kind);

test('nothing is wrong with fresh windows and a lease that was just renewed', () => {
  expect(found({})).toEqual([]);
});

describe('windows that are late', () => {
  test('name the partitions that are missing for the next tick, and since when', () => {
    const late = evidence({ lastTick: 5, lastWindowClosedAt: now - 3_001 }, [0, 2]);
    expect(found({ evidence: late })).toMatchObject([
      {
        ...{ alarmId: 'windows-late/r1', releaseId: 'r1', since: now - 1, observed: 3_001, limit: 3_000 },
        ...{ partitions: [1, 3], words: expect.stringContaining('tick 6 of r1 has no window of partition 1, 3') },
      },
    ]);
    expect(kinds({ evidence: evidence({ lastWindowClosedAt: now - 3_000 }) })).toEqual([]);
  });
  test('are late before the first one too, from the start of the release', () => {
    const none = { status: null, watchedAt: now, arrived: [] };
    const young = {
      ...document,
      rollout: document.rollout && { ...document.rollout, lease: { ...lease, startedAt: now - 3_000 } },
    };
    expect(kinds({ evidence: none, document: young })).toEqual([]);
    expect(found({ evidence: none })[0]).toMatchObject({ kind: 'windows-late', partitions: [0, 1, 2, 3] });
    expect(found({ evidence: none })[0]?.words).toContain('tick 0 of r1 has no window of any partition');
  });
  test('of a release that is paused are an alarm, of one that has ended none', () => {
    const old = evidence({ lastWindowClosedAt: 0 });
    expect(kinds({ evidence: old, document: { ...document, mode: 'frozen' } })).toEqual(['windows-late']);
    expect(kinds({ evidence: old, document: { ...document, mode: 'rollback' } })).toEqual([]);
    expect(kinds({ evidence: old, document: { ...document, mode: 'steady', rollout: null } })).toEqual([]);
  });
  test('and tables that cannot be read are not the same alarm', () => {
    expect(kinds({ evidence: null })).toEqual(['evidence-unreadable']);
  });
});

describe('a lease that has run out', () => {
  test('is an alarm when it is over for a third of its length, with the reason', () => {
    expect(kinds({ expiresAt: now - 2_000 })).toEqual([]);
    expect(found({ expiresAt: now - 2_001 })).toMatchObject([
      { kind: 'lease-lapsed', since: now - 1, observed: 8_001, limit: 8_000 },
    ]);
    const words = (changes: Partial<FamilyFacts>) =>
      found({ expiresAt: now - 2_001, ...changes }).find(({ kind }) => kind === 'lease-lapsed')?.words;
    expect(words({})).toMatch(/has run out: the event log does not take it/);
    expect(words({ stopped: true })).toMatch(/stopped/);
    expect(words({ evidence: evidence({ halt: sampleVerdict }) })).toMatch(/the judge halted/);
    expect(words({ evidence: null })).toMatch(/cannot be read/);
  });
  test('that a thaw has left over is one when nobody has renewed it for a third more than its length', () => {
    expect(kinds({ expiresAt: 0, signedAt: now - 8_000 })).toEqual([]);
    expect(found({ expiresAt: 0, signedAt: now - 8_001 })).toMatchObject([
      { kind: 'lease-lapsed', since: now - 1, observed: 8_001, limit: 8_000 },
    ]);
  });
  test('is none when nothing is granted', () => {
    for (const other of [
      { ...document, freezeId: 'f' },
      { ...document, mode: 'frozen' as const },
    ]) {
      expect(kinds({ expiresAt: now - 9_000, document: other })).toEqual([]);
    }
  });
});

describe('a freeze', () => {
  const frozen = (ageMs: number, untilMs: number | null = null) => ({
    document: { ...document, freezeId: 'f' },
    freeze: {
      ...{ freezeId: 'f', by: 'sam', reason: 'complaints', at: new Date(now - ageMs).toISOString() },
      until: untilMs === null ? null : new Date(now - ageMs + untilMs).toISOString(),
    },
  });
  test('grows old after a day, or when its time is over and it still stands', () => {
    expect(kinds(frozen(freezeOldMs))).toEqual([]);
    expect(found(frozen(freezeOldMs + 5))).toMatchObject([
      { kind: 'freeze-old', since: now - 5, observed: freezeOldMs + 5, words: expect.stringContaining('by sam') },
    ]);
    expect(found(frozen(freezeOldMs + 50_000))[0]?.observed).toBe(freezeOldMs + 50_000);
    expect(kinds(frozen(60_001, 60_000))).toEqual(['freeze-old']);
    expect(kinds(frozen(60_000, 60_001))).toEqual([]);
  });
});

describe('what stands without being an alarm', () => {
  const freeze = {
    ...{ freezeId: 'f', by: 'sam', reason: 'complaints', at: new Date(now - 60_000).toISOString() },
    until: new Date(now + 60_000).toISOString(),
  };
  const frozen = facts({ document: { ...document, freezeId: 'f' }, freeze });

  test('a young freeze, with who, why, since when and until when; an old one is an alarm', () => {
    expect(stopsOf([facts(), frozen], [], now)).toEqual([
      {
        ...{ kind: 'frozen', family: 'ips', releaseId: null, unchangedSince: now - 60_000, observed: 60_000 },
        ...{ until: freeze.until, words: 'ips, by sam: complaints' },
      },
    ]);
    const old = { ...frozen, freeze: { ...freeze, until: new Date(now - 1).toISOString() } };
    expect(stopsOf([old], [], now)).toEqual([]);
    expect(alarmsOf(old, now)[0]?.words).toContain(`until ${old.freeze.until}: complaints`);
  });

  test('stages that are held or paused, with what holds them', () => {
    const first = sampleStream('completed', defaultPolicy);
    const state = foldEvents(first.slice(0, first.findIndex(({ type }) => type === 'StageOpened') + 1));
    if (state === null) throw new Error('empty');
    const hold = { reasonCode: 'no-data', reason: 'no complete window', verdict: null, cells: [] };
    const changedAt = new Date(now - 5_000).toISOString();
    const about = { family: 'ips', releaseId: 'r-1', unchangedSince: now - 5_000, observed: 5_000, until: null };
    expect(
      stopsOf(
        [],
        [
          { ...state, phase: 'held', hold, changedAt },
          { ...state, phase: 'paused', changedAt },
          { ...state, changedAt },
        ],
        now,
      ),
    ).toEqual([
      { ...about, kind: 'held', words: 'r-1 of ips: no complete window' },
      { ...about, kind: 'paused', words: 'r-1 of ips' },
    ]);
  });
});

test('an alarm that goes on is neither raised nor cleared again', () => {
  const alarm = (alarmId: string, observed = 1) => ({ alarmId, observed }) as Alarm;
  const open = new Map(['a', 'b'].map((id) => [id, alarm(id)]));
  expect(changesOf(open, [alarm('b', 9), alarm('c')])).toEqual({ raised: [alarm('c')], cleared: [alarm('a')] });
});

test('an alarm that the log does not take keeps no other one from being recorded', async () => {
  const familyLog = createMemoryFamilyLog();
  let refused = 0;
  const old = { freezeId: 'f', by: 'sam', reason: 'r', at: new Date(0).toISOString(), until: null };
  const of = (family: string) => facts({ document: { ...document, family, freezeId: 'f' }, freeze: old });
  const service = startAlarms({
    facts: async () => [of('av'), of('ips')],
    recorded: async () => [],
    familyLog: {
      append: async (event) => {
        if (event.family === 'ips') return familyLog.append(event);
        refused += 1;
        throw new Error('it cannot be written down');
      },
    },
    ...{ log: silent, now: () => now },
  });
  await vi.waitFor(() => expect(refused).toBeGreaterThan(1), patient);
  await service.stop();
  // Once: that another one fails does not raise it again.
  expect(familyLog.events).toMatchObject([{ type: 'AlarmRaised', data: { alarmId: 'freeze-old/ips' } }]);
});
