import { describe, expect, test, vi } from 'vitest';
import type { DirectorDocument, FamilyFreeze } from '../../domain/director.ts';
import { SigrelError } from '../../domain/errors.ts';
import type { FamilyLog } from '../../domain/ports.ts';
import { type JudgeStatus, refuseRenewal } from '../../domain/stage-rule.ts';
import { silent } from '../../infra/kafka/client.ts';
import { createMemoryFamilyLog } from '../../infra/memory/family-log.ts';
import { startLeaseRenewal } from '../../services/lease.ts';
import { directorThat, standing } from '../support/directors.ts';
import { patient } from '../support/patience.ts';
import { judgeStatus, sampleVerdict } from '../support/streams.ts';

const now = 1_000_000;
const lease = { startedAt: now - 60_000, leaseMs: 6_000, freshMs: 3_000, clearedCells: [] as readonly string[] };
const content = { contentVersion: 2, releaseId: 'r1', artefacts: [] };
const documentOf = (mode: DirectorDocument['mode'], changes: Partial<typeof lease> = {}): DirectorDocument => ({
  ...{ family: 'ips', directorVersion: 7, mode, steady: { ...content, contentVersion: 1 }, rollback: null },
  rollout: { content, salt: 's', stage: 0, thresholds: {}, lease: { ...lease, ...changes } },
});
const statusOf = (changes: Partial<JudgeStatus> = {}): JudgeStatus =>
  judgeStatus({ lastWindowClosedAt: now - 500, ...changes });
const hold = { verdict: { ...sampleVerdict, kind: 'hold' }, clearedAt: null } as const;
const { cell } = sampleVerdict;
const other = { verdict: { ...hold.verdict, cell: 'load-failure/*' }, clearedAt: null };

describe('a lease is renewed', () => {
  test.each([
    ['fresh windows, a watched stage, no verdict', documentOf('rolling'), statusOf(), now - 100],
    ['before the first window can be due', documentOf('rolling', { startedAt: now - 1_000 }), null, now - 100],
    [
      'a hold that a person cleared',
      documentOf('rolling', { clearedCells: [cell] }),
      statusOf({ holds: [hold] }),
      now - 100,
    ],
    [
      'a hold that evidence cleared',
      documentOf('rolling'),
      statusOf({ holds: [{ ...hold, clearedAt: 4 }] }),
      now - 100,
    ],
  ])('%s', (_, document, status, watchedAt) => {
    expect(refuseRenewal(document, status, watchedAt, now)).toBeNull();
  });
  test.each([
    [
      'no window for too long',
      documentOf('rolling'),
      statusOf({ lastWindowClosedAt: now - 3_001 }),
      now - 100,
      /last window/,
    ],
    ['no window at all', documentOf('rolling'), null, now - 100, /last window/],
    ['the judge holds', documentOf('rolling'), statusOf({ holds: [hold] }), now - 100, /holds/],
    [
      'another cell holds than the one that a person cleared',
      documentOf('rolling', { clearedCells: [cell] }),
      statusOf({ holds: [hold, other] }),
      now - 100,
      /holds/,
    ],
    [
      'the judge halts',
      documentOf('rolling', { clearedCells: [cell] }),
      statusOf({ halt: sampleVerdict }),
      now - 100,
      /halted/,
    ],
    ['nobody watches any more', documentOf('rolling'), statusOf(), now - 3_001, /no workflow has looked/],
    [
      'a window of the future',
      documentOf('rolling'),
      statusOf({ lastWindowClosedAt: now + 3_001 }),
      now - 100,
      /clock/,
    ],
    ['watched in the future', documentOf('rolling'), statusOf(), now + 3_001, /clock/],
    ['nobody has watched yet', documentOf('rolling'), statusOf(), null, /no workflow has looked/],
    ['frozen', documentOf('frozen'), statusOf(), now - 100, /frozen/],
    ['rolled back', documentOf('rollback'), statusOf(), now - 100, /rollback/],
    ['nothing rolls out', { ...documentOf('steady'), rollout: null }, statusOf(), now - 100, /steady/],
  ])('not: %s', (_, document, status, watchedAt, why) => {
    expect(refuseRenewal(document, status, watchedAt, now)).toMatch(why);
  });
});

