import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { identify } from '../../infra/servers/processes.ts';
import { createFileBlobs, sha256 } from '../../infra/store/blobs.ts';
import { withLock } from '../../infra/store/lock.ts';

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sigrel-store-'));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

describe('blobs', () => {
  test('are kept by their digest, and putting them again changes nothing', async () => {
    const blobs = createFileBlobs(join(dir, 'blobs'));
    const bytes = new TextEncoder().encode('rules');
    const digest = await blobs.put(bytes);
    expect(digest).toBe(sha256(bytes));
    expect(await blobs.put(bytes)).toBe(digest);
    expect(Buffer.from(await blobs.get(digest)).toString()).toBe('rules');
    expect(await readdir(join(dir, 'blobs', digest.slice(0, 2)))).toEqual([digest]);
  });

  test('a missing and a damaged blob are refused', async () => {
    const blobs = createFileBlobs(join(dir, 'blobs'));
    await expect(blobs.get('0'.repeat(64))).rejects.toMatchObject({ code: 'SRP_MISSING_BLOB' });
    const digest = await blobs.put(new TextEncoder().encode('good'));
    await writeFile(join(dir, 'blobs', digest.slice(0, 2), digest), 'evil');
    await expect(blobs.get(digest)).rejects.toMatchObject({ code: 'SRP_INTEGRITY_BLOB' });
  });
});

describe('the lock', () => {
  test('lets one through at a time', async () => {
    const path = join(dir, 'lock');
    let inside = 0;
    let most = 0;
    const work = async () => {
      inside += 1;
      most = Math.max(most, inside);
      await new Promise((resolve) => setImmediate(resolve));
      inside -= 1;
    };
    await Promise.all(Array.from({ length: 20 }, () => withLock(path, work)));
    expect(most).toBe(1);
  });

  test('is taken over from a dead owner, and waited for with a living one', async () => {
    const path = join(dir, 'owned');
    await writeFile(path, '999999999-1');
    expect(await withLock(path, async () => 'done')).toBe('done');
    const parent = identify(process.ppid);
    await writeFile(path, `${parent?.pid}-${parent?.started}`);
    await expect(withLock(path, async () => 'never', 30)).rejects.toMatchObject({ code: 'SRP_DEP_LOCK' });
    await rm(path);
    expect(await withLock(path, async () => 'again')).toBe('again');
  });

  test('is taken over also when the one who was taking it over died', async () => {
    const path = join(dir, 'twice-dead');
    await writeFile(path, '999999999-1');
    await writeFile(`${path}.clear`, '999999998-1');
    expect(await withLock(path, async () => 'done')).toBe('done');
    expect((await readdir(dir)).filter((name) => name.startsWith('twice-dead'))).toEqual([]);
  });

  test('of a living owner stays, when the dead one that was found before it is taken away', async () => {
    const path = join(dir, 'found-dead');
    const parent = identify(process.ppid);
    const living = `${parent?.pid}-${parent?.started}`;
    await writeFile(path, '999999999-1');
    await writeFile(`${path}.clear`, living);
    const waiting = expect(withLock(path, async () => 'never', 500)).rejects.toMatchObject({ code: 'SRP_DEP_LOCK' });
    const clears = async () => (await readdir(dir)).some((name) => name.startsWith('found-dead.clear.'));
    await vi.waitUntil(clears, { interval: 5 });
    await writeFile(path, living);
    await rm(`${path}.clear`);
    await waiting;
    expect(await readFile(path, 'utf8')).toBe(living);
  });

  test('is given back when the work fails', async () => {
    const path = join(dir, 'failing');
    await expect(withLock(path, async () => Promise.reject(new Error('broken')))).rejects.toThrow('broken');
    expect(await withLock(path, async () => 'next')).toBe('next');
  });
});
