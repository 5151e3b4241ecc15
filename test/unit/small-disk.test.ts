/** The small disk that tests of a full one use: it holds what was asked for, and ends with who opened it. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { identify } from '../../infra/servers/processes.ts';
import { patient } from '../support/patience.ts';
import { openSmallDisk } from '../support/small-disk.ts';

const givenHere = await promisify(execFile)('unshare', ['-rm', 'mount', '-t', 'tmpfs', 'none', '/mnt']).then(
  () => true,
  () => false,
);
const module = join(import.meta.dirname, '..', 'support', 'small-disk.ts');

const open = async () => {
  const disk = await openSmallDisk(2);
  if ('why' in disk) throw new Error(disk.why);
  return disk;
};

test.skipIf(!givenHere)('it is full when it is filled, and empty when that is freed', async () => {
  const disk = await open();
  try {
    const freeBytes = async () => {
      const { bavail, bsize } = await statfs(disk.path);
      return bavail * bsize;
    };
    expect(await freeBytes()).toBe(2 * 2 ** 20);
    disk.fill();
    expect(await freeBytes()).toBe(0);
    await disk.free();
    expect(await freeBytes()).toBe(2 * 2 ** 20);
  } finally {
    await disk.close();
  }
  expect(existsSync(disk.path)).toBe(false);
});

test.skipIf(!givenHere)('it is closed also when its holder has gone', async () => {
  const disk = await open();
  process.kill(disk.holder, 'SIGKILL');
  await expect.poll(() => identify(disk.holder), patient).toBeNull();
  await disk.close();
});

test.skipIf(!givenHere)('its holder ends with who opened it, however that ends', async () => {
  const opener = `import { openSmallDisk } from ${JSON.stringify(module)}; console.log((await openSmallDisk(2)).holder);`;
  const dir = await mkdtemp(join(tmpdir(), 'sigrel-opener-'));
  const child = spawn(process.execPath, ['--input-type=module', '-e', opener], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, TMPDIR: dir },
  });
  try {
    const [said] = await once(child.stdout, 'data');
    const holder = Number(said);
    expect(identify(holder)).not.toBeNull();
    child.kill('SIGKILL');
    await expect.poll(() => identify(holder), patient).toBeNull();
  } finally {
    child.kill('SIGKILL');
    await rm(dir, { recursive: true });
  }
});
