/** A lock between processes on one file store. Its owner is named by pid and start time: a dead owner holds nothing. */
import { link, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SigrelError } from '../../domain/errors.ts';
import { identify, isSame, parseIdentity } from '../servers/processes.ts';

const queues = new Map<string, Promise<unknown>>();

/** Runs `work` while holding the lock. Throws SRP_DEP_LOCK when a living owner keeps it longer than `timeoutMs`. */
export const withLock = <T>(path: string, work: () => Promise<T>, timeoutMs = 10_000): Promise<T> => {
  // Within this process callers wait in turn; only the first of them goes for the file.
  const before = queues.get(path) ?? Promise.resolve();
  const mine = before.then(async () => {
    await acquire(path, timeoutMs);
    try {
      return await work();
    } finally {
      await rm(path, { force: true });
    }
  });
  const settled = mine.then(
    () => {},
    () => {},
  );
  queues.set(path, settled);
  return mine;
};

const acquire = async (path: string, timeoutMs: number): Promise<void> => {
  await mkdir(dirname(path), { recursive: true });
  const self = `${process.pid}-${identify(process.pid)?.started ?? 0}`;
  const claim = `${path}.${self}`;
  await writeFile(claim, self);
  const deadline = Date.now() + timeoutMs;
  try {
    for (;;) {
      // A link appears with its content: nobody ever reads a lock without an owner.
      const taken = await link(claim, path).then(
        () => true,
        () => false,
      );
      if (taken) return;
      const owner = await readFile(path, 'utf8').catch(() => null);
      if (owner !== null && !isSame(parseIdentity(owner))) await clear(path, owner, timeoutMs);
      else if (Date.now() > deadline) {
        throw new SigrelError('SRP_DEP_LOCK', `process ${owner} holds ${path} for more than ${timeoutMs} ms`);
      } else await sleep(5);
    }
  } finally {
    await rm(claim, { force: true });
  }
};

/**
 * Takes away the lock of a dead owner. One at a time, and only while it is still that owner's: who has found the same dead
 * owner a moment later must not take away the lock of the one who came after it.
 */
const clear = async (path: string, dead: string, timeoutMs: number): Promise<void> => {
  const clearing = `${path}.clear`;
  await acquire(clearing, timeoutMs);
  try {
    const owner = await readFile(path, 'utf8').catch(() => null);
    if (owner === dead) await rm(path, { force: true });
  } finally {
    await rm(clearing, { force: true });
  }
};
