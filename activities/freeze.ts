/** The freeze of a family: the online keys and the file store, nothing else. What it records follows when the log takes it. */
import type { DirectorStore, FamilyLog } from '../domain/ports.ts';
import type { FreezeActivities } from './contract.ts';

export const createFreezeActivities = (ports: {
  readonly director: Pick<DirectorStore, 'freeze' | 'thaw'>;
  readonly familyLog: FamilyLog;
}): FreezeActivities => ({
  freezeFamily: async ({ family, freeze }) => {
    const { document, publishedAt } = await ports.director.freeze(family, freeze);
    return { directorVersion: document.directorVersion, frozenAt: publishedAt };
  },
  thawFamily: async ({ family, freezeId }) => {
    const { thawed, document, freeze } = await ports.director.thaw(family, freezeId);
    const stands = thawed || freeze === null ? null : { ...freeze, directorVersion: document.directorVersion };
    return { thawed, stands };
  },
  recordFamilyEvent: (event) => ports.familyLog.append(event),
});
