/** Engines as they are needed: a pack is fetched when somebody first asks for its version. */
import { identityOf } from '../../domain/matrix/plan.ts';
import type { EngineCatalogue, EngineRunner } from '../../domain/ports.ts';
import type { EngineBuild } from '../../domain/release.ts';
import type { Progress } from '../servers/progress.ts';
import { acquirePacks, type KnownPack, listPacks, type Pack } from './packs.ts';
import { createEngineRunner } from './runner.ts';

export type Engines = EngineCatalogue &
  EngineRunner & {
    /** The folder of its pack; null: there is none. */
    dirOf(engine: EngineBuild): Promise<string | null>;
  };

/** Where packs come from: what there could be, and one of them, fetched if need be. */
export type PackSource = {
  readonly list: () => Promise<readonly KnownPack[]>;
  readonly acquire: (name: string) => Promise<Pack | undefined>;
};

const packsOfCache = (progress: Progress): PackSource => ({
  list: listPacks,
  acquire: async (name) => (await acquirePacks(progress, [name]))[0],
});

/** Runs and finds engines of all packs there are; what is fetched once stays. */
export const createEngines = (progress: Progress, source: PackSource = packsOfCache(progress)): Engines => {
  const asked = new Map<string, Promise<Pack | undefined>>();
  const acquire = (name: string): Promise<Pack | undefined> => {
    const before = asked.get(name);
    if (before) return before;
    const found = source.acquire(name);
    asked.set(name, found);
    // An archive that did not answer is asked again by the next one.
    found.catch(() => asked.delete(name));
    return found;
  };
  /** Packs that are of this version, or were asked for as it: where the archive has moved on, these are not the same. */
  const packsLike = async ({ name, version }: Pick<EngineBuild, 'name' | 'version'>): Promise<readonly Pack[]> => {
    const known = (await source.list()).filter((one) => one.name === name);
    const like = known.filter((one) => one.version === version || one.build?.version === version);
    const packs = await Promise.all(like.map((one) => acquire(`${one.name}@${one.version}`)));
    return packs.filter((pack) => pack !== undefined);
  };
  const located = new Map<string, Pack>();
  /** Another build that prints the same version is another engine. */
  const packOf = async (engine: EngineBuild): Promise<Pack | null> => {
    const id = identityOf(engine);
    const pack = located.get(id) ?? (await packsLike(engine)).find(({ build }) => identityOf(build) === id) ?? null;
    if (pack) located.set(id, pack);
    return pack;
  };
  return {
    dirOf: async (engine) => (await packOf(engine))?.dir ?? null,
    find: async (engine) => {
      const at = engine.lastIndexOf('@');
      const [name, version] = [engine.slice(0, at), engine.slice(at + 1)];
      return (await packsLike({ name, version })).find(({ build }) => build.version === version)?.build ?? null;
    },
    run: async (engine, input, signal) => {
      const pack = await packOf(engine);
      return pack && createEngineRunner([pack]).run(engine, input, signal);
    },
  };
};
