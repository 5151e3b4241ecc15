/**
 * A device's view of the repository: an ordinary TUF client plus the director rule. Nothing here throws for what the
 * repository does: an error or an expired role means that nothing is offered, never a failed update.
 */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Updater } from 'tuf-js';
import type { DirectorDocument } from '../../domain/director.ts';
import { SigrelError } from '../../domain/errors.ts';
import type { Artefact } from '../../domain/release.ts';

export type Poll =
  | {
      readonly kind: 'document';
      readonly document: DirectorDocument;
      readonly expiresAt: number;
      /** The bytes, when content role and director agree about them. Throws SRP_INTEGRITY_ARTEFACT when they do not. */
      readonly fetchArtefact: (artefact: Artefact) => Promise<Uint8Array>;
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
          fetchArtefact: (artefact) => fetchArtefact(updater, targetDir, artefact),
        };
      } catch (error) {
        return { kind: 'no-offer', why: error instanceof Error ? error.message : String(error) };
      }
    },
  };
};

const fetchArtefact = async (updater: Updater, targetDir: string, artefact: Artefact): Promise<Uint8Array> => {
  const info = await updater.getTargetInfo(artefact.path);
  // A stolen director key can only choose among genuine artefacts: people's signatures say the same digest.
  if (!info || info.hashes.sha256 !== artefact.sha256 || info.length !== artefact.length) {
    throw new SigrelError('SRP_INTEGRITY_ARTEFACT', `director and content role do not name the same ${artefact.path}`);
  }
  const file = join(targetDir, artefact.sha256);
  const cached = await updater.findCachedTarget(info, file);
  return readFile(cached ?? (await updater.downloadTarget(info, file)));
};
