import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { alarmsOf } from '../../domain/alarms.ts';
import type { DirectorDocument } from '../../domain/director.ts';
import type { DirectorStore } from '../../domain/ports.ts';
import type { Artefact, Content } from '../../domain/release.ts';
import { createFileBlobs } from '../../infra/store/blobs.ts';
import { openRepository, type Poll } from '../../infra/tuf/client.ts';
import { createDirectorStore } from '../../infra/tuf/director-store.ts';
import { readSigner } from '../../infra/tuf/keys.ts';

const engine = { name: 'suricata', version: '7.0.10', packageVersion: '1:7.0.10-1', digest: 'a'.repeat(64) };
const text = (value: string) => new TextEncoder().encode(value);
const week = 7 * 24 * 3_600_000;

let root: string;
let dir: string;
let number = 0;
let clock = Date.now();
let store: DirectorStore;
let blobs: ReturnType<typeof createFileBlobs>;
let server: Server;
let baseUrl: string;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'sigrel-tuf-'));
  server = createServer(async (request, response) => {
    const file = await readFile(join(dir, 'repository', decodeURIComponent(request.url ?? ''))).catch(() => null);
    response.writeHead(file ? 200 : 404).end(file);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  baseUrl = `http://127.0.0.1:${typeof address === 'object' ? address?.port : 0}`;
});
afterAll(async () => {
  server.closeAllConnections();
  server.close();
  await rm(root, { recursive: true, force: true });
});
beforeEach(async () => {
  number += 1;
  dir = join(root, String(number));
  clock = Date.now();
  blobs = createFileBlobs(join(dir, 'blobs'));
  store = createDirectorStore({ dir, keysDir: join(root, 'keys'), blobs, now: () => clock });
  await store.initialiseFamily('ips', [{ engine, bytes: text('baseline') }]);
});

const contentOf = async (version: number, releaseId: string, body: string): Promise<Content> => {
  const sha256 = await blobs.put(text(body));
  const id = 'suricata-7.0.10-aaaaaaaa';
  const artefact: Artefact = { engine: id, path: `content/ips/${version}/${id}.rules`, sha256, length: body.length };
  return { contentVersion: version, releaseId, artefacts: [artefact] };
};
const lease = { startedAt: 0, leaseMs: 60_000, freshMs: 10_000, clearedCells: [] };
const rolling =
  (content: Content, threshold: number, stage = 0) =>
  (current: DirectorDocument): Omit<DirectorDocument, 'directorVersion'> => ({
    ...current,
    mode: 'rolling',
    rollout: { content, salt: 's', stage, thresholds: { seg: threshold }, lease },
  });
const openClient = async () =>
  openRepository({
    baseUrl,
    dir: join(dir, 'client'),
    trustedRoot: await readFile(join(dir, 'repository', 'metadata', '1.root.json')),
  });
const documentOf = (poll: Poll): DirectorDocument => {
  if (poll.kind !== 'document') throw new Error(poll.why);
  return poll.document;
};

