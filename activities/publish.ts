import { goodContent } from '../domain/director.ts';
import type { DirectorStore } from '../domain/ports.ts';
import { artefactPath, type Content } from '../domain/release.ts';
import type { PublishActivities } from './contract.ts';

/** Signs a release together with its way back, and makes both fetchable. Nobody is offered anything by it. */
export const createPublishActivities = (ports: { readonly director: DirectorStore }): PublishActivities => ({
  signRelease: async ({ releaseId, family, contentVersion, artefacts, waysBack }) => {
    const { document } = await ports.director.read(family);
    const release: Content = { contentVersion, releaseId, artefacts };
    const rollbackVersion = contentVersion + 1;
    const rollback: Content = {
      contentVersion: rollbackVersion,
      releaseId,
      artefacts: waysBack.map((back) => ({ ...back, path: artefactPath(family, rollbackVersion, back.engine) })),
    };
    const signed = await ports.director.signContent(family, [release, rollback]);
    return { ...signed, release, rollback, previous: goodContent(document) };
  },
  publishContent: ({ family, release, rollback }) => ports.director.publishContent(family, [release, rollback]),
});
