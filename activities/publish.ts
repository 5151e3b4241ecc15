import type { DirectorStore } from '../domain/ports.ts';
import type { Content } from '../domain/release.ts';
import type { PublishActivities } from './contract.ts';

/** Signs a release together with its way back, and makes both fetchable. Nobody is offered anything by it. */
export const createPublishActivities = (ports: { readonly director: DirectorStore }): PublishActivities => ({
  signRelease: async ({ releaseId, family, contentVersion, artefacts }) => {
    const { document } = await ports.director.read(family);
    // After a halt the good content is the rollback; it has the bytes of the steady content before.
    const previous = document.rollback ?? document.steady;
    const release: Content = { contentVersion, releaseId, artefacts };
    const rollbackVersion = contentVersion + 1;
    const rollback: Content = {
      contentVersion: rollbackVersion,
      releaseId,
      artefacts: previous.artefacts.map((artefact) => ({
        ...artefact,
        path: `content/${family}/${rollbackVersion}/${artefact.engine}.rules`,
      })),
    };
    const signed = await ports.director.signContent(family, [release, rollback]);
    return { ...signed, release, rollback, previous };
  },
  publishContent: ({ family, release, rollback }) => ports.director.publishContent(family, [release, rollback]),
});
