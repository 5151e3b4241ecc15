/** One family of which the store cannot be read: that is said of it, and the others go on. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { Alarm } from '../../domain/alarm.ts';
import { alarmsOf, changesOf } from '../../domain/alarms.ts';
import type { DirectorDocument } from '../../domain/director.ts';
import type { AskingPoll } from '../../domain/offer.ts';
import { engineId, segmentKey } from '../../domain/release.ts';
import { silent } from '../../infra/kafka/client.ts';
import { createMemoryFamilyLog } from '../../infra/memory/family-log.ts';
import { createFileBlobs } from '../../infra/store/blobs.ts';
import { createDirectorStore } from '../../infra/tuf/director-store.ts';
import { createDirectorView } from '../../infra/tuf/director-view.ts';
import { createFactReader, startAlarms } from '../../services/alarms.ts';
import { startLeaseRenewal } from '../../services/lease.ts';
import { createOfferCheck } from '../../services/offers.ts';
import { engineA, pollBody } from '../support/devices.ts';
import { patient } from '../support/patience.ts';
import { judgeStatus } from '../support/streams.ts';

const segment = segmentKey(engineId(engineA), 'fail-open');
const leaseMs = 60_000;
let root: string;
let dir: string;
let roleFile: string;
let signed: string;
let store: ReturnType<typeof createDirectorStore>;

/** Both families roll out to everybody, and the role file of the first by name is no JSON. */
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'sigrel-unreadable-'));
  dir = join(root, 'store');
  const blobs = createFileBlobs(join(dir, 'blobs'));
  store = createDirectorStore({ dir, keysDir: join(root, 'keys'), blobs, now: Date.now });
  for (const family of ['av', 'ips']) {
    await store.initialiseFamily(family, [{ engine: engineA, bytes: new Uint8Array(1) }]);
    await store.change(family, rolling(family), { expiresInMs: leaseMs / 2 });
  }
  roleFile = join(dir, 'repository', 'metadata', '2.director-av.json');
  signed = await readFile(roleFile, 'utf8');
  await writeFile(roleFile, 'not what was signed');
});
afterEach(() => rm(root, { recursive: true, force: true }));

const rolling =
  (family: string) =>
  (current: DirectorDocument): Omit<DirectorDocument, 'directorVersion'> => ({
    ...current,
    mode: 'rolling',
    rollout: {
      ...{ content: { contentVersion: 2, releaseId: `${family}-2`, artefacts: [] }, salt: 's', stage: 0 },
      thresholds: { [segment]: 2 ** 32 },
      lease: { startedAt: Date.now(), leaseMs, freshMs: 600_000, clearedCells: [] },
    },
  });
const evidence = { judgeStatus: async () => judgeStatus({ lastWindowClosedAt: Date.now() }) };
const watches = { note: async () => {}, lastSeen: async () => Date.now() };
const readerOf = (director: Pick<typeof store, 'families' | 'read'>, now: () => number = Date.now) =>
  createFactReader({ director, evidence, watches, arrived: async () => [], now });

test('is an alarm of that family, and the alarms of the others are found', async () => {
  const later = Date.now() + leaseMs * 2;
  const found = (await readerOf(store)()).flatMap((one) => alarmsOf(one, later));
  expect(found).toMatchObject([
    { alarmId: 'store-unreadable/av', family: 'av', words: expect.stringMatching(/says of av cannot be read .*JSON/) },
    { alarmId: 'lease-lapsed/ips-2', family: 'ips' },
  ]);
});

test('it stands since the first look that failed, until one does not', async () => {
  let now = Date.now();
  const facts = readerOf(store, () => now);
  const alarms = async () => (await facts()).flatMap((one) => alarmsOf(one, now));
  const since = now;
  await alarms();
  now += 3_600_000;
  expect((await alarms())[0]).toMatchObject({ kind: 'store-unreadable', since, observed: 3_600_000 });
  await writeFile(roleFile, signed);
  expect((await facts()).filter((one) => 'unreadable' in one)).toEqual([]);
  await writeFile(roleFile, 'not what was signed');
  now += 1;
  expect((await alarms())[0]).toMatchObject({ kind: 'store-unreadable', since: now });
});

test('a single read that fails is no alarm: it is read once more', async () => {
  await writeFile(roleFile, signed);
  const read = vi.fn(store.read).mockRejectedValueOnce(new Error('interrupted'));
  const facts = await readerOf({ families: store.families, read })();
  expect(facts.map((one) => 'unreadable' in one)).toEqual([false, false]);
});

test('what stood of that family is not over while nothing is known of it', () => {
  const alarm = (family: string, kind: Alarm['kind']) => ({ alarmId: `${kind}/${family}`, family, kind }) as Alarm;
  const open = [alarm('av', 'lease-lapsed'), alarm('ips', 'lease-lapsed')];
  const changes = changesOf(new Map(open.map((one) => [one.alarmId, one])), [alarm('av', 'store-unreadable')]);
  expect(changes.cleared.map(({ alarmId }) => alarmId)).toEqual(['lease-lapsed/ips']);
  expect(changes.raised.map(({ alarmId }) => alarmId)).toEqual(['store-unreadable/av']);
});

test('the log has the alarm, and that it is over once the family can be read again', async () => {
  const familyLog = createMemoryFamilyLog();
  const service = startAlarms({
    ...{ facts: readerOf(store), recorded: async () => [], familyLog, log: silent, now: Date.now },
  });
  try {
    await vi.waitFor(() => expect(familyLog.events.map(({ type }) => type)).toEqual(['AlarmRaised']), patient);
    await writeFile(roleFile, signed);
    await vi.waitFor(() => expect(familyLog.events.length).toBe(2), patient);
    expect(familyLog.events[1]).toMatchObject({ type: 'AlarmCleared', data: { alarmId: 'store-unreadable/av' } });
  } finally {
    await service.stop();
  }
});

test('its lease runs out, and those of the others are renewed', async () => {
  const familyLog = createMemoryFamilyLog();
  const renewal = startLeaseRenewal({
    ...{ director: store, evidence, watches, familyLog, log: silent, now: Date.now },
  });
  try {
    const left = async () => (await store.read('ips')).expiresAt - Date.now();
    await expect.poll(left, patient).toBeGreaterThan(leaseMs / 2);
  } finally {
    await renewal.stop();
  }
  expect(await readFile(roleFile, 'utf8')).toBe('not what was signed');
});

test('nothing of it is acknowledged, and offers of the others are; also once it can be read again', async () => {
  const offers = createOfferCheck(createDirectorView(store, dir), Date.now, silent);
  const lasts = async (family: string) => {
    const poll = pollBody({ offer: { releaseId: `${family}-2`, contentVersion: 2 } }) as AskingPoll;
    return (await offers())({ deviceId: 'd' }, poll);
  };
  expect(await lasts('ips')).toBeGreaterThan(0);
  expect(await lasts('av')).toBe(0);
  await writeFile(roleFile, signed); // no other file changed
  expect(await lasts('av')).toBeGreaterThan(0);
});
