/** Engines as they are needed: a pack is fetched when somebody first asks for its version. */
import type { EngineCatalogue, EngineRunner } from '../../domain/ports.ts';
import { type EngineBuild, engineId } from '../../domain/release.ts';
import type { Progress } from '../servers/progress.ts';
import { acquirePacks, listPacks, type Pack } from './packs.ts';
import { createEngineRunner } from './runner.ts';

export type Engines = EngineCatalogue &
  EngineRunner & {
    /** The folder of its pack; null: there is none. */
    dirOf(engine: EngineBuild): Promise<string | null>;
  };

/** Runs and finds engines of all packs there are; what is fetched once stays. */
export const createEngines = (progress: Progress): Engines => {
  const asked = new Map<string, Promise<Pack | null>>();
  const acquire = (engine: string): Promise<Pack | null> => {
    const before = asked.get(engine);
    if (before) return before;
    const found = listPacks().then(async (known) => {
      // Where the archive has moved on, the pack that was fetched is of another version than the one it was asked for.
      const is = (version: string | undefined) => (one: { name: string }) => `${one.name}@${version}` === engine;
      const pack = known.find((one) => is(one.build?.version)(one)) ?? known.find((one) => is(one.version)(one));
      return pack ? ((await acquirePacks(progress, [`${pack.name}@${pack.version}`]))[0] ?? null) : null;
    });
    asked.set(engine, found);
    // An archive that did not answer is asked again by the next one.
    found.catch(() => asked.delete(engine));
    return found;
  };
  /** Another build that prints the same version is another engine. */
  const packOf = async (engine: EngineBuild): Promise<Pack | null> => {
    const pack = await acquire(`${engine.name}@${engine.version}`);
    return pack !== null && engineId(pack.build) === engineId(engine) ? pack : null;
  };
  return {
    dirOf: async (engine) => (await packOf(engine))?.dir ?? null,
    find: async (engine) => (await acquire(engine))?.build ?? null,
    run: async (engine, input, signal) => {
      const pack = await packOf(engine);
      return pack && createEngineRunner([pack]).run(engine, input, signal);
    },
  };
};
