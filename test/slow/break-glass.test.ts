/** The last way to stop: keys and files. Nothing else runs here, and nothing that the command is told leads to a server. */
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { DirectorStore } from '../../domain/ports.ts';
import { createFileBlobs } from '../../infra/store/blobs.ts';
import { createDirectorStore } from '../../infra/tuf/director-store.ts';
import { runCli } from '../support/cli.ts';
import { engineA } from '../support/devices.ts';

let root: string;
let store: string;
let keys: string;
let director: DirectorStore;
const content = { contentVersion: 2, releaseId: 'r1', artefacts: [] };
const lease = { startedAt: 0, leaseMs: 60_000, freshMs: 10_000, clearedCells: [] };

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'sigrel-break-glass-'));
  [store, keys] = [join(root, 'store'), join(root, 'keys')];
  director = createDirectorStore({
    ...{ dir: store, keysDir: keys, blobs: createFileBlobs(join(store, 'blobs')), now: Date.now },
  });
  await director.initialiseFamily('ips', [{ engine: engineA, bytes: new Uint8Array(1) }]);
  const rollout = { content, salt: 's', stage: 0, thresholds: { 'a/fail-open': 2 ** 31 }, lease };
  await director.change('ips', (current) => ({ ...current, mode: 'rolling', rollout }), { expiresInMs: 60_000 });
});
afterAll(async () => {
  await rm(root, { recursive: true, force: true });
});

const nowhere = {
  SIGREL_STATE_DIR: '/nonexistent/sigrel',
  SIGREL_API_URL: 'http://127.0.0.1:9',
  SIGREL_TEMPORAL_ADDRESS: '127.0.0.1:9',
  SIGREL_KAFKA_BROKERS: '127.0.0.1:9',
  SIGREL_POSTGRES_URL: 'postgres://nobody@127.0.0.1:9/none',
};
const run = (command: string, ...more: readonly string[]) =>
  runCli(['director', command, 'ips', '--store', store, '--keys', keys, ...more], nowhere);

test('freezes, shows and thaws with nothing but the keys and the store', async () => {
  const frozen = await run('freeze', '--reason', 'everything burns', '--by', 'sam');
  expect(frozen).toMatchObject({ code: 0, out: expect.stringContaining('nobody newly takes anything of ips') });
  const { document, freeze } = await director.read('ips');
  expect(freeze).toMatchObject({ by: 'sam', reason: 'everything burns', until: null });
  expect(document).toMatchObject({ mode: 'rolling', freezeId: freeze?.freezeId });
  expect(await director.renew('ips', document.directorVersion, 60_000)).toBe(true); // grants nothing
  expect((await director.read('ips')).document.freezeId).toBe(freeze?.freezeId);

  const again = await run('freeze', '--reason', 'still burns', '--by', 'ann');
  expect(again.out).toMatch(/it takes the place of the freeze by sam since .*: everything\s+burns/);
  expect((await director.read('ips')).freeze).toMatchObject({ by: 'ann', reason: 'still burns' });

  const shown = await run('show', '--json');
  expect(JSON.parse(shown.out)).toMatchObject({ document: { mode: 'rolling' }, stopped: false, freeze: { by: 'ann' } });
  expect((await run('show')).out).toMatch(/frozen +by ann since .*: still burns/);

  expect(await run('thaw')).toMatchObject({ code: 0, out: expect.stringContaining('frozen by ann') });
  const thawed = await director.read('ips');
  expect(thawed.freeze).toBeNull();
  expect(thawed.expiresAt).toBeLessThanOrEqual(Date.now()); // a lease that is over: somebody has to renew it
  expect(await run('thaw')).toMatchObject({ code: 1, err: /SRP_RULE_NOT_FROZEN: family "ips" is not frozen/ });
});

test('says what is missing, and without the keys the marker alone stops every renewal', async () => {
  expect(await run('freeze', '--reason', ' ')).toMatchObject({
    code: 2,
    err: expect.stringMatching(/'--reason <text>'.*expected the reason/),
  });
  const other = await runCli(['director', 'freeze', 'av', '--store', store, '--keys', keys, '--reason', 'r'], nowhere);
  expect(other).toMatchObject({ code: 1, err: expect.stringContaining('SRP_MISSING_FAMILY') });
  const { document } = await director.read('ips');
  await director.renew('ips', document.directorVersion, 60_000);
  await rename(join(keys, 'timestamp.pem'), join(keys, 'timestamp.away'));
  const failed = await run('freeze', '--reason', 'no key');
  expect(failed.code).toBe(1);
  expect(failed.err).toMatch(/the marker stands: nothing renews the lease \(its end: .*SRP_MISSING_KEY/);
  await rename(join(keys, 'timestamp.away'), join(keys, 'timestamp.pem'));
  expect(await director.renew('ips', document.directorVersion, 60_000)).toBe(false);
  await run('thaw');
});

test('a hand and a text editor are enough: a file with that name stops renewals', async () => {
  const { document } = await director.read('ips');
  expect(await director.renew('ips', document.directorVersion, 60_000)).toBe(true);
  await writeFile(join(store, 'frozen-ips.json'), '');
  expect(await director.renew('ips', document.directorVersion, 60_000)).toBe(false);
});
