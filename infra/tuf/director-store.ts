/**
 * The TUF repository (specification 1.0) as static files, and the only writer of it. Roles: root and targets (people, 2 of
 * 3) -> `content-<family>` (people, 2 of 3), `director-<family>` (online: the lease) -> snapshot, timestamp (online).
 * Snapshots are consistent: every version of a file has a name of its own, and a change takes effect as a whole when the
 * timestamp is renamed into place.
 */
import { readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Metadata, MetadataKind, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp } from '@tufjs/models';
import {
  type DirectorDocument,
  type FamilyFreeze,
  grantsExposure,
  openRelease,
  steadyExpiryMs,
} from '../../domain/director.ts';
import { SigrelError } from '../../domain/errors.ts';
import { isLaterStop } from '../../domain/ids.ts';
import type { BlobStore, DirectorStore } from '../../domain/ports.ts';
import { type Artefact, artefactPath, type Content, engineId } from '../../domain/release.ts';
import { canonicalJson } from '../../events/canonical-json.ts';
import { sha256, writeWhole } from '../store/blobs.ts';
import { withLock } from '../store/lock.ts';
import { readFreeze, removeFreeze, writeFreeze } from './freeze-marker.ts';
import { readSigner, readSigners, type Signer } from './keys.ts';

export type DirectorOptions = {
  /** Holds `repository/` (served as it is), the version ledger, stop markers and the lock. */
  readonly dir: string;
  readonly keysDir: string;
  readonly blobs: BlobStore;
  readonly now: () => number;
};

type RoleMetadata = Metadata<Targets>;
/** Content versions given out: family -> release -> its version (its rollback has the next one). */
type Ledger = Record<string, { next: number; releases: Record<string, number> }>;

const specVersion = '1.0.31';
const days = (n: number): number => n * 24 * 3_600_000;
const onlineExpiryMs = days(7);
const offlineExpiryMs = days(365);
/** Old versions of a file stay this long (in versions) for clients that are in the middle of a poll. */
const keptVersions = 30;
const people = { count: 3, threshold: 2 } as const;

