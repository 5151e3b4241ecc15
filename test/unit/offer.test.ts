import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { DirectorDocument } from '../../domain/director.ts';
import { type AskingPoll, offerLasts } from '../../domain/offer.ts';
import { type Content, engineId, segmentKey } from '../../domain/release.ts';
import { silent } from '../../infra/kafka/client.ts';
import { createFileBlobs } from '../../infra/store/blobs.ts';
import { createDirectorStore } from '../../infra/tuf/director-store.ts';
import { createDirectorView } from '../../infra/tuf/director-view.ts';
import { createOfferCheck } from '../../services/offers.ts';
import { engineA, pollBody } from '../support/devices.ts';

const now = 1_000_000;
const segment = segmentKey(engineId(engineA), 'fail-open');
const content = (contentVersion: number): Content => ({
  contentVersion,
  releaseId: `r${contentVersion}`,
  artefacts: [],
});
const lease = { startedAt: 0, leaseMs: 60_000, freshMs: 10_000, clearedCells: [] };
const documentIn = (mode: DirectorDocument['mode'], changes: Partial<DirectorDocument> = {}): DirectorDocument => ({
  ...{ family: 'ips', directorVersion: 7, mode, steady: content(1), rollback: null },
  rollout: { content: content(2), salt: 's', stage: 0, thresholds: { [segment]: 10 }, lease },
  ...changes,
});
const asks = (contentVersion = 2, failMode: 'fail-open' | 'fail-closed' = 'fail-open') =>
  pollBody({ failMode, offer: { releaseId: 'r2', contentVersion } }) as AskingPoll;
const lasts = (document: DirectorDocument, poll = asks(), bucket = 9, expiresAt = now + 4_000) =>
  offerLasts([{ document, expiresAt }], { deviceId: 'd' }, poll, () => bucket, now);

test('a device of a site takes what its site is offered', () => {
  const { rollout, ...rest } = documentIn('rolling');
  const bySite = { ...rest, rollout: rollout && { ...rollout, unit: 'site' as const } };
  const buckets: Readonly<Record<string, number>> = { inside: 9, outside: 10 };
  const lastsIn = (site: string) =>
    offerLasts(
      [{ document: bySite, expiresAt: now + 4_000 }],
      { deviceId: 'd', site },
      asks(),
      (_, id) => buckets[id] ?? 99,
      now,
    );
  expect([lastsIn('inside'), lastsIn('outside')]).toEqual([4_000, 0]);
});

describe('an offer lasts', () => {
  test('as long as the document in force grants it to this device', () => {
    expect(lasts(documentIn('rolling'))).toBe(4_000);
  });
  test.each([
    ['a document that has lapsed, whatever the device thinks', lasts(documentIn('rolling'), asks(), 9, now)],
    ['a paused release', lasts(documentIn('frozen'))],
    ['a frozen family', lasts(documentIn('rolling', { freezeId: 'f' }))],
    ['a release that was rolled back', lasts(documentIn('rollback', { rollback: content(3) }))],
    ['a release that has completed, or never began', lasts(documentIn('steady', { rollout: null }))],
    ['other content of the release', lasts(documentIn('rolling'), asks(3))],
    ['a device outside the threshold, whichever document it shows', lasts(documentIn('rolling'), asks(), 10)],
    ['a segment that the plan does not have', lasts(documentIn('rolling'), asks(2, 'fail-closed'))],
    ['a poll that asks for nothing', lasts(documentIn('rolling'), pollBody() as AskingPoll)],
    ['no document at all', offerLasts([], { deviceId: 'd' }, asks(), () => 0, now)],
  ])('no time for %s', (_, found) => {
    expect(found).toBe(0);
  });
});

test('the gateway sees every change of the store at once, and grants nothing when it cannot be read', async () => {
  const root = await mkdtemp(join(tmpdir(), 'sigrel-offers-'));
  const dir = join(root, 'store');
  const store = createDirectorStore({
    ...{ dir, keysDir: join(root, 'keys'), blobs: createFileBlobs(join(dir, 'blobs')), now: Date.now },
  });
  let reads = 0;
  const counted = {
    families: store.families,
    read: (family: string) => {
      reads += 1;
      return store.read(family);
    },
  };
  const offers = createOfferCheck(createDirectorView(counted, dir), Date.now, silent);
  const granted = async () => (await offers())({ deviceId: 'd' }, asks());
  try {
    expect(await granted()).toBe(0);
    await store.initialiseFamily('ips', [{ engine: engineA, bytes: new Uint8Array(1) }]);
    expect(await granted()).toBe(0);
    const { rollout } = documentIn('rolling');
    const all = rollout && { ...rollout, thresholds: { [segment]: 2 ** 32 } };
    await store.change('ips', (current) => ({ ...current, mode: 'rolling', rollout: all }), { expiresInMs: 60_000 });
    expect(await granted()).toBeGreaterThan(50_000);
    const before = reads;
    expect(await granted()).toBeGreaterThan(50_000);
    expect(reads).toBe(before); // the same files: not read again
    await store.freeze('ips', { freezeId: 'f', reason: 'r', by: 'sam', at: '', until: null });
    expect(await granted()).toBe(0);
    await store.thaw('ips', 'f');
    expect(await granted()).toBe(0); // lapsed until it is renewed
    await store.renew('ips', (await store.read('ips')).document.directorVersion, 60_000);
    expect(await granted()).toBeGreaterThan(50_000);
    await rm(dir, { recursive: true });
    expect(await granted()).toBe(0);
  } finally {
    await rm(root, { recursive: true, force: true });
  }
});
