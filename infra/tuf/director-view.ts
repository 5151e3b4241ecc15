/**
 * What the repository grants at this moment, for those who only read. Every change becomes visible with the rename of
 * timestamp.json: as long as that is the same file, so is everything behind it.
 */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { InForce } from '../../domain/offer.ts';
import type { DirectorStore } from '../../domain/ports.ts';

/** The documents of all families. Throws when the store cannot be read: nothing is known to be granted then. */
export type DirectorView = () => Promise<readonly InForce[]>;

export const createDirectorView = (director: Pick<DirectorStore, 'families' | 'read'>, dir: string): DirectorView => {
  const timestamp = join(dir, 'repository', 'metadata', 'timestamp.json');
  let seen: { readonly file: string; readonly documents: Promise<readonly InForce[]> } | null = null;
  const readAll = async (): Promise<readonly InForce[]> =>
    Promise.all((await director.families()).map((family) => director.read(family)));
  return async () => {
    const { ino, mtimeNs, size } = await stat(timestamp, { bigint: true });
    const file = `${ino} ${mtimeNs} ${size}`;
    // Looked at before it is read: a change in between is seen the next time.
    if (seen?.file !== file) {
      const documents = readAll();
      seen = { file, documents };
      documents.catch(() => {
        seen = null;
      });
    }
    return seen.documents;
  };
};