export const createDirectorStore = (options: DirectorOptions): DirectorStore => {
  const { dir, keysDir, blobs, now } = options;
  const metadataDir = join(dir, 'repository', 'metadata');
  const targetsDir = join(dir, 'repository', 'targets');
  const ledgerFile = join(dir, 'content-versions.json');
  const stopFile = (family: string) => join(dir, `stopped-${family}`);
  const locked = <T>(work: () => Promise<T>): Promise<T> => withLock(join(dir, 'lock'), work);

  const common = (version: number, expiresInMs: number, asOf = now()) => ({
    version,
    specVersion,
    expires: expiry(asOf + expiresInMs),
  });
  const header = (type: string, version: number, expiresInMs: number) => ({
    ...{ _type: type, spec_version: specVersion, version },
    expires: expiry(now() + expiresInMs),
  });
  const readJson = async (path: string) => {
    // Only "there is none" is null: any other error must not look like an empty store.
    const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return null;
      throw error;
    });
    return text === null ? null : JSON.parse(text);
  };
  const contentRole = (family: string) => `content-${family}`;
  const directorRole = (family: string) => `director-${family}`;

  // ---- reading

  const readSnapshot = async (): Promise<Metadata<Snapshot> | null> => {
    const timestamp = await readJson(join(metadataDir, 'timestamp.json'));
    if (timestamp === null) return null;
    const { version } = Metadata.fromJSON(MetadataKind.Timestamp, timestamp).signed.snapshotMeta;
    return Metadata.fromJSON(MetadataKind.Snapshot, await readJson(join(metadataDir, `${version}.snapshot.json`)));
  };
  const requireSnapshot = async (): Promise<Metadata<Snapshot>> => {
    const snapshot = await readSnapshot();
    if (snapshot === null)
      throw new SigrelError('SRP_MISSING_FAMILY', `the store ${dir} has no family yet: sigrel family init FOLDER`);
    return snapshot;
  };
  const readRole = async (snapshot: Metadata<Snapshot>, role: string): Promise<RoleMetadata | null> => {
    const version = snapshot.signed.meta[`${role}.json`]?.version;
    if (version === undefined) return null;
    return Metadata.fromJSON(MetadataKind.Targets, await readJson(join(metadataDir, `${version}.${role}.json`)));
  };
  const requireRole = async (snapshot: Metadata<Snapshot>, family: string, role: string): Promise<RoleMetadata> => {
    const metadata = await readRole(snapshot, role);
    if (metadata === null) {
      throw new SigrelError('SRP_MISSING_FAMILY', `there is no family "${family}": sigrel family init FOLDER`, {
        details: { family },
      });
    }
    return metadata;
  };
  const documentOf = (metadata: RoleMetadata, family: string): DirectorDocument => {
    const custom = metadata.signed.targets[`director/${family}.json`]?.custom;
    return custom?.document as DirectorDocument; // written by `writeDirector` below, and signed
  };

  // ---- writing

  const sign = <T extends Root | Targets | Snapshot | Timestamp>(
    signed: T,
    signers: readonly Signer[],
  ): Metadata<T> => {
    const metadata = new Metadata<T>(signed);
    for (const signer of signers) metadata.sign(signer.sign, true);
    return metadata;
  };
  const bytesOf = (metadata: Metadata<Root | Targets | Snapshot | Timestamp>): Buffer =>
    Buffer.from(JSON.stringify(metadata.toJSON()));

  /** Writes changed roles, then the snapshot that names them, then the timestamp: the change is visible with that rename. */
  const publish = async (
    before: Metadata<Snapshot> | null,
    changed: Readonly<Record<string, RoleMetadata>>,
  ): Promise<void> => {
    const meta = { ...before?.signed.meta };
    for (const [role, metadata] of Object.entries(changed)) {
      const { version } = metadata.signed;
      await writeWhole(join(metadataDir, `${version}.${role}.json`), bytesOf(metadata));
      meta[`${role}.json`] = new MetaFile({ version });
    }
    const version = (before?.signed.version ?? 0) + 1;
    const snapshot = new Snapshot({ ...common(version, onlineExpiryMs), meta });
    const snapshotBytes = bytesOf(sign(snapshot, [await readSigner(keysDir, 'snapshot', 'expect')]));
    await writeWhole(join(metadataDir, `${version}.snapshot.json`), snapshotBytes);
    const snapshotMeta = new MetaFile({
      version,
      length: snapshotBytes.length,
      hashes: { sha256: sha256(snapshotBytes) },
    });
    const timestamp = new Timestamp({ ...common(version, onlineExpiryMs), snapshotMeta });
    const timestampBytes = bytesOf(sign(timestamp, [await readSigner(keysDir, 'timestamp', 'expect')]));
    await writeWhole(join(metadataDir, 'timestamp.json'), timestampBytes);
    await rm(join(metadataDir, `${version - keptVersions}.snapshot.json`), { force: true });
    for (const [role, metadata] of Object.entries(changed)) {
      if (!role.startsWith('director-')) continue;
      await rm(join(metadataDir, `${metadata.signed.version - keptVersions}.${role}.json`), { force: true });
    }
  };

  const buildDirector = async (
    family: string,
    version: number,
    document: DirectorDocument,
    expiresInMs: number,
    asOf = now(),
  ) => {
    const bytes = Buffer.from(canonicalJson(document));
    const path = `director/${family}.json`;
    await writeWhole(join(targetsDir, `director/${sha256(bytes)}.${family}.json`), bytes);
    const target = new TargetFile({
      ...{ path, length: bytes.length, hashes: { sha256: sha256(bytes) } },
      unrecognizedFields: { custom: { document: JSON.parse(canonicalJson(document)) } },
    });
    const signed = new Targets({ ...common(version, expiresInMs, asOf), targets: { [path]: target } });
    return sign(signed, [await readSigner(keysDir, directorRole(family), 'expect')]);
  };

  const ensureRoot = async (): Promise<void> => {
    if ((await readJson(join(metadataDir, '1.root.json'))) !== null) return;
    const rootSigners = await readSigners(keysDir, 'root', people.count, 'create');
    const targetSigners = await readSigners(keysDir, 'targets', people.count, 'create');
    const online = {
      snapshot: await readSigner(keysDir, 'snapshot', 'create'),
      timestamp: await readSigner(keysDir, 'timestamp', 'create'),
    };
    const ids = (signers: readonly Signer[]) => signers.map((signer) => signer.key.keyID);
    const all = [...rootSigners, ...targetSigners, online.snapshot, online.timestamp];
    const role = (signers: readonly Signer[], threshold: number) => ({ keyids: ids(signers), threshold });
    const root = Root.fromJSON({
      ...header('root', 1, offlineExpiryMs),
      consistent_snapshot: true,
      keys: Object.fromEntries(all.map((signer) => [signer.key.keyID, signer.key.toJSON()])),
      roles: {
        root: role(rootSigners, people.threshold),
        targets: role(targetSigners, people.threshold),
        snapshot: role([online.snapshot], 1),
        timestamp: role([online.timestamp], 1),
      },
    });
    const bytes = bytesOf(sign(root, rootSigners.slice(0, people.threshold)));
    await writeWhole(join(metadataDir, '1.root.json'), bytes);
  };

  /** The top-level targets role with one more family delegated. Paths are disjoint: the first match would answer for both. */
  const delegate = async (before: Metadata<Targets> | null, family: string): Promise<Metadata<Targets>> => {
    const contentSigners = await readSigners(keysDir, contentRole(family), people.count, 'create');
    const director = await readSigner(keysDir, directorRole(family), 'create');
    const known = before?.signed.delegations;
    const role = (name: string, signers: readonly Signer[], threshold: number, path: string) => ({
      ...{ name, keyids: signers.map((signer) => signer.key.keyID), threshold },
      ...{ terminating: true, paths: [path] },
    });
    const version = (before?.signed.version ?? 0) + 1;
    const targets = Targets.fromJSON({
      ...header('targets', version, offlineExpiryMs),
      targets: {},
      delegations: {
        keys: Object.fromEntries(
          [...Object.values(known?.keys ?? {}), ...contentSigners.map((signer) => signer.key), director.key].map(
            (key) => [key.keyID, key.toJSON()],
          ),
        ),
        roles: [
          ...Object.values(known?.roles ?? {}).map((one) => one.toJSON()),
          role(contentRole(family), contentSigners, people.threshold, `content/${family}/*/*`),
          role(directorRole(family), [director], 1, `director/${family}.json`),
        ],
      },
    });
    const signers = await readSigners(keysDir, 'targets', people.count, 'expect');
    return sign(targets, signers.slice(0, people.threshold));
  };

  const targetsOf = (contents: readonly Content[], family: string): Record<string, TargetFile> =>
    Object.fromEntries(
      contents.flatMap(({ contentVersion, releaseId, artefacts }) =>
        artefacts.map(({ path, sha256: digest, length, engine }) => [
          path,
          new TargetFile({
            ...{ path, length, hashes: { sha256: digest } },
            unrecognizedFields: { custom: { family, engine, releaseId, contentVersion } },
          }),
        ]),
      ),
    );
  const signTargets = async (family: string, version: number, targets: Record<string, TargetFile>) => {
    const signers = (await readSigners(keysDir, contentRole(family), people.count, 'expect')).slice(
      0,
      people.threshold,
    );
    return { signers, metadata: sign(new Targets({ ...common(version, offlineExpiryMs), targets }), signers) };
  };
  const placeArtefacts = async (contents: readonly Content[]): Promise<void> => {
    for (const { path, sha256: digest } of contents.flatMap((content) => content.artefacts)) {
      const slash = path.lastIndexOf('/');
      const file = join(targetsDir, path.slice(0, slash), `${digest}.${path.slice(slash + 1)}`);
      await writeWhole(file, await blobs.get(digest));
    }
  };

  const writtenAt = async (metadata: RoleMetadata, family: string): Promise<number> => {
    const written = await stat(join(metadataDir, `${metadata.signed.version}.${directorRole(family)}.json`));
    return Math.round(written.mtimeMs);
  };
  /** The marker, or what the document says when somebody took the marker away: a freeze ends by a thaw only. */
  const freezeOf = async (family: string, { freezeId }: DirectorDocument): Promise<FamilyFreeze | null> => {
    const freeze = await readFreeze(dir, family);
    if (freeze !== null || freezeId === undefined) return freeze;
    return { freezeId, reason: 'its file is missing', by: 'unknown', at: new Date(0).toISOString(), until: null };
  };
  const isStopped = async (family: string): Promise<boolean> =>
    (await stat(stopFile(family)).catch(() => null)) !== null;
  const setStop = async (family: string, stopId: string): Promise<void> => {
    // A late attempt of an earlier stop must not give the later one its name: who lifts the earlier would lift it.
    const standing = await readFile(stopFile(family), 'utf8').catch(() => '');
    if (!isLaterStop(standing, stopId)) await writeWhole(stopFile(family), stopId);
  };

  return {
    families: async () => {
      const snapshot = await readSnapshot();
      return Object.keys(snapshot?.signed.meta ?? {})
        .flatMap((file) => /^director-(.+)\.json$/.exec(file)?.[1] ?? [])
        .sort();
    },

    initialiseFamily: (family, sources) =>
      locked(async () => {
        const releaseId = `${family}-baseline`;
        const artefacts: Artefact[] = [];
        for (const { engine, bytes } of sources) {
          const id = engineId(engine);
          const digest = await blobs.put(bytes);
          artefacts.push({ engine: id, path: artefactPath(family, 1, id), sha256: digest, length: bytes.length });
        }
        const content: Content = { contentVersion: 1, releaseId, artefacts };
        const snapshot = await readSnapshot();
        const existing = snapshot && (await readRole(snapshot, contentRole(family)));
        if (existing) {
          const same = artefacts.every(
            ({ path, sha256: digest }) => existing.signed.targets[path]?.hashes.sha256 === digest,
          );
          if (same) return content;
          throw new SigrelError(
            'SRP_RULE_FAMILY_EXISTS',
            `family "${family}" is there already with another baseline: a change of content is a release (sigrel release start)`,
          );
        }
        await ensureRoot();
        const top = snapshot && (await readRole(snapshot, 'targets'));
        const targets = await delegate(top, family); // makes the family's keys
        const { metadata } = await signTargets(family, 1, targetsOf([content], family));
        await placeArtefacts([content]);
        const document: DirectorDocument = {
          family,
          directorVersion: 1,
          mode: 'steady',
          steady: content,
          rollout: null,
          rollback: null,
        };
        await publish(snapshot, {
          targets,
          [contentRole(family)]: metadata,
          [directorRole(family)]: await buildDirector(family, 1, document, onlineExpiryMs),
        });
        const ledger: Ledger = (await readJson(ledgerFile)) ?? {};
        ledger[family] ??= { next: 2, releases: {} };
        await writeWhole(ledgerFile, JSON.stringify(ledger));
        return content;
      }),

    read: async (family) => {
      const metadata = await requireRole(await requireSnapshot(), family, directorRole(family));
      return {
        document: documentOf(metadata, family),
        expiresAt: Date.parse(metadata.signed.expires),
        signedAt: await writtenAt(metadata, family),
        stopped: await isStopped(family),
        freeze: await freezeOf(family, documentOf(metadata, family)),
      };
    },

    nextContentVersion: (family, releaseId) =>
      locked(async () => {
        const ledger: Ledger = (await readJson(ledgerFile)) ?? {};
        const entry = ledger[family];
        if (!entry)
          throw new SigrelError('SRP_MISSING_FAMILY', `there is no family "${family}": sigrel family init FOLDER`);
        const known = entry.releases[releaseId];
        if (known !== undefined) return known;
        const version = entry.next;
        ledger[family] = { next: version + 2, releases: { ...entry.releases, [releaseId]: version } };
        await writeWhole(ledgerFile, JSON.stringify(ledger));
        return version;
      }),

    signContent: (family, contents) =>
      locked(async () => {
        const current = await requireRole(await requireSnapshot(), family, contentRole(family));
        const added = targetsOf(contents, family);
        const taken = Object.entries(added).find(([path, target]) => {
          const known = current.signed.targets[path];
          return known !== undefined && !known.equals(target);
        });
        if (taken) {
          throw new SigrelError(
            'SRP_RULE_CONTENT_EXISTS',
            `${taken[0]} was signed before with other content: a content version is never given out twice`,
          );
        }
        const targets = { ...current.signed.targets, ...added };
        const { signers, metadata } = await signTargets(family, current.signed.version + 1, targets);
        await writeWhole(join(dir, 'signed', `${family}.json`), bytesOf(metadata));
        return {
          threshold: people.threshold,
          signatures: signers.map((signer) => ({ keyId: signer.key.keyID, signer: signer.name })),
        };
      }),

    publishContent: (family, contents) =>
      locked(async () => {
        const snapshot = await requireSnapshot();
        const current = await requireRole(snapshot, family, contentRole(family));
        const wanted = targetsOf(contents, family);
        const has = (targets: Readonly<Record<string, TargetFile>>) =>
          Object.entries(wanted).every(([path, target]) => targets[path]?.equals(target));
        if (has(current.signed.targets)) return { targetsVersion: current.signed.version };
        const signed = await readJson(join(dir, 'signed', `${family}.json`));
        const next = signed === null ? null : Metadata.fromJSON(MetadataKind.Targets, signed);
        if (next === null || next.signed.version !== current.signed.version + 1 || !has(next.signed.targets)) {
          throw new SigrelError(
            'SRP_RULE_NOT_SIGNED',
            `content ${contents.map((content) => content.contentVersion).join(', ')} of family "${family}" is not what was signed last: sign it again`,
          );
        }
        await placeArtefacts(contents);
        await publish(snapshot, { [contentRole(family)]: next });
        return { targetsVersion: next.signed.version };
      }),

    change: (family, change, { expiresInMs, asOf, stop, stopId, unlessRolling }) =>
      locked(async () => {
        const snapshot = await requireSnapshot();
        const metadata = await requireRole(snapshot, family, directorRole(family));
        const current = documentOf(metadata, family);
        const open = openRelease(current);
        if (open !== null && unlessRolling !== undefined && open !== unlessRolling) {
          return { document: current, publishedAt: now() };
        }
        // The marker first: from here on nothing raises exposure, whatever happens to the rest.
        if (stop === 'set') await setStop(family, stopId ?? new Date(now()).toISOString());
        if (stop === 'clear' && stopId !== undefined && (await isStopped(family))) {
          // Compare and swap: who lifts one stop must not lift another, which somebody was told is in force.
          if ((await readFile(stopFile(family), 'utf8')) !== stopId) {
            throw new SigrelError(
              'SRP_HOLD_STOPPED',
              `family "${family}" was stopped anew since ${stopId}: exposure is not raised until that stop is lifted`,
              { details: { family, stopId } },
            );
          }
        }
        const wanted = change(current);
        const freeze = await freezeOf(family, current);
        if (wanted !== null && freeze !== null && raisesExposure(current, wanted)) {
          throw new SigrelError(
            'SRP_HOLD_FROZEN',
            `family "${family}" is frozen by ${freeze.by} since ${freeze.at} (${freeze.reason}): exposure is not raised until it is thawed`,
            { details: { family, freezeId: freeze.freezeId } },
          );
        }
        if (wanted !== null && stop !== 'clear' && raisesExposure(current, wanted) && (await isStopped(family))) {
          throw new SigrelError(
            'SRP_RULE_STOPPED',
            `family "${family}" is stopped: exposure is not raised until the stop is lifted`,
            {
              details: { family },
            },
          );
        }
        let document = current;
        let publishedAt = now();
        if (wanted === null) publishedAt = await writtenAt(metadata, family);
        else {
          document = nextDocument(current, wanted, freeze?.freezeId);
          const next = await buildDirector(family, metadata.signed.version + 1, document, expiresInMs, asOf);
          await publish(snapshot, { [directorRole(family)]: next });
          publishedAt = now();
        }
        if (stop === 'clear') await rm(stopFile(family), { force: true });
        return { document, publishedAt };
      }),

    renew: (family, directorVersion, expiresInMs, asOf) =>
      locked(async () => {
        const snapshot = await requireSnapshot();
        const metadata = await requireRole(snapshot, family, directorRole(family));
        const document = documentOf(metadata, family);
        // Compare and swap: a renewal that read an older document must not undo what came after it.
        if (document.directorVersion !== directorVersion) return false;
        // What ends sooner than before renews nothing: exposure down is never in the way.
        const longer = (asOf ?? now()) + expiresInMs >= Date.parse(metadata.signed.expires);
        if (longer && grantsExposure(document)) {
          if ((await isStopped(family)) || (await freezeOf(family, document)) !== null) return false;
        }
        const next = await buildDirector(family, metadata.signed.version + 1, document, expiresInMs, asOf);
        await publish(snapshot, { [directorRole(family)]: next });
        return true;
      }),

    freeze: async (family, freeze) => {
      await requireRole(await requireSnapshot(), family, directorRole(family));
      // Before the lock: a renewal that is under way may still pass, no later one, even when the lock cannot be had.
      await writeFreeze(dir, family, freeze);
      return locked(async () => {
        const snapshot = await requireSnapshot();
        const metadata = await requireRole(snapshot, family, directorRole(family));
        const current = documentOf(metadata, family);
        // Again: a thaw of the freeze before this one may have taken it away.
        await writeFreeze(dir, family, freeze);
        if (current.freezeId === freeze.freezeId) {
          return { document: current, publishedAt: await writtenAt(metadata, family) };
        }
        const document = nextDocument(current, current, freeze.freezeId);
        const next = await buildDirector(family, metadata.signed.version + 1, document, steadyExpiryMs);
        await publish(snapshot, { [directorRole(family)]: next });
        return { document, publishedAt: now() };
      });
    },

    thaw: (family, freezeId) =>
      locked(async () => {
        const snapshot = await requireSnapshot();
        const metadata = await requireRole(snapshot, family, directorRole(family));
        const current = documentOf(metadata, family);
        const freeze = await freezeOf(family, current);
        if (freeze === null || (freezeId !== null && freezeId !== freeze.freezeId)) {
          return { thawed: false, document: current, freeze };
        }
        const document = nextDocument(current, current, undefined);
        const version = metadata.signed.version + 1;
        // Over since 1970: a clock that is fast would make "now" a lease that nobody has found evidence for.
        const next = grantsExposure(document)
          ? await buildDirector(family, version, document, 0, 0)
          : await buildDirector(family, version, document, steadyExpiryMs);
        await publish(snapshot, { [directorRole(family)]: next });
        // The marker last: whatever happens before, nothing is granted.
        await removeFreeze(dir, family);
        return { thawed: true, document, freeze };
      }),
  };
};