describe('the service', () => {
  const appendMs = 1_400;
  const run = async (
    document: DirectorDocument,
    expiresAt: number,
    status: () => Promise<JudgeStatus | null>,
    familyLog: FamilyLog = createMemoryFamilyLog(),
    stands: { stopped?: boolean; freeze?: FamilyFreeze } = {},
    /** What the store does; `asOf`: when it says that the lease begins. */
    renew: (asOf: number) => boolean = () => true,
  ) => {
    const renewals: number[] = [];
    let looked = 0;
    let clock = now;
    const director = directorThat({
      families: async () => ['ips'],
      read: async () => {
        looked += 1;
        return standing(document, { expiresAt, ...stands });
      },
      renew: async (_family, version, expiresInMs, asOf = Number.NaN) => {
        expect(version).toBe(7);
        if (!renew(asOf)) return false;
        renewals.push(expiresInMs);
        return true;
      },
    });
    const watches = { note: async () => {}, lastSeen: async () => now };
    const service = startLeaseRenewal({
      director,
      // Everything takes its time: reading a little, the log more.
      evidence: {
        judgeStatus: async () => {
          clock += 10;
          return status();
        },
      },
      familyLog: {
        append: async (event) => {
          clock += appendMs;
          await familyLog.append(event);
        },
      },
      ...{ watches, log: silent, now: () => clock },
    });
    await vi.waitFor(() => expect(looked).toBeGreaterThan(1), patient);
    await service.stop();
    return renewals;
  };
  test('renews at a third of the lease, and not before', async () => {
    expect((await run(documentOf('rolling'), now + 3_900, async () => statusOf()))[0]).toBe(6_000);
    expect(await run(documentOf('rolling'), now + 4_100, async () => statusOf())).toEqual([]);
  });
  test('makes a lease shorter that is longer than any, and asks nobody first', async () => {
    const familyLog = createMemoryFamilyLog();
    const gone = async () => {
      throw new Error('connection refused');
    };
    const stands = { stopped: true };
    expect((await run(documentOf('rolling'), now + 3_600_000, gone, familyLog, stands))[0]).toBe(6_000);
    expect(familyLog.events).toEqual([]); // it grants nothing that was not granted
    expect(await run(documentOf('rolling'), now + 6_000, async () => statusOf())).toEqual([]);
  });
  test('renews nothing when the evidence cannot be read', async () => {
    const gone = async () => {
      throw new Error('connection refused');
    };
    expect(await run(documentOf('rolling'), now + 100, gone)).toEqual([]);
  });
  test('keeps what grants nothing verifiable', async () => {
    const week = 7 * 24 * 3_600_000;
    expect((await run(documentOf('frozen'), now + week / 3, async () => null))[0]).toBe(week);
    expect(await run(documentOf('frozen'), now + week - 1_000, async () => null)).toEqual([]);
  });
  test('a renewal stands in the log before it is signed, and ends when that says', async () => {
    const familyLog = createMemoryFamilyLog();
    const begun: number[] = [];
    const renewals = await run(
      documentOf('rolling'),
      now + 100,
      async () => statusOf(),
      familyLog,
      {},
      (asOf) => {
        begun.push(asOf);
        expect(familyLog.events.length).toBe(begun.length);
        return true;
      },
    );
    expect(renewals.length).toBeGreaterThan(0);
    // From when the evidence was found fresh, although the log has taken its time since.
    expect(begun[0]).toBe(now);
    expect(familyLog.events[0]).toMatchObject({
      ...{ type: 'LeaseRenewed', family: 'ips' },
      data: { releaseId: 'r1', stage: 0, directorVersion: 7, until: new Date(now + 6_000).toISOString() },
    });
  });
  test('evidence that has grown old while the log was written renews nothing', async () => {
    const familyLog = createMemoryFamilyLog();
    const old = async () => statusOf({ lastWindowClosedAt: now - 3_000 + appendMs });
    expect(await run(documentOf('rolling'), now + 100, old, familyLog)).toEqual([]);
    expect(familyLog.events.length).toBe(1);
  });
  test('a renewal that the store refuses is tried again, and stands in the log once', async () => {
    const familyLog = createMemoryFamilyLog();
    const begun: number[] = [];
    const refuse = (asOf: number): boolean => {
      begun.push(asOf);
      return false;
    };
    await run(documentOf('rolling'), now + 100, async () => statusOf(), familyLog, {}, refuse);
    expect(begun.length).toBeGreaterThan(1);
    expect(new Set(begun)).toEqual(new Set([now]));
    expect(familyLog.events.length).toBe(1);
  });
  test('renews nothing while the event log takes no records', async () => {
    let asked = 0;
    const append = async () => {
      asked += 1;
      throw new SigrelError('SRP_DEP_KAFKA', 'Kafka did not take records');
    };
    expect(await run(documentOf('rolling'), now + 100, async () => statusOf(), { append })).toEqual([]);
    expect(asked).toBeGreaterThan(1);
  });
  test('looks at the judge once more when the log has the record: what it says meanwhile counts', async () => {
    let halted = false;
    const append = async () => {
      halted = true;
    };
    const status = async () => statusOf(halted ? { halt: sampleVerdict } : {});
    expect(await run(documentOf('rolling'), now + 100, status, { append })).toEqual([]);
    expect(halted).toBe(true);
  });
  test('a stop and a freeze are not even asked of the log', async () => {
    const familyLog = createMemoryFamilyLog();
    const freeze = { freezeId: 'f', by: 'sam', reason: 'r', at: '', until: null };
    for (const stands of [{ stopped: true }, { freeze }]) {
      expect(await run(documentOf('rolling'), now + 100, async () => statusOf(), familyLog, stands)).toEqual([]);
    }
    const frozen = { ...documentOf('rolling'), freezeId: 'f' };
    const week = 7 * 24 * 3_600_000;
    expect((await run(frozen, now + 100, async () => statusOf(), familyLog))[0]).toBe(week);
    expect(familyLog.events).toEqual([]);
  });
});
