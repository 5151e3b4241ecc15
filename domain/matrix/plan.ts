/** Which cells a matrix has: every engine of the fleet and of the support contract, in every configuration of the family. */
import type { Configuration, SupportedEngine } from '../content/family.ts';
import { type Cell, type EngineBuild, engineId } from '../release.ts';

/** The different engine builds, by id. */
export const enginesOf = (builds: readonly EngineBuild[]): readonly EngineBuild[] => {
  const byId = new Map(builds.map((engine) => [engineId(engine), engine]));
  return [...byId].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, engine]) => engine);
};

/** `devices`: how many are enrolled on an engine, by engine id. */
export const cellsFor = (
  engines: readonly EngineBuild[],
  configurations: readonly Configuration[],
  devices: Readonly<Record<string, number>>,
): readonly Cell[] =>
  enginesOf(engines).flatMap((engine) => {
    const id = engineId(engine);
    return configurations.map(
      ({ name, mode, protocols }): Cell => ({
        ...{ cellId: `${id}/${name}`, engine, mode, devices: devices[id] ?? 0 },
        ...(protocols ? { protocols } : {}),
      }),
    );
  });

/** Promised today: past its end of life nothing new is made for a version. */
export const isPromised = ({ endOfLife }: SupportedEngine, now: number): boolean =>
  endOfLife === undefined || Date.parse(`${endOfLife}T00:00:00Z`) > now;

/** A version that was promised and of which nobody has a pack: no engine answers to this identity. */
export const unknownBuild = (engine: string): EngineBuild => {
  const at = engine.lastIndexOf('@');
  const [name, version] = [engine.slice(0, at), engine.slice(at + 1)];
  return { name, version, packageVersion: 'no-pack', digest: '0'.repeat(64) };
};