const nextDocument = (
  current: DirectorDocument,
  { freezeId: _freezeId, ...wanted }: Omit<DirectorDocument, 'directorVersion'>,
  freezeId: string | undefined,
): DirectorDocument => ({
  ...wanted,
  directorVersion: current.directorVersion + 1,
  ...(freezeId === undefined ? {} : { freezeId }),
});

/** More devices may newly take content than before. */
const raisesExposure = (before: DirectorDocument, after: Omit<DirectorDocument, 'directorVersion'>): boolean => {
  // New steady content goes to every device, without an acknowledgement: nothing raises exposure more.
  if (after.steady.contentVersion !== before.steady.contentVersion) {
    if (after.steady.contentVersion !== before.rollback?.contentVersion) return true;
  }
  if (after.mode !== 'rolling' || after.rollout === null) return false;
  if (before.mode !== 'rolling' || before.rollout?.content.releaseId !== after.rollout.content.releaseId) return true;
  const thresholds = before.rollout.thresholds;
  return Object.entries(after.rollout.thresholds).some(
    ([segment, threshold]) => threshold > (thresholds[segment] ?? 0),
  );
};

/** Whole seconds, as the specification writes them, and never later than asked. */
const expiry = (at: number): string => `${new Date(at).toISOString().slice(0, 19)}Z`;
