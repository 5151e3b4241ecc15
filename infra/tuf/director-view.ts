/**
 * What the repository grants at this moment, for those who only read. Every change becomes visible with the rename of
 * timestamp.json: as long as that is the same file, so is everything behind it.
 */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { InForce } from '../../domain/offer.ts';
import type { DirectorStore } from '../../domain/ports.ts';

/** What the store says now of each of its families. Throws when it says of none. */
export type DirectorView = () => Promise<{
  readonly inForce: readonly InForce[];
  /** Families of which it cannot be read, and why: nothing of them is known to be granted. */
  readonly unreadable: ReadonlyMap<string, string>;
}>;
type Seen = Awaited<ReturnType<DirectorView>>;

export const createDirectorView = (director: Pick<DirectorStore, 'families' | 'read'>, dir: string): DirectorView => {
  const timestamp = join(dir, 'repository', 'metadata', 'timestamp.json');
  let seen: { readonly file: string; readonly documents: Promise<Seen> } | null = null;
  const readAll = async (): Promise<Seen> => {
    const inForce: InForce[] = [];
    const unreadable = new Map<string, string>();
    const read = async (family: string): Promise<void> => {
      await director.read(family).then(
        (one) => inForce.push(one),
        (error) => unreadable.set(family, String(error)),
      );
    };
    await Promise.all((await director.families()).map(read));
    return { inForce, unreadable };
  };
  return async () => {
    const { ino, mtimeNs, size } = await stat(timestamp, { bigint: true });
    const file = `${ino} ${mtimeNs} ${size}`;
    // Looked at before it is read: a change in between is seen the next time.
    if (seen?.file !== file) {
      const documents = readAll();
      seen = { file, documents };
      const forget = () => {
        seen = null;
      };
      documents.then(({ unreadable }) => unreadable.size > 0 && forget(), forget);
    }
    return seen.documents;
  };
};
