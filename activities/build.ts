/** Build: the stored source becomes one artefact per engine of the fleet, named by digest. The same bytes for the same input. */
import { type ReadFamily, rulesText } from '../domain/content/family.ts';
import { SigrelError } from '../domain/errors.ts';
import type { BlobStore, DirectorStore, Inventory } from '../domain/ports.ts';
import { type Artefact, artefactPath, type EngineBuild, engineId } from '../domain/release.ts';
import { canonicalJson } from '../events/canonical-json.ts';
import type { BuildActivities } from './contract.ts';

export type BuildPorts = {
  readonly blobs: BlobStore;
  readonly inventory: Inventory;
  readonly director: DirectorStore;
  /** Throws SRP_INTEGRITY_BUNDLE for what is no bundle. */
  readonly openBundle: (bytes: Uint8Array) => ReadFamily;
};

/** Findings beyond this number say nothing new, and an event is small. */
const findingsLimit = 50;

export const createBuildActivities = (ports: BuildPorts): BuildActivities => ({
  buildRelease: async ({ releaseId, family: name, sourceDigest }) => {
    const read = ports.openBundle(await ports.blobs.get(sourceDigest));
    if (!read.ok) return { ok: false, findings: read.findings.slice(0, findingsLimit) };
    const { family } = read;
    if (family.name !== name) {
      const message = `the content is of family "${family.name}", the release of "${name}"`;
      return { ok: false, findings: [{ code: 'family', message, file: 'family.yaml' }] };
    }
    const bytes = new TextEncoder().encode(rulesText(family.rules));
    const contentVersion = await ports.director.nextContentVersion(name, releaseId);
    const sha256 = await ports.blobs.put(bytes);
    const artefacts = enginesOf(await ports.inventory.devices()).map((engine): Artefact => {
      const id = engineId(engine);
      return { engine: id, path: artefactPath(name, contentVersion, id), sha256, length: bytes.length };
    });
    const bundle = canonicalJson({ family: name, sourceDigest, contentVersion, artefacts });
    const bundleDigest = await ports.blobs.put(new TextEncoder().encode(bundle));
    const counts = { rules: family.rules.length, vectors: family.vectors.length };
    return { ok: true, bundleDigest, ...counts, contentVersion, artefacts };
  },
});

/** The family of a stored source. Throws SRP_INTEGRITY_BUNDLE when it has findings: it was built from the same bytes. */
export const openFamily = async (
  ports: Pick<BuildPorts, 'blobs' | 'openBundle'>,
  sourceDigest: string,
): Promise<Extract<ReadFamily, { ok: true }>['family']> => {
  const read = ports.openBundle(await ports.blobs.get(sourceDigest));
  if (read.ok) return read.family;
  throw new SigrelError('SRP_INTEGRITY_BUNDLE', `the source ${sourceDigest} cannot be read any more`);
};

/** The different engine builds, by id. */
export const enginesOf = (devices: readonly { readonly engine: EngineBuild }[]): readonly EngineBuild[] => {
  const byId = new Map(devices.map(({ engine }) => [engineId(engine), engine]));
  return [...byId].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, engine]) => engine);
};
