import { SigrelError } from '../domain/errors.ts';
import type { DirectorStore } from '../domain/ports.ts';
import { type Artefact, artefactPath, type Content, type EngineId } from '../domain/release.ts';
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
      artefacts: artefacts.map(({ engine }) => ({
        ...wayBack(previous, engine),
        engine,
        path: artefactPath(family, rollbackVersion, engine),
      })),
    };
    const signed = await ports.director.signContent(family, [release, rollback]);
    return { ...signed, release, rollback, previous };
  },
  publishContent: ({ family, release, rollback }) => ports.director.publishContent(family, [release, rollback]),
});

/**
 * What an engine goes back to. One that the previous content did not know takes what all others had, when they all had the
 * same; a release that an engine could not leave again is refused.
 */
const wayBack = (previous: Content, engine: EngineId): Artefact => {
  const own = previous.artefacts.find((artefact) => artefact.engine === engine);
  const [any] = previous.artefacts;
  const found = own ?? (previous.artefacts.every(({ sha256 }) => sha256 === any?.sha256) ? any : undefined);
  if (found) return found;
  throw new SigrelError(
    'SRP_RULE_NO_WAY_BACK',
    `content ${previous.contentVersion} has nothing for ${engine}, and differs among the other engines: a release for it could not be rolled back`,
  );
};
