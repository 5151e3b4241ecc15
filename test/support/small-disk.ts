/**
 * A filesystem of its own of a few megabytes: tmpfs in a mount namespace, which a process that does nothing else holds. No
 * root is needed where this user may have namespaces. Everybody of this user reaches it through /proc.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, writeSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export type SmallDisk = {
  /** Good for every process of this user while the disk is held. */
  readonly path: string;
  /** Takes all space that is left. */
  fill(): void;
  /** Gives it back. */
  free(): Promise<void>;
  close(): Promise<void>;
};

/** Why there is none, where this system gives none. */
export const openSmallDisk = async (megabytes: number): Promise<SmallDisk | { readonly why: string }> => {
  const place = await mkdtemp(join(tmpdir(), 'sigrel-disk-'));
  const script = 'mount -t tmpfs -o size="$1"m none "$2" && echo ready && exec sleep infinity';
  const holder = spawn('unshare', ['-rm', 'sh', '-c', script, 'sh', String(megabytes), place], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const why = await ready(holder);
  if (why !== null) {
    await rm(place, { recursive: true, force: true });
    return { why };
  }
  const path = join('/proc', String(holder.pid), 'root', place);
  const ballast = join(path, 'ballast');
  return {
    path,
    fill: () => {
      const file = openSync(ballast, 'a');
      try {
        for (let bytes = 1_048_576; bytes >= 1; bytes = Math.floor(bytes / 2)) {
          while (fits(file, bytes));
        }
      } finally {
        closeSync(file);
      }
    },
    free: () => rm(ballast, { force: true }),
    close: async () => {
      const ended = new Promise((resolve) => holder.once('exit', resolve));
      holder.kill('SIGKILL');
      await ended;
      await rm(place, { recursive: true, force: true });
    },
  };
};

const fits = (file: number, bytes: number): boolean => {
  try {
    return writeSync(file, new Uint8Array(bytes)) === bytes;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOSPC') return false;
    throw error;
  }
};

/** null when the disk is there. */
const ready = (holder: ChildProcess): Promise<string | null> =>
  new Promise((resolve) => {
    let words = '';
    holder.stderr?.on('data', (chunk) => {
      words += chunk;
    });
    holder.stdout?.once('data', () => resolve(null));
    holder.once('error', (error) => resolve(error.message));
    holder.once('exit', (code) => resolve(words.trim() || `unshare ended with ${code}`));
  });
