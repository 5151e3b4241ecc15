import { cp, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { acceptWindow, foldTicks, newSession, type PendingWindow } from '../../domain/judge/session.ts';
import type { Waiver } from '../../domain/release.ts';
import { foldEvents, type ReleaseState } from '../../domain/release-state.ts';
import type { Window } from '../../domain/telemetry.ts';
import { digestOf } from '../../infra/content/digests.ts';
import { silent } from '../../infra/kafka/client.ts';
import { createAcknowledgements } from '../../infra/postgres/acknowledgements.ts';
import { createEvidenceReader, readEvidence } from '../../infra/postgres/evidence.ts';
import { createInventory, type DeviceRow, isEnrolled, saveDevices } from '../../infra/postgres/inventory.ts';
import {
  commitBatch,
  markNotified,
  readDecisionsToNotify,
  readFoldedDigest,
  readSession,
} from '../../infra/postgres/judge.ts';
import { migrate } from '../../infra/postgres/migrate.ts';
import { readArrivedPartitions } from '../../infra/postgres/pending.ts';
import { type Pool, withTransaction } from '../../infra/postgres/pool.ts';
import {
  createReleaseHistory,
  listReleases,
  quarantine,
  readEventHash,
  readQuarantine,
  readRelease,
  saveEvent,
  saveRelease,
} from '../../infra/postgres/releases.ts';
import { listRevocations, readRevoked, restoreDevice, revokeDevice } from '../../infra/postgres/revocations.ts';
import { createDeviceSites } from '../../infra/postgres/sites.ts';
import { readSnapshot, writeSnapshot } from '../../infra/postgres/snapshots.ts';
import { changeWaivers, createWaivers, readWaivers } from '../../infra/postgres/waivers.ts';
import { createWatches } from '../../infra/postgres/watches.ts';
import { moveWatermark, readWatermark } from '../../infra/postgres/watermarks.ts';
import { createEmptyDatabase, type TestDatabase } from '../support/database.ts';
import { engineA } from '../support/devices.ts';
import { streamOf } from '../support/event-log-contract.ts';
import { allOf } from '../support/inventory-contract.ts';
import { patient } from '../support/patience.ts';
import { crashStory, foldLog } from '../support/telemetry-log.ts';

const postgresFolder = join(import.meta.dirname, '..', '..', 'infra', 'postgres');
const migrationsFolder = join(postgresFolder, 'migrations');

let database: TestDatabase;
let pool: Pool;
let folder: string;
beforeEach(async () => {
  database = await createEmptyDatabase();
  pool = database.pool;
  folder = await mkdtemp(join(tmpdir(), 'sigrel-migrations-'));
});
afterEach(async () => {
  await database.close();
  await rm(folder, { recursive: true, force: true });
});

const tables = async (): Promise<readonly string[]> => {
  const { rows } = await pool.query<{ name: string }>(
    `select table_name as name from information_schema.tables where table_schema = 'public' order by 1`,
  );
  return rows.map((row) => row.name);
};

test('every migration applies on an empty database, in order; a second time there is nothing to do', async () => {
  const names = (await readdir(migrationsFolder)).sort();
  expect(await migrate(pool, silent)).toEqual(names);
  const first = await pool.query('select * from schema_migrations order by id');
  expect(await migrate(pool, silent)).toEqual([]);
  const second = await pool.query('select * from schema_migrations order by id');
  expect(second.rows).toEqual(first.rows);
  expect(second.rows.map((row) => row.name)).toEqual(names);
});

test('of two processes that migrate at once the second waits for the first, then has nothing to do', async () => {
  await writeFile(join(folder, '000001_slow.sql'), 'select pg_advisory_xact_lock(42); create table slow (n integer);');
  const waiting = async (): Promise<number> => {
    const { rows } = await pool.query(
      `select 1 from pg_locks join pg_database d on d.oid = database
       where locktype = 'advisory' and not granted and datname = current_database()`,
    );
    return rows.length;
  };
  const holder = await pool.connect();
  try {
    await holder.query('select pg_advisory_lock(42)');
    const first = migrate(database.openPool(), silent, folder);
    await expect.poll(waiting, patient).toBe(1);
    const second = migrate(database.openPool(), silent, folder);
    await expect.poll(waiting, patient).toBe(2);
    expect(await tables()).not.toContain('slow');
    await holder.query('select pg_advisory_unlock(42)');
    expect(await Promise.all([first, second])).toEqual([['000001_slow.sql'], []]);
  } finally {
    holder.release(true); // and with it the lock: the others must end before the pools do
  }
});

test('an applied file that was changed is refused and nothing is applied', async () => {
  await cp(migrationsFolder, folder, { recursive: true });
  await migrate(pool, silent, folder);
  const before = await tables();
  await writeFile(join(folder, '000001_evidence.sql'), 'select 1');
  await writeFile(join(folder, '900000_new.sql'), 'create table added (n integer)');
  await expect(migrate(pool, silent, folder)).rejects.toMatchObject({
    code: 'SRP_INTEGRITY_MIGRATION',
    message: expect.stringContaining('000001_evidence.sql'),
  });
  expect(await tables()).toEqual(before);
});

test('a database of a newer program is refused', async () => {
  await cp(migrationsFolder, folder, { recursive: true });
  await writeFile(join(folder, '900000_newer.sql'), 'create table added (n integer)');
  await migrate(pool, silent, folder);
  await expect(migrate(pool, silent)).rejects.toMatchObject({
    code: 'SRP_INTEGRITY_MIGRATION',
    message: expect.stringContaining('900000_newer.sql'),
  });
});

test('a migration that fails leaves nothing of itself and is applied when it is repaired', async () => {
  await writeFile(join(folder, '000001_good.sql'), 'create table good (n integer)');
  await writeFile(join(folder, '000002_bad.sql'), 'create table half (n integer); select nonsense;');
  await expect(migrate(pool, silent, folder)).rejects.toMatchObject({ code: 'SRP_DEP_MIGRATION' });
  expect(await tables()).toEqual(['good', 'schema_migrations']);
  await writeFile(join(folder, '000002_bad.sql'), 'create table half (n integer)');
  expect(await migrate(pool, silent, folder)).toEqual(['000002_bad.sql']);
});

test('of waivers that were decided before, each of those who decided asked for the end that counts', async () => {
  for (const name of (await readdir(migrationsFolder)).sort().slice(0, 14)) {
    await cp(join(migrationsFolder, name), join(folder, name));
  }
  await migrate(pool, silent, folder);
  await pool.query(`insert into waivers (waiver_id, family, kind, target, reason, expires_at, decided_by)
    values ('w-1', 'ips', 'exclude', 'suricata-5.0.2-00000000', 'lab', '2027-01-31T00:00:00Z', '{ann,bob}')`);
  expect((await migrate(pool, silent))[0]).toBe('000015_waiver_ends.sql');
  const end = '2027-01-31T00:00:00.000Z';
  expect(await readWaivers(pool, 'ips')).toMatchObject([{ expiresAt: end, askedUntil: [end, end], withdrawn: null }]);
});

// ---- every statement against the schema

/** All canaries crash: HOLD and HALT. The last window still waits. */
const judged = () => {
  const session = newSession('r1');
  const windows = foldLog(crashStory(4)).windows;
  for (const window of windows) acceptWindow(session, window, digestOf(window));
  const context = { digestOf, codeVersion: 'test' };
  const results = foldTicks(session, context);
  const last = windows.at(-1) as Window;
  const next = { ...last, tick: last.tick + 1 };
  const waiting: PendingWindow = { window: next, digest: digestOf(next) };
  acceptWindow(session, next, waiting.digest);
  return { session, results, windows, waiting };
};

/** Named after the function whose statements it runs: what is written is read again. */
const statements: Readonly<Record<string, () => Promise<void>>> = {
  'saveDevices createInventory isEnrolled': async () => {
    const row = (deviceId: string, contentVersion: number, describedAt: number): DeviceRow => ({
      ...{ deviceId, engine: engineA, failMode: 'fail-open', contentVersion, describedAt },
    });
    const inventory = createInventory(pool);
    const versions = async () => (await allOf(inventory.devices())).map((one) => [one.deviceId, one.contentVersion]);
    await saveDevices(pool, []);
    await saveDevices(pool, [row('b', 1, 7), row('a', 1, 5)]);
    const { describedAt: _describedAt, ...device } = row('a', 1, 5);
    expect((await allOf(inventory.devices()))[0]).toEqual(device);
    await saveDevices(pool, [{ ...row('c', 1, 5), site: 'pair' }]);
    expect((await allOf(inventory.devices()))[2]).toEqual({ ...device, deviceId: 'c', site: 'pair' });
    await pool.query(`delete from devices where device_id = 'c'`);
    expect([await isEnrolled(pool, 'a'), await isEnrolled(pool, 'c')]).toEqual([true, false]);
    // A process that lost the partition writes late: what a later poll said stays.
    await saveDevices(pool, [row('a', 2, 9), row('b', 2, 6)]);
    expect(await versions()).toEqual([
      ['a', 2],
      ['b', 1],
    ]);
  },
  'readSession commitBatch readFoldedDigest readArrivedPartitions createEvidenceReader readEvidence': async () => {
    const { session, results, windows, waiting } = judged();
    expect(await readSession(pool, 'r1', digestOf)).toBeNull();
    expect(await createEvidenceReader(pool).judgeStatus('r1')).toBeNull();
    const place = { topic: 'windows', partition: 3, from: 0, to: 5 };
    await commitBatch(pool, place, [{ session, results, waiting: [waiting], changed: true }]);
    expect(await readSession(pool, 'r1', digestOf)).toEqual(session);
    expect(await readEvidence(pool, 'r1')).toEqual(results.map((result) => result.evidence));
    expect(await createEvidenceReader(pool).judgeStatus('r1')).toEqual(results.at(-1)?.status);
    expect(await readFoldedDigest(pool, 'r1', 1, 0)).toBe(digestOf(windows[1]));
    expect(await readFoldedDigest(pool, 'r1', 1, 7)).toBeNull();
    const { tick, partition } = waiting.window;
    expect(await readArrivedPartitions(pool, 'r1', tick)).toEqual([partition]);
    expect(await readArrivedPartitions(pool, 'r1', tick - 1)).toEqual([]);
    expect(await readWatermark(pool, 'judge', 'windows', 3)).toBe(5);
    // Another judge went on meanwhile: nothing of this batch is written.
    await expect(commitBatch(pool, place, [])).rejects.toMatchObject({ code: 'SRP_INTEGRITY_WATERMARK' });
    // A judge that takes no window any more says why, also where no tick was ever folded.
    const refusing = ['r1', 'r-none'].map((releaseId) => ({
      ...{ session: { ...newSession(releaseId), refused: 'a fork' }, results: [], waiting: [], changed: true },
    }));
    await commitBatch(pool, { ...place, from: 5, to: 6 }, refusing);
    const lastTick = results.at(-1)?.status.lastTick;
    expect(await createEvidenceReader(pool).judgeStatus('r1')).toMatchObject({ lastTick, refused: 'a fork' });
    expect(await createEvidenceReader(pool).judgeStatus('r-none')).toMatchObject({ lastTick: -1, refused: 'a fork' });
  },
  'readDecisionsToNotify markNotified': async () => {
    const decisions = await readDecisionsToNotify(pool);
    const verdicts = judged().results.flatMap((result) => result.verdicts);
    expect(verdicts.map(({ kind }) => kind)).toEqual(['halt', 'hold', 'hold']);
    expect(decisions).toEqual(verdicts.map((verdict) => ({ releaseId: 'r1', verdict })));
    for (const decision of decisions) await markNotified(pool, decision);
    expect(await readDecisionsToNotify(pool)).toEqual([]);
  },
  'saveRelease readRelease listReleases createReleaseHistory saveEvent readEventHash': async () => {
    const place = { partition: 2, offset: '9007199254740993' }; // beyond what a double holds
    for (const id of ['r-1', 'r-2']) {
      const events = streamOf(id);
      const head = events.at(-1);
      const state = foldEvents(events);
      if (!head || !state) throw new Error('an empty stream');
      for (const event of events) await saveEvent(pool, event, place);
      await saveRelease(pool, { state, headHash: head.hash });
      await saveRelease(pool, { state, headHash: head.hash });
      expect(await readRelease(pool, id)).toEqual({ state, headHash: head.hash });
      expect(await readEventHash(pool, id, head.seq)).toBe(head.hash);
      expect(await readEventHash(pool, id, head.seq + 1)).toBeNull();
    }
    expect(await readRelease(pool, 'r-3')).toBeNull();
    const list = async (filter: Partial<Parameters<typeof listReleases>[1]>) =>
      (await listReleases(pool, { limit: 10, ...filter })).map((state) => state.releaseId);
    expect(await list({})).toEqual(['r-1', 'r-2']);
    expect(await list({ limit: 1, family: 'ips', phases: ['completed'] })).toEqual(['r-1']);
    expect(await list({ family: 'other' })).toEqual([]);
    expect(await list({ phases: ['halted'] })).toEqual([]);
    // What an engine was shipped: by completed releases of the family, and by no others.
    const ended = foldEvents(streamOf('r-4')) as ReleaseState;
    const shipped = (feature: string) => [{ engine: 'suricata-6.0.1-38aa2c1f', features: [feature] }];
    const family = 'shipped';
    for (const [releaseId, change] of Object.entries({
      'r-4': { family, firstUse: shipped('one') },
      'r-5': { family, firstUse: [] },
      'r-6': { family, firstUse: shipped('two') },
      'r-7': { family, firstUse: shipped('never'), phase: 'halted' as const },
      'r-8': { family: 'elsewhere', firstUse: shipped('other') },
    }))
      await saveRelease(pool, { state: { ...ended, ...change, releaseId }, headHash: 'a'.repeat(64) });
    const known = await createReleaseHistory(pool).firstUses(family);
    expect(known.flatMap(({ features }) => features).sort()).toEqual(['one', 'two']);
    const sourceAt = (time: number) => createReleaseHistory(pool).sourceAt(family, time);
    const completedAt = Date.parse(ended.changedAt);
    expect(await sourceAt(completedAt)).toBe(ended.sourceDigest);
    expect(await sourceAt(completedAt - 1)).toBeNull();
  },
  'quarantine readQuarantine': async () => {
    const found = { releaseId: 'r-1', seq: null, kind: 'undecodable', words: 'not JSON' } as const;
    const place = { partition: 2, offset: '9007199254740993' };
    await quarantine(pool, found, place);
    await quarantine(pool, found, place);
    expect(await readQuarantine(pool, 'r-1')).toEqual([{ ...found, ...place }]);
  },
  'writeSnapshot readSnapshot': async () => {
    // A part of a larger buffer, as typed arrays often are.
    const write = (nextOffset: number, state: number) =>
      writeSnapshot(pool, {
        ...{ topic: 'reports', partition: 1, nextOffset },
        state: new Uint8Array([7, 0, 255, state, 7]).subarray(1, 4),
      });
    const read = async () => [...((await readSnapshot(pool, 'reports', 1)) ?? [])];
    expect(await readSnapshot(pool, 'reports', 1)).toBeNull();
    await write(10, 10);
    await write(9, 9);
    expect(await read()).toEqual([0, 255, 10]);
    await write(11, 11);
    expect(await read()).toEqual([0, 255, 11]);
  },
  'createWaivers readWaivers changeWaivers': async () => {
    const plain: Waiver = {
      ...{ waiverId: 'w-1', family: 'ips', kind: 'exclude', target: 'suricata-5.0.2-00000000', sourceDigest: null },
      ...{ reason: 'lab', expiresAt: '2027-01-31T00:00:00.000Z', by: ['ann'] },
    };
    const waiver = { ...plain, askedUntil: [plain.expiresAt], withdrawn: null };
    const waivers = createWaivers(pool);
    expect(await changeWaivers(pool, 'ips', () => ({ waivers: [] }))).toEqual({ waivers: [] });
    // Who decides sees what others decided, also when all decide at once.
    const seen = await Promise.all(
      ['ann', 'bob', 'eve'].map((by) =>
        changeWaivers(pool, 'ips', (known) => ({ waivers: [{ ...waiver, by: [...(known[0]?.by ?? []), by] }] })),
      ),
    );
    expect(seen.map((one) => one.waivers[0]?.by.length).sort()).toEqual([1, 2, 3]);
    const [stored] = await waivers.list('ips');
    expect(stored).toEqual({ ...plain, by: expect.arrayContaining(['ann', 'bob', 'eve']) });
    const withdrawn = { by: 'eve', reason: 'no need', at: '2026-11-30T10:00:00.000Z' };
    await changeWaivers(pool, 'ips', (known) => ({ waivers: known.map((one) => ({ ...one, withdrawn })) }));
    // Whoever tests or releases does not see it any more.
    expect(await waivers.list('ips')).toEqual([]);
    expect(await readWaivers(pool, 'ips')).toEqual([{ ...stored, askedUntil: waiver.askedUntil, withdrawn }]);
    expect(await waivers.list('yara')).toEqual([]);
  },
  createAcknowledgements: async () => {
    const acknowledgements = createAcknowledgements(pool);
    const granted = (sequence: number, until: number) => ({ deviceId: 'fw-1', sequence, until });
    expect(await acknowledgements.grant([granted(5, 100)])).toEqual([granted(5, 100)]);
    // Asked again it is the first answer; what is older than that has none.
    expect(await acknowledgements.grant([granted(5, 200)])).toEqual([granted(5, 100)]);
    expect(await acknowledgements.grant([granted(4, 200)])).toEqual([]);
    expect(await acknowledgements.grant([granted(6, 300)])).toEqual([granted(6, 300)]);
  },
  'revokeDevice restoreDevice readRevoked listRevocations': async () => {
    const said = { by: 'ann', reason: 'stolen' };
    const inForce = async () => [...(await readRevoked(pool))];
    expect(await restoreDevice(pool, 'a', said)).toBeNull();
    expect(await revokeDevice(pool, 'a', said)).toMatchObject({ deviceId: 'a', ...said, restored: null });
    expect(await revokeDevice(pool, 'a', { by: 'bob', reason: 'again' })).toBeNull();
    expect(await inForce()).toEqual([['a', 'stolen']]);
    const found = { by: 'bob', reason: 'found' };
    const restored = await restoreDevice(pool, 'a', found);
    expect(restored).toMatchObject({ deviceId: 'a', ...said, restored: found });
    expect(await inForce()).toEqual([]);
    expect(await revokeDevice(pool, 'a', said)).toMatchObject({ restored: null });
    const all = await listRevocations(pool);
    expect(all).toEqual([expect.objectContaining({ restored: null }), restored]);
  },
  createWatches: async () => {
    const watches = createWatches(pool);
    expect(await watches.lastSeen('r-1')).toBeNull();
    await watches.note('r-1', 1_800_000_000_000);
    await watches.note('r-1', 1_700_000_000_000);
    // A clock that was ahead has been set right.
    expect(await watches.lastSeen('r-1')).toBe(1_700_000_000_000);
  },
  createDeviceSites: async () => {
    const sites = createDeviceSites(pool);
    expect(await sites.pin([{ deviceId: 'placed', site: 'x' }])).toEqual([{ deviceId: 'placed', site: 'x' }]);
    expect(await sites.pin([{ deviceId: 'placed', site: null }])).toEqual([{ deviceId: 'placed', site: 'x' }]);
    // A device that was moved is revoked and restored, which frees its site.
    const moved = { by: 'ann', reason: 'moved' };
    expect(await revokeDevice(pool, 'placed', moved)).not.toBeNull();
    expect(await restoreDevice(pool, 'placed', moved)).not.toBeNull();
    const free = [{ deviceId: 'placed', site: 'y' }];
    expect(await sites.pin(free)).toEqual(free);
  },
  'moveWatermark readWatermark withTransaction': async () => {
    const place = { consumer: 'projector', topic: 'events', partition: 0 };
    const read = () => readWatermark(pool, place.consumer, place.topic, place.partition);
    expect(await read()).toBe(0);
    await withTransaction(pool, (tx) => moveWatermark(tx, { ...place, from: 0, to: 4 }));
    await expect(withTransaction(pool, (tx) => moveWatermark(tx, { ...place, from: 3, to: 8 }))).rejects.toMatchObject({
      code: 'SRP_INTEGRITY_WATERMARK',
    });
    expect(await read()).toBe(4);
    await withTransaction(pool, async (tx) => {
      await moveWatermark(tx, { ...place, from: 4, to: 8 });
      throw new Error('the work failed');
    }).catch(() => {});
    expect(await read()).toBe(4);
  },
};

test('every function of infra/postgres runs against the schema and reads what it wrote', async () => {
  await migrate(pool, silent);
  for (const run of Object.values(statements)) await run();
  const files = (await readdir(postgresFolder)).filter((file) => file.endsWith('.ts'));
  const modules = await Promise.all(files.map((file) => import(join(postgresFolder, file))));
  const exported = modules.flatMap((module) => Object.keys(module));
  const covered = [
    ...Object.keys(statements).flatMap((names) => names.split(' ')),
    'migrate',
    'createPool',
    'isDataError',
    'isAway',
  ];
  expect(exported.filter((name) => !covered.includes(name))).toEqual([]);
});
