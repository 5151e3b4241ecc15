import { createHash, randomUUID } from 'node:crypto';
import { mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { SigrelError } from '../../domain/errors.ts';
import type { BlobStore } from '../../domain/ports.ts';

/** Blobs as files named by their digest. What is read is checked: a damaged file is never handed out. */
export const createFileBlobs = (dir: string): BlobStore => {
  const pathOf = (digest: string) => join(dir, digest.slice(0, 2), digest);
  return {
    put: async (bytes) => {
      const digest = sha256(bytes);
      const path = pathOf(digest);
      const known = await stat(path).catch(() => null);
      if (known?.size === bytes.length) return digest;
      await writeWhole(path, bytes);
      return digest;
    },
    get: async (digest) => {
      const bytes = await readFile(pathOf(digest)).catch(() => null);
      if (bytes === null) {
        throw new SigrelError('SRP_MISSING_BLOB', `there is no blob ${digest} in the store ${dir}`, {
          details: { digest },
        });
      }
      if (sha256(bytes) !== digest) {
        throw new SigrelError(
          'SRP_INTEGRITY_BLOB',
          `the blob ${digest} in ${dir} is damaged: its content has another digest`,
        );
      }
      return bytes;
    },
  };
};

export const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** Durable, and visible as a whole or not at all. */
export const writeWhole = async (path: string, bytes: Uint8Array | string): Promise<void> => {
  await mkdir(dirname(path), { recursive: true });
  const temporary = `${path}.${randomUUID()}`;
  try {
    await writeFile(temporary, bytes, { flush: true });
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
};