describe('the store', () => {
  test('begins with the baseline, says so again, and refuses another one', async () => {
    expect(await store.families()).toEqual(['ips']);
    expect((await store.read('ips')).document).toMatchObject({
      directorVersion: 1,
      mode: 'steady',
      steady: { contentVersion: 1 },
    });
    await store.initialiseFamily('ips', [{ engine, bytes: text('baseline') }]);
    await expect(store.initialiseFamily('ips', [{ engine, bytes: text('other') }])).rejects.toMatchObject({
      code: 'SRP_RULE_FAMILY_EXISTS',
    });
    await expect(store.read('av')).rejects.toMatchObject({ code: 'SRP_MISSING_FAMILY' });
    await store.initialiseFamily('av', [{ engine, bytes: text('signatures') }]);
    expect(await store.families()).toEqual(['av', 'ips']);
  });

  test('gives every release its own versions, and the same ones when asked again', async () => {
    expect(await store.nextContentVersion('ips', 'r1')).toBe(2);
    expect(await store.nextContentVersion('ips', 'r2')).toBe(4);
    expect(await store.nextContentVersion('ips', 'r1')).toBe(2);
  });

  test('publishes only what was signed, two of three', async () => {
    const contents = [await contentOf(2, 'r1', 'new'), await contentOf(3, 'r1', 'baseline')];
    await expect(store.publishContent('ips', contents)).rejects.toMatchObject({ code: 'SRP_RULE_NOT_SIGNED' });
    const signed = await store.signContent('ips', contents);
    expect(signed).toMatchObject({
      threshold: 2,
      signatures: [{ signer: 'content-ips-key-1' }, { signer: 'content-ips-key-2' }],
    });
    const published = await store.publishContent('ips', contents);
    expect(await store.publishContent('ips', contents)).toEqual(published);
  });

  describe('a frozen family', () => {
    const freeze = (freezeId: string) => ({
      ...{ freezeId, reason: 'complaints', by: 'sam', at: new Date(clock).toISOString(), until: null },
    });
    test('grants nothing from the moment of the freeze, keeps everything else, and stays verifiable', async () => {
      const content = await contentOf(2, 'r1', 'new');
      const before = await store.change('ips', rolling(content, 10), { expiresInMs: 60_000 });
      const frozen = await store.freeze('ips', freeze('f1'));
      expect(frozen.document).toEqual({ ...before.document, directorVersion: 3, freezeId: 'f1' });
      expect(await store.freeze('ips', freeze('f1'))).toMatchObject({ document: frozen.document });
      const read = await store.read('ips');
      expect(read).toMatchObject({ freeze: freeze('f1'), stopped: false });
      expect(read.expiresAt).toBeGreaterThan(clock + week - 2_000);
      expect(await store.renew('ips', 3, week)).toBe(true);
      expect((await store.read('ips')).document.freezeId).toBe('f1');
    });

    test('gets no more exposure, and no other change lifts the freeze: not even the end of a pause', async () => {
      const content = await contentOf(2, 'r1', 'new');
      await store.freeze('ips', freeze('f1'));
      const open = store.change('ips', rolling(content, 10), { expiresInMs: 60_000 });
      await expect(open).rejects.toMatchObject({ code: 'SRP_HOLD_FROZEN' });
      await store.thaw('ips', 'f1');
      await store.change('ips', rolling(content, 10), { expiresInMs: 60_000 });
      await store.change('ips', (current) => ({ ...current, mode: 'frozen' }), { expiresInMs: week, stop: 'set' });
      await store.freeze('ips', freeze('f2'));
      const resume = store.change('ips', (current) => ({ ...current, mode: 'rolling' }), {
        ...{ expiresInMs: 60_000, stop: 'clear' },
      });
      await expect(resume).rejects.toMatchObject({ code: 'SRP_HOLD_FROZEN' });
      expect(await store.read('ips')).toMatchObject({ stopped: true, document: { mode: 'frozen', freezeId: 'f2' } });
      // Exposure down is never in the way of a freeze, nor does it end one.
      const back = await contentOf(3, 'r1', 'baseline');
      await store.change('ips', (current) => ({ ...current, mode: 'rollback', rollback: back }), {
        ...{ expiresInMs: week, stop: 'clear' },
      });
      expect(await store.read('ips')).toMatchObject({ stopped: false, document: { mode: 'rollback', freezeId: 'f2' } });
    });

    test('is thawed into a lease that is over, and by the freeze that stands only', async () => {
      const content = await contentOf(2, 'r1', 'new');
      await store.change('ips', rolling(content, 10), { expiresInMs: 60_000 });
      await store.freeze('ips', freeze('f1'));
      await store.freeze('ips', freeze('break-glass'));
      expect(await store.thaw('ips', 'f1')).toMatchObject({ thawed: false, freeze: { freezeId: 'break-glass' } });
      expect(await store.thaw('ips', null)).toMatchObject({ thawed: true });
      const { document, expiresAt, freeze: none } = await store.read('ips');
      expect(none).toBeNull();
      expect(document).toMatchObject({ mode: 'rolling', rollout: { thresholds: { seg: 10 } } });
      expect(document).not.toHaveProperty('freezeId');
      expect(expiresAt).toBeLessThanOrEqual(clock);
      expect((await (await openClient()).poll('ips')).kind).toBe('no-offer');
      expect(await store.renew('ips', document.directorVersion, 60_000)).toBe(true);
      expect(await store.thaw('ips', null)).toMatchObject({ thawed: false });
    });

    test('is thawed into a lease that is over also by a clock that is an hour fast', async () => {
      const content = await contentOf(2, 'r1', 'new');
      await store.change('ips', rolling(content, 10), { expiresInMs: 60_000 });
      await store.freeze('ips', freeze('f1'));
      const fast = createDirectorStore({ dir, keysDir: join(root, 'keys'), blobs, now: () => clock + 3_600_000 });
      expect(await fast.thaw('ips', 'f1')).toMatchObject({ thawed: true, document: { mode: 'rolling' } });
      const { expiresAt, signedAt } = await store.read('ips');
      expect(expiresAt).toBeLessThan(clock);
      expect(signedAt).toBeGreaterThan(clock - 60_000); // since when somebody may ask why nobody renews it
      expect((await (await openClient()).poll('ips')).kind).toBe('no-offer');
    });

    test('is frozen by the marker alone when nothing can be signed, and stays so when the marker is taken away', async () => {
      const content = await contentOf(2, 'r1', 'new');
      const { document } = await store.change('ips', rolling(content, 10), { expiresInMs: 60_000 });
      const keyless = createDirectorStore({ dir, keysDir: join(root, 'no-keys'), blobs, now: () => clock });
      await expect(keyless.freeze('ips', freeze('f1'))).rejects.toMatchObject({ code: 'SRP_MISSING_KEY' });
      expect(await store.renew('ips', document.directorVersion, 60_000)).toBe(false);
      await expect(store.change('ips', rolling(content, 20), { expiresInMs: 60_000 })).rejects.toMatchObject({
        code: 'SRP_HOLD_FROZEN',
      });
      await store.freeze('ips', freeze('f1'));
      await rm(join(dir, 'frozen-ips.json'));
      await expect(store.change('ips', rolling(content, 20), { expiresInMs: 60_000 })).rejects.toMatchObject({
        code: 'SRP_HOLD_FROZEN',
      });
      await writeFile(join(dir, 'frozen-ips.json'), 'stop!');
      expect((await store.read('ips')).freeze).toMatchObject({ freezeId: 'unreadable' });
    });
  });

  describe('a freeze that was written by hand', () => {
    const none = { freezeId: 'unreadable', by: 'unknown', at: '1970-01-01T00:00:00.000Z', until: null };
    const unsaid = { ...none, reason: 'its file says no reason' };
    const unread = { ...none, reason: expect.stringContaining('cannot be read') };
    test.each([
      ['a number for an id', '{"freezeId":1.5}', unsaid],
      ['an object for an id', '{"freezeId":{"a":0.5}}', unsaid],
      ['a time that is none', '{"at":"today","reason":"r"}', { ...unsaid, reason: 'r' }],
      ['an end that is none', '{"until":"tomorrow","by":"sam"}', { ...unsaid, by: 'sam' }],
      ['an end that is a number', '{"until":12}', unsaid],
      ['a time in other words', '{"at":"28 Nov 2026 10:00 UTC"}', { ...unsaid, at: '2026-11-28T10:00:00.000Z' }],
      [
        'half a character',
        '{"reason":"\\ud800","freezeId":"\\ud800"}',
        { ...unsaid, reason: '\ufffd', freezeId: '\ufffd' },
      ],
      ['fields that it does not have', '{"reason":"r","x":0.5}', { ...unsaid, reason: 'r' }],
      ['a string', '"stop"', unsaid],
      ['null', 'null', unread],
      ['no JSON', 'stop!', unread],
      ['nothing', '', unread],
    ])('holds, and is in the way of no other stop: %s', async (_, file, expected) => {
      const content = await contentOf(2, 'r1', 'new');
      await store.change('ips', rolling(content, 10), { expiresInMs: 60_000 });
      await writeFile(join(dir, 'frozen-ips.json'), file);
      const read = await store.read('ips');
      expect(read.freeze).toEqual(expected);
      expect(alarmsOf({ ...read, evidence: null, partitions: 4 }, clock + week * 52)).toContainEqual(
        expect.objectContaining({ kind: 'freeze-old', observed: expect.toSatisfy(Number.isFinite), limit: 86_400_000 }),
      );
      expect(await store.renew('ips', read.document.directorVersion, 60_000)).toBe(false);
      const { document } = await store.change('ips', (current) => ({ ...current, mode: 'frozen' }), {
        ...{ expiresInMs: week, stop: 'set' },
      });
      expect(document).toMatchObject({ mode: 'frozen', freezeId: expected.freezeId });
      expect(await store.thaw('ips', null)).toMatchObject({ thawed: true });
      expect((await store.read('ips')).freeze).toBeNull();
    });
    test('holds as a folder, too', async () => {
      await mkdir(join(dir, 'frozen-ips.json'));
      expect((await store.read('ips')).freeze).toEqual(unread);
      await store.change('ips', (current) => ({ ...current }), { expiresInMs: week });
      expect(await store.thaw('ips', null)).toMatchObject({ thawed: true });
      expect((await store.read('ips')).freeze).toBeNull();
    });
  });

  test('a lease counts from when its evidence was looked at, not from when it was signed', async () => {
    const asOf = Math.floor(Date.now() / 1_000) * 1_000 - 5_000;
    const content = await contentOf(2, 'r1', 'new');
    const { document } = await store.change('ips', rolling(content, 10), { expiresInMs: 60_000, asOf });
    expect((await store.read('ips')).expiresAt).toBe(asOf + 60_000);
    await store.renew('ips', document.directorVersion, 90_000, asOf);
    expect((await store.read('ips')).expiresAt).toBe(asOf + 90_000);
  });

  test('a stop marker holds against openings and renewals until it is lifted', async () => {
    const content = await contentOf(2, 'r1', 'new');
    const { document } = await store.change('ips', rolling(content, 10), { expiresInMs: 60_000 });
    expect(await store.renew('ips', document.directorVersion, 60_000)).toBe(true);
    await store.change('ips', (current) => ({ ...current, mode: 'frozen' }), { expiresInMs: week, stop: 'set' });
    expect((await store.read('ips')).stopped).toBe(true);
    // A frozen document grants nothing: it may live on. One that still rolls may not.
    expect(await store.renew('ips', document.directorVersion + 1, 60_000)).toBe(true);
    await expect(store.change('ips', rolling(content, 10), { expiresInMs: 60_000 })).rejects.toMatchObject({
      code: 'SRP_RULE_STOPPED',
    });
    await store.change('ips', rolling(content, 10), { expiresInMs: 60_000, stop: 'clear' });
    expect(await store.read('ips')).toMatchObject({ stopped: false, document: { mode: 'rolling' } });
    const { document: open } = await store.read('ips');
    await store.change('ips', () => null, { expiresInMs: week, stop: 'set' });
    expect(await store.renew('ips', open.directorVersion, 60_000)).toBe(false);
    const complete = (current: DirectorDocument) => ({
      ...current,
      mode: 'steady' as const,
      steady: content,
      rollout: null,
    });
    await expect(store.change('ips', complete, { expiresInMs: week })).rejects.toMatchObject({
      code: 'SRP_RULE_STOPPED',
    });
  });

  test('a lease that is cut short is cut short under a stop marker, too, and not made longer', async () => {
    const content = await contentOf(2, 'r1', 'new');
    const { document } = await store.change('ips', rolling(content, 10), { expiresInMs: 3_600_000 });
    await store.change('ips', () => null, { expiresInMs: week, stop: 'set' });
    expect(await store.renew('ips', document.directorVersion, 60_000)).toBe(true);
    expect((await store.read('ips')).expiresAt).toBeLessThanOrEqual(clock + 60_000);
    expect(await store.renew('ips', document.directorVersion, 60_000)).toBe(false);
  });

  test('a stop for one release does not touch another one that is rolling out', async () => {
    await store.change('ips', rolling(await contentOf(2, 'r1', 'new'), 10), { expiresInMs: 60_000 });
    const before = await store.read('ips');
    const options = { expiresInMs: week, stop: 'set', unlessRolling: 'r2' } as const;
    await store.change('ips', (current) => ({ ...current, mode: 'frozen' }), options);
    expect(await store.read('ips')).toEqual(before);
    await store.change('ips', (current) => ({ ...current, mode: 'frozen' }), { ...options, unlessRolling: 'r1' });
    expect(await store.read('ips')).toMatchObject({ stopped: true, document: { mode: 'frozen' } });
  });

  test('a content version is never signed twice with different content', async () => {
    await store.signContent('ips', [await contentOf(2, 'r1', 'new')]);
    await store.publishContent('ips', [await contentOf(2, 'r1', 'new')]);
    await store.signContent('ips', [await contentOf(2, 'r1', 'new')]);
    await expect(store.signContent('ips', [await contentOf(2, 'r1', 'other')])).rejects.toMatchObject({
      code: 'SRP_RULE_CONTENT_EXISTS',
    });
  });

  test('a key that is missing is named, and nothing is signed with a new one', async () => {
    const keysDir = join(dir, 'own-keys');
    const own = createDirectorStore({ dir: join(dir, 'own'), keysDir, blobs, now: () => clock });
    await own.initialiseFamily('ips', [{ engine, bytes: text('baseline') }]);
    await rm(join(keysDir, 'content-ips-key-2.pem'));
    await rm(join(keysDir, 'director-ips.pem'));
    const missing = { code: 'SRP_MISSING_KEY', message: expect.stringContaining('content-ips-key-2.pem') };
    await expect(own.signContent('ips', [await contentOf(2, 'r1', 'new')])).rejects.toMatchObject(missing);
    const freeze = (current: DirectorDocument) => ({ ...current, mode: 'frozen' as const });
    await expect(own.change('ips', freeze, { expiresInMs: week })).rejects.toMatchObject({ code: 'SRP_MISSING_KEY' });
  });

  test('a renewal of an older document changes nothing', async () => {
    const content = await contentOf(2, 'r1', 'new');
    const first = await store.change('ips', rolling(content, 10), { expiresInMs: 60_000 });
    await store.change('ips', rolling(content, 20, 1), { expiresInMs: 60_000 });
    expect(await store.renew('ips', first.document.directorVersion, 60_000)).toBe(false);
    expect((await store.read('ips')).document.rollout?.thresholds).toEqual({ seg: 20 });
  });

  test('two writers at once lose nothing', async () => {
    const other = createDirectorStore({ dir, keysDir: join(root, 'keys'), blobs, now: () => clock });
    const content = await contentOf(2, 'r1', 'new');
    await store.change('ips', rolling(content, 1), { expiresInMs: 60_000 });
    const raise = (writer: DirectorStore) =>
      writer.change('ips', (current) => rolling(content, (current.rollout?.thresholds.seg ?? 0) + 1)(current), {
        expiresInMs: 60_000,
      });
    await Promise.all(Array.from({ length: 10 }, (_, index) => raise(index % 2 ? store : other)));
    expect((await store.read('ips')).document).toMatchObject({
      directorVersion: 12,
      rollout: { thresholds: { seg: 11 } },
    });
  });
});

