/**
 * A device's view of the repository: an ordinary TUF client plus the director rule. Nothing here throws for what the
 * repository does: an error or an expired role means that nothing is offered, never a failed update.
 */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Updater } from 'tuf-js';
import type { DirectorDocument } from '../../domain/director.ts';
import { SigrelError } from '../../domain/errors.ts';
import { artefactPath, type Content, type EngineId } from '../../domain/release.ts';

export type Poll =
  | {
      readonly kind: 'document';
      readonly document: DirectorDocument;
      readonly expiresAt: number;
      /**
       * This engine's bytes of a content that the document names. Throws SRP_INTEGRITY_ARTEFACT when the people's content role
       * does not say the same about them, in every respect.
       */
      readonly fetchArtefact: (content: Content, engine: EngineId) => Promise<Uint8Array>;
    }
  | { readonly kind: 'no-offer'; readonly why: string };

export type RepositoryClient = { readonly poll: (family: string) => Promise<Poll> };

/** `dir` is the client's own; `trustedRoot` is how its trust begins (shipped with the device). */
export const openRepository = async (options: {
  readonly baseUrl: string;
  readonly dir: string;
  readonly trustedRoot: Uint8Array;
}): Promise<RepositoryClient> => {
  const metadataDir = join(options.dir, 'metadata');
  const targetDir = join(options.dir, 'targets');
  await mkdir(metadataDir, { recursive: true });
  await mkdir(targetDir, { recursive: true });
  const rootFile = join(metadataDir, 'root.json');
  await writeFile(rootFile, options.trustedRoot, { flag: 'wx' }).catch(() => {}); // later roots are in it already
  return {
    poll: async (family) => {
      try {
        // A new client for every poll: it takes the time of its making as "now" for all expiry checks.
        const updater = new Updater({
          metadataDir,
          targetDir,
          metadataBaseUrl: `${options.baseUrl}/metadata`,
          targetBaseUrl: `${options.baseUrl}/targets`,
          config: { fetchRetries: 0, fetchTimeout: 5_000 },
        });
        await updater.refresh();
        const info = await updater.getTargetInfo(`director/${family}.json`);
        if (!info) return { kind: 'no-offer', why: `the repository has no director for ${family}` };
        const document = info.custom.document as DirectorDocument; // signed by the director's key
        const role = JSON.parse(await readFile(join(metadataDir, `director-${family}.json`), 'utf8'));
        return {
          kind: 'document',
          document,
          expiresAt: Date.parse(role.signed.expires),
          fetchArtefact: (content, engine) => fetchArtefact(updater, targetDir, { family, content, engine }),
        };
      } catch (error) {
        return { kind: 'no-offer', why: error instanceof Error ? error.message : String(error) };
      }
    },
  };
};

const fetchArtefact = async (
  updater: Updater,
  targetDir: string,
  wanted: { readonly family: string; readonly content: Content; readonly engine: EngineId },
): Promise<Uint8Array> => {
  const { family, content, engine } = wanted;
  const { contentVersion } = content;
  const path = artefactPath(family, contentVersion, engine);
  const artefact = content.artefacts.find((one) => one.engine === engine);
  // The content role alone signs for this path. Whoever has the online keys can only choose among what people signed, and
  // only as the version and for the engine that they signed it for.
  const info = artefact?.path === path ? await updater.getTargetInfo(path) : undefined;
  const custom = info?.custom ?? {};
  const same =
    info !== undefined &&
    info.hashes.sha256 === artefact?.sha256 &&
    info.length === artefact?.length &&
    custom.family === family &&
    custom.engine === engine &&
    custom.contentVersion === contentVersion;
  if (!same || !artefact) {
    const message = `director and content role do not say the same about content ${contentVersion} of ${family} for ${engine}`;
    throw new SigrelError('SRP_INTEGRITY_ARTEFACT', message, { details: { family, contentVersion, engine } });
  }
  const file = join(targetDir, artefact.sha256);
  const cached = await updater.findCachedTarget(info, file);
  return readFile(cached ?? (await updater.downloadTarget(info, file)));
};
