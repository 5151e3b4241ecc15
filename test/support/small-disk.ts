/**
 * A filesystem of its own of a few megabytes: tmpfs in a mount namespace, which a process that does nothing else holds, as long
 * as the one that opened it lives. No root is needed where this user may have namespaces. Everybody of this user reaches it
 * through /proc.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, writeSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export type SmallDisk = {
  /** Of the process that holds it. */
  readonly holder: number;
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
  const script = 'mount -t tmpfs -o size="$1"m none "$2" && echo ready && exec cat';
  const holder = spawn('unshare', ['-rm', 'sh', '-c', script, 'sh', String(megabytes), place], {
    stdio: ['pipe', 'pipe', 'pipe'], // what reads from a pipe ends with who has its other end
  });
  const ended = new Promise((resolve) => holder.once('exit', resolve));
  const why = await ready(holder);
  if (why !== null) {
    await rm(place, { recursive: true, force: true });
    return { why };
  }
  const pid = holder.pid ?? 0;
  const path = join('/proc', String(pid), 'root', place);
  const ballast = join(path, 'ballast');
  return {
    ...{ holder: pid, path },
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