describe('a device that uses an ordinary TUF client', () => {
  test('sees every change and fetches what content role and director agree about', async () => {
    const client = await openClient();
    expect(documentOf(await client.poll('ips')).mode).toBe('steady');
    const contents = [await contentOf(2, 'r1', 'new'), await contentOf(3, 'r1', 'baseline')];
    await store.signContent('ips', contents);
    await store.publishContent('ips', contents);
    const [content] = contents;
    if (!content) throw new Error('no content');
    await store.change('ips', rolling(content, 10), { expiresInMs: 60_000 });
    const poll = await client.poll('ips');
    expect(documentOf(poll).rollout?.content.contentVersion).toBe(2);
    const [artefact] = content.artefacts;
    if (poll.kind !== 'document' || !artefact) throw new Error('no document');
    expect(Buffer.from(await poll.fetchArtefact(content, artefact.engine)).toString()).toBe('new');
    await expect(
      poll.fetchArtefact({ ...content, artefacts: [{ ...artefact, sha256: 'b'.repeat(64) }] }, artefact.engine),
    ).rejects.toMatchObject({
      code: 'SRP_INTEGRITY_ARTEFACT',
    });
  });

  test('takes nothing on the word of the online keys alone', async () => {
    const genuine = [await contentOf(2, 'r1', 'new'), await contentOf(3, 'r1', 'baseline')];
    await store.signContent('ips', genuine);
    await store.publishContent('ips', genuine);
    const [content] = genuine;
    const [artefact] = content?.artefacts ?? [];
    if (!content || !artefact) throw new Error('no content');
    const client = await openClient();
    const offer = async (made: Content) => {
      await store.change('ips', rolling(made, 10), { expiresInMs: 60_000 });
      const poll = await client.poll('ips');
      if (poll.kind !== 'document') throw new Error(poll.why);
      return poll.fetchArtefact(made, artefact.engine);
    };
    expect(Buffer.from(await offer(content)).toString()).toBe('new');
    const refused = { code: 'SRP_INTEGRITY_ARTEFACT' };
    // Bytes of the thief's own: the director role itself signs for director/ips.json.
    const own = { ...artefact, path: 'director/ips.json' };
    await expect(offer({ ...content, contentVersion: 99, artefacts: [own] })).rejects.toMatchObject(refused);
    // A genuine artefact under a number so high that no genuine one would ever follow.
    await expect(offer({ ...content, contentVersion: 1_000_000 })).rejects.toMatchObject(refused);
    // A genuine artefact of another version in this one's place.
    const [other] = genuine[1]?.artefacts ?? [];
    await expect(offer({ ...content, artefacts: other ? [other] : [] })).rejects.toMatchObject(refused);
    const elsewhere = { ...artefact, engine: 'suricata-8.0.7-bbbbbbbb' };
    await expect(offer({ ...content, artefacts: [elsewhere] })).rejects.toMatchObject(refused);
  });

  test('is offered nothing once the lease has run out, by an attacker, or without a server', async () => {
    const content = await contentOf(2, 'r1', 'new');
    const client = await openClient();
    clock -= 61_000; // the lease was granted a minute ago and nobody renewed it
    await store.change('ips', rolling(content, 10), { expiresInMs: 60_000 });
    expect(await client.poll('ips')).toMatchObject({ kind: 'no-offer', why: expect.stringMatching(/expired/i) });
    clock += 61_000;
    const { document } = await store.read('ips');
    expect(await store.renew('ips', document.directorVersion, 60_000)).toBe(true);
    expect(documentOf(await client.poll('ips')).mode).toBe('rolling');

    const otherKeys = join(root, 'other-keys');
    for (const name of ['director-ips', 'snapshot', 'timestamp']) await readSigner(otherKeys, name, 'create');
    const thief = createDirectorStore({ dir, keysDir: otherKeys, blobs, now: () => clock });
    await thief.change('ips', rolling(content, 2 ** 32), { expiresInMs: week });
    expect((await client.poll('ips')).kind).toBe('no-offer');
    const nowhere = await openRepository({
      baseUrl: 'http://127.0.0.1:9',
      dir: join(dir, 'nowhere'),
      trustedRoot: await readFile(join(dir, 'repository', 'metadata', '1.root.json')),
    });
    expect((await nowhere.poll('ips')).kind).toBe('no-offer');
  });
});
