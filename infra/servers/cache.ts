/**
 * The cache of a user: `$XDG_CACHE_HOME/sigrel/<tool>/<version>`, filled once and shared by every checkout. A fill goes
 * to a temporary name and is renamed when it is complete, so that a killed fill leaves nothing half-done.
 */
import { existsSync } from 'node:fs';
import { mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { identify, isSame, parseIdentity } from './processes.ts';

export const cacheRoot = (): string => join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'sigrel');

/** Returns `dir` once it is there; `fill` writes into the folder it is given. Two processes do not fill at once. */
export const fillOnce = async (dir: string, fill: (temporary: string) => Promise<void>): Promise<string> => {
  while (!existsSync(dir)) {
    await mkdir(dirname(dir), { recursive: true });
    await discardAbandoned(dir);
    const temporary = `${dir}.filling`;
    const mine = await mkdir(temporary).then(
      () => true,
      () => false,
    );
    if (!mine) {
      await sleep(500); // another process fills it
      continue;
    }
    const owner = join(dirname(dir), `${basename(dir)}.owner-${process.pid}-${identify(process.pid)?.started ?? 0}`);
    await mkdir(owner);
    try {
      await fill(temporary);
      await rename(temporary, dir);
    } finally {
      await rm(temporary, { recursive: true, force: true });
      await rm(owner, { recursive: true, force: true });
    }
  }
  return dir;
};

/** Removes what a fill that was killed left behind: its owner is not alive any more. */
const discardAbandoned = async (dir: string): Promise<void> => {
  const names = await readdir(dirname(dir));
  const prefix = `${basename(dir)}.owner-`;
  const owners = names.filter((name) => name.startsWith(prefix));
  const alive = owners.filter((name) => isSame(parseIdentity(name.slice(prefix.length))));
  for (const name of owners) {
    if (!alive.includes(name)) await rm(join(dirname(dir), name), { recursive: true, force: true });
  }
  if (alive.length > 0 || !names.includes(`${basename(dir)}.filling`)) return;
  // Between the two mkdir of a fill there is a moment without an owner: only an old folder is abandoned.
  const age = Date.now() - (await stat(`${dir}.filling`)).mtimeMs;
  if (age > 3_000) await rm(`${dir}.filling`, { recursive: true, force: true });
};
