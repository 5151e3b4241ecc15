import { beforeEach, describe, expect, test } from 'vitest';
import {
  beat,
  type Device,
  failUpdate,
  install,
  keepUnsent,
  mayInstall,
  newDevice,
  type SignedReport,
  type Trial,
} from '../../apps/device/cycle.ts';
import type { DirectorDocument } from '../../domain/director.ts';
import { bucketSpace } from '../../domain/exposure.ts';
import { type Content, engineId, segmentKey } from '../../domain/release.ts';
import { checkReport } from '../../infra/device-auth.ts';
import { engineA } from '../support/devices.ts';

const engine = engineId(engineA);
const segment = segmentKey(engine, 'fail-open');
const content = (contentVersion: number): Content => ({
  contentVersion,
  releaseId: `r-${contentVersion}`,
  artefacts: [{ engine, path: `content/ips/${contentVersion}/${engine}.rules`, sha256: 'a'.repeat(64), length: 1 }],
});
const lease = { startedAt: 0, leaseMs: 60_000, freshMs: 10_000, clearedCells: [] };
/** Steady content 1; content 2 rolls out to everybody, or was halted and is rolled back as content 3. */
const documentIn = (mode: DirectorDocument['mode'], threshold = bucketSpace): DirectorDocument => ({
  ...{ family: 'ips', directorVersion: 7, mode, steady: content(1) },
  rollout:
    mode === 'steady'
      ? null
      : { content: content(2), salt: 's', stage: 0, thresholds: { [segment]: threshold }, lease },
  rollback: mode === 'rollback' ? content(3) : null,
});

const key = new Uint8Array(32).fill(7);
const healthy: Trial = { outcome: 'healthy' };
const blocks: Trial = { outcome: 'blocked-traffic', words: 'rule 7 blocked legitimate traffic' };
const broken: Trial = { outcome: 'load-failure', words: 'unknown rule keyword' };
const accepted = { status: 'accepted' } as const;
const forMs = (acknowledgedForMs: number) => ({ ...accepted, acknowledgedForMs });
const kinds = (reports: readonly SignedReport[]) => reports.map(({ body }) => body.kind);
const beatKinds = (document: DirectorDocument | null) => kinds(beat(device, document).reports);

let device: Device;
beforeEach(() => {
  device = newDevice({ deviceId: 'd-1', engine: engineA, failMode: 'fail-open', profile: 'office', key });
  device.contentVersion = 1;
});

describe('a heartbeat', () => {
  test('without a document the device keeps what runs, says so, and wants nothing', () => {
    beat(device, documentIn('steady'));
    const { reports, wants } = beat(device, null);
    expect(wants).toBeNull();
    expect(reports.map(({ body }) => body)).toEqual([
      { kind: 'poll', engine: engineA, failMode: 'fail-open', contentVersion: 1, directorVersion: 7, offer: null },
    ]);
  });

  test('what rolls out is asked for in the poll, which comes last', () => {
    const { reports, wants } = beat(device, documentIn('rolling'));
    expect(wants).toMatchObject({ needsAcknowledgement: true, content: { contentVersion: 2 } });
    expect(reports.at(-1)?.body).toMatchObject({ kind: 'poll', offer: { releaseId: 'r-2', contentVersion: 2 } });
  });

  test.each([
    ['steady', 0, 1],
    ['rollback', 2, 3],
  ] as const)('%s content needs no offer', (mode, running, wanted) => {
    device.contentVersion = running;
    const { reports, wants } = beat(device, documentIn(mode));
    expect(wants).toMatchObject({ needsAcknowledgement: false, content: { contentVersion: wanted } });
    expect(reports.at(-1)?.body).toMatchObject({ kind: 'poll', offer: null });
  });

  test('a device outside the exposure, or in a frozen one, asks for nothing', () => {
    for (const document of [documentIn('rolling', 0), documentIn('frozen')]) {
      const { reports, wants } = beat(device, document);
      expect(wants).toBeNull();
      expect(reports.at(-1)?.body).toMatchObject({ offer: null });
    }
  });

  test('every report is signed with the key of the device and numbered by one more, begun above an earlier life', () => {
    const before = Date.now();
    expect(newDevice(device).sequence).toBeGreaterThanOrEqual(before);
    const first = device.sequence;
    const reports = [
      ...beat(device, documentIn('rolling')).reports,
      ...install(device, content(2), blocks),
      ...beat(device, null).reports,
    ];
    expect(reports.map(({ sequence }) => sequence)).toEqual(reports.map((_, index) => first + 1 + index));
    for (const { mac, keyEpoch, ...report } of reports) {
      expect(keyEpoch).toBe(1);
      expect(checkReport(key, report, mac)).toBe(true);
      expect(checkReport(key, { ...report, sequence: report.sequence + 1 }, mac)).toBe(false);
    }
  });
});

