/** Director stores that can do no more than a test needs of one. */
import type { DirectorDocument } from '../../domain/director.ts';
import type { DirectorStore } from '../../domain/ports.ts';

type Standing = Awaited<ReturnType<DirectorStore['read']>>;

/** What `read` answers of a document that nothing stops. */
export const standing = (document: DirectorDocument, changes: Partial<Standing> = {}): Standing => ({
  ...{ document, expiresAt: 0, signedAt: 0, stopped: false, freeze: null },
  ...changes,
});

/** Whatever else is asked of it fails by name. */
export const directorThat = (can: Partial<DirectorStore>): DirectorStore => {
  const cannot = (name: keyof DirectorStore) => async (): Promise<never> => {
    throw new Error(`director.${name} was called, which this test does not expect`);
  };
  return {
    families: cannot('families'),
    initialiseFamily: cannot('initialiseFamily'),
    read: cannot('read'),
    nextContentVersion: cannot('nextContentVersion'),
    signContent: cannot('signContent'),
    publishContent: cannot('publishContent'),
    change: cannot('change'),
    renew: cannot('renew'),
    freeze: cannot('freeze'),
    thaw: cannot('thaw'),
    ...can,
  };
};
