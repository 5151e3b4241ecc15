/** Which engines a release of a family is for: those of its devices and of its support contract, less what was excluded. */
import { type Family, leastNoticeMs, type ReadFamily, type SupportedEngine } from '../domain/content/family.ts';
import { SigrelError } from '../domain/errors.ts';
import { enginesOf, isPromised, unknownBuild } from '../domain/matrix/plan.ts';
import type { BlobStore, EngineCatalogue, Inventory, ReleaseHistory, Waivers } from '../domain/ports.ts';
import { type EngineBuild, type EngineId, engineId, type Waiver } from '../domain/release.ts';
import { sumOf } from '../domain/timeline.ts';
import { isInForce } from '../domain/waiver.ts';

export type SourcePorts = {
  readonly blobs: BlobStore;
  /** Throws SRP_INTEGRITY_BUNDLE for what is no bundle. */
  readonly openBundle: (bytes: Uint8Array) => ReadFamily;
};

/** The family of a stored source. Throws SRP_INTEGRITY_BUNDLE when it has findings: it was built from the same bytes. */
export const openFamily = async (ports: SourcePorts, sourceDigest: string): Promise<Family> => {
  const read = ports.openBundle(await ports.blobs.get(sourceDigest));
  if (read.ok) return read.family;
  throw new SigrelError('SRP_INTEGRITY_BUNDLE', `the source ${sourceDigest} cannot be read any more`);
};

export type FleetPorts = SourcePorts & {
  readonly history: ReleaseHistory;
  readonly inventory: Inventory;
  readonly catalogue: EngineCatalogue;
  readonly waivers: Waivers;
  readonly now: () => number;
};

export type FieldedEngines = {
  readonly engines: readonly EngineBuild[];
  /** Devices of the family's language by engine id, excluded ones too. */
  readonly devices: Readonly<Record<EngineId, number>>;
  readonly fleetDevices: number;
  readonly excluded: readonly { readonly waiver: Waiver; readonly engine: EngineId; readonly devices: number }[];
};

/**
 * Whether customers were told in time: the release that was in the field when the notice had to be given names this end, or an
 * earlier one. What only the release itself says would let one person take an engine out of its matrix.
 */
const isAnnounced = async (
  ports: FleetPorts,
  family: string,
  { engine, endOfLife: end = '' }: SupportedEngine,
): Promise<boolean> => {
  const names = async (time: number): Promise<boolean> => {
    const source = await ports.history.sourceAt(family, time);
    const read = source === null ? null : ports.openBundle(await ports.blobs.get(source));
    const before = read?.ok ? read.family.support.find((one) => one.engine === engine) : undefined;
    return before?.endOfLife !== undefined && before.endOfLife <= end;
  };
  // An end that the last release took back is none any more.
  return (await names(Date.parse(end) - leastNoticeMs)) && (await names(ports.now()));
};

/** Devices of an engine whose end was announced keep what they have: the support contract excludes it, nobody has to. */
const endOfLife = (
  family: string,
  engine: EngineBuild,
  { endOfLife: end = '', notice = '' }: SupportedEngine,
): Waiver => ({
  ...{ waiverId: 'end-of-life', family, kind: 'exclude', target: engineId(engine), sourceDigest: null },
  ...{ reason: `end of life on ${end}, announced on ${notice}`, expiresAt: end, by: ['support contract'] },
});

export const fieldedEngines = async (ports: FleetPorts, family: Family): Promise<FieldedEngines> => {
  const { language, name } = family;
  const support = await Promise.all(
    family.support.map(async (one) => ({
      ...one,
      ended: !isPromised(one, ports.now()) && (await isAnnounced(ports, name, one)),
    })),
  );
  const enrolled = (await ports.inventory.groups()).filter(({ engine }) => language.engines.includes(engine.name));
  const devices: Record<EngineId, number> = {};
  for (const group of enrolled) {
    const id = engineId(group.engine);
    devices[id] = (devices[id] ?? 0) + group.devices;
  }
  const promised = await Promise.all(
    support
      .filter(({ ended }) => !ended)
      .map(async ({ engine }) => (await ports.catalogue.find(engine)) ?? unknownBuild(engine)),
  );
  const all = enginesOf([...enrolled.map(({ engine }) => engine), ...promised]);
  const exclusions = (await ports.waivers.list(name)).filter(
    (waiver) => waiver.kind === 'exclude' && isInForce(waiver, ports.now()),
  );
  const exclusionOf = (engine: EngineBuild): Waiver | undefined => {
    const ended = support.find((one) => one.ended && one.engine === `${engine.name}@${engine.version}`);
    if (ended) return endOfLife(name, engine, ended);
    return exclusions.find(({ target }) => target === engineId(engine));
  };
  return {
    engines: all.filter((engine) => exclusionOf(engine) === undefined),
    ...{ devices, fleetDevices: sumOf(devices) },
    excluded: all.flatMap((engine) => {
      const waiver = exclusionOf(engine);
      const id = engineId(engine);
      return waiver ? [{ waiver, engine: id, devices: devices[id] ?? 0 }] : [];
    }),
  };
};