describe('what may be installed', () => {
  const now = 1_000_000;
  const rolling = { content: content(2), needsAcknowledgement: true };
  const steady = { content: content(1), needsAcknowledgement: false };

  test.each([
    ['nothing', null, forMs(500), now + 1, 0, false],
    ['an acknowledged offer', rolling, forMs(500), now + 1, 499, true],
    ['an offer without an acknowledgement', rolling, accepted, now + 1, 0, false],
    ['an offer whose acknowledgement is over', rolling, forMs(500), now + 1, 500, false],
    ['an acknowledged offer of an expired document', rolling, forMs(500), now, 0, false],
    ['an offer of a rejected poll', rolling, { status: 'rejected' }, now + 1, 0, false],
    ['steady content, or a rollback, as it is', steady, accepted, now + 1, 9_999, true],
    ['steady content of an expired document', steady, accepted, now, 0, false],
  ] as const)('%s', (_, wants, answer, expiresAt, sinceAskedMs, expected) => {
    expect(mayInstall(wants, answer, { expiresAt, now, sinceAskedMs })).toBe(expected);
  });

  test('a clock that stands or goes backwards makes no acknowledgement last longer', () => {
    for (const clock of [now, now - 600_000, 0]) {
      expect(mayInstall(rolling, forMs(500), { expiresAt: now + 1, now: clock, sinceAskedMs: 501 })).toBe(false);
    }
  });
});

describe('what came of content', () => {
  test('healthy content is installed, then said to be healthy with the next heartbeat, and only once', () => {
    expect(install(device, content(2), healthy).map(({ body }) => body)).toEqual([
      { kind: 'installed', contentVersion: 2 },
    ]);
    expect(device.contentVersion).toBe(2);
    const document = documentIn('rolling');
    expect(beat(device, document).reports.map(({ body }) => body)).toEqual([
      { kind: 'healthy', contentVersion: 2 },
      expect.objectContaining({ kind: 'poll', contentVersion: 2, offer: null }),
    ]);
    expect(beatKinds(document)).toEqual(['poll']);
  });

  test('a device that has installed nothing does not say that it is healthy', () => {
    expect(beatKinds(null)).toEqual(['poll']);
  });

  test('content that does not load is left at once and never tried again', () => {
    const document = documentIn('rolling');
    const { wants } = beat(device, document);
    if (!wants) throw new Error('nothing is wanted');
    expect(install(device, wants.content, broken).map(({ body }) => body)).toEqual([
      { kind: 'load-failure', contentVersion: 2, words: 'unknown rule keyword' },
      { kind: 'reverted', contentVersion: 1 },
    ]);
    expect(device.contentVersion).toBe(1);
    const again = beat(device, document);
    expect(again.wants).toBeNull();
    expect(again.reports.map(({ body }) => body)).toEqual([
      expect.objectContaining({ kind: 'poll', contentVersion: 1, offer: null }),
    ]);
    // Nor when all devices are to have it; only other content is taken.
    expect(beat(device, { ...documentIn('steady'), steady: content(2) }).wants).toBeNull();
    expect(beat(device, { ...documentIn('steady'), steady: content(4) }).wants?.content.contentVersion).toBe(4);
  });

  test('blocked traffic is said at once and with every heartbeat, until other content runs', () => {
    expect(kinds(install(device, content(2), blocks))).toEqual(['installed', 'blocked-traffic']);
    for (const document of [documentIn('rolling'), documentIn('frozen'), null]) {
      expect(beat(device, document).reports.map(({ body }) => body)).toEqual([
        { kind: 'blocked-traffic', contentVersion: 2, words: blocks.words },
        expect.objectContaining({ kind: 'poll', contentVersion: 2 }),
      ]);
    }
    const { wants } = beat(device, documentIn('rollback'));
    expect(wants?.content.contentVersion).toBe(3);
    expect(kinds(install(device, content(3), healthy))).toEqual(['installed']);
    expect(beatKinds(documentIn('rollback'))).toEqual(['healthy', 'poll']);
    expect(beatKinds(documentIn('rollback'))).toEqual(['poll']);
  });

  test('a rollback that does not load leaves the trouble as it is', () => {
    install(device, content(2), blocks);
    install(device, content(3), broken);
    expect(device.contentVersion).toBe(2);
    expect(beatKinds(documentIn('rollback'))).toEqual(['blocked-traffic', 'poll']);
  });

  test('an update that failed changes nothing, is said, and is tried again', () => {
    const document = documentIn('rolling');
    expect(failUpdate(device, content(2), 'the digest is another one').map(({ body }) => body)).toEqual([
      { kind: 'update-failure', contentVersion: 2, words: 'the digest is another one' },
    ]);
    expect(device.contentVersion).toBe(1);
    expect(beat(device, document).wants?.content.contentVersion).toBe(2);
  });
});

describe('reports that no gateway took', () => {
  test('go out first with the next heartbeat, once and in the order in which they were said', () => {
    const said = install(device, content(2), blocks);
    keepUnsent(device, said);
    const unsent = beat(device, null).reports;
    expect(kinds(unsent)).toEqual(['installed', 'blocked-traffic', 'blocked-traffic', 'poll']);
    expect(device.outbox).toEqual([]);
    keepUnsent(device, unsent);
    keepUnsent(device, install(device, content(3), healthy));
    const { reports } = beat(device, null);
    expect(kinds(reports)).toEqual(['installed', 'blocked-traffic', 'installed', 'healthy', 'poll']);
    expect(reports.slice(0, 2)).toEqual(said);
    const numbers = reports.map(({ sequence }) => sequence);
    expect(numbers).toEqual(numbers.toSorted((a, b) => a - b));
    expect(beatKinds(null)).toEqual(['poll']);
  });

  test('do not grow without end: what was said already is not kept again', () => {
    const [first, ...others] = Array.from({ length: 100 }, (_, round) => failUpdate(device, content(2), String(round)));
    for (const reports of [first ?? [], ...others]) keepUnsent(device, reports);
    expect(device.outbox).toEqual(first);
    keepUnsent(device, failUpdate(device, content(3), ''));
    expect(device.outbox.map(({ body }) => body.contentVersion)).toEqual([2, 3]);
  });
});
