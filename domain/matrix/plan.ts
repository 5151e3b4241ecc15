/** Which cells a matrix has: every engine of the fleet and of the support contract, in every configuration of the family. */
import type { Configuration, SupportedEngine } from '../content/family.ts';
import { type Cell, type EngineBuild, engineId } from '../release.ts';

/**
 * What a build is, whole: `engineId` has only the start of the digest, and devices tell by themselves what they run. The
 * files are the digest's; what their package was called is for people.
 */
export const identityOf = ({ name, version, digest }: EngineBuild): string => `${name}-${version}-${digest}`;

/** The different engine builds, by name, older versions first. */
export const enginesOf = (builds: readonly EngineBuild[]): readonly EngineBuild[] => {
  const byId = new Map(builds.map((engine) => [identityOf(engine), engine]));
  return [...byId.values()].sort(
    (a, b) => byText(a.name, b.name) || byVersion(a.version, b.version) || byText(a.digest, b.digest),
  );
};

const byText = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

/** 1.5.0 is older than 1.15.0. */
const byVersion = (a: string, b: string): number => {
  const [left, right] = [a.split('.'), b.split('.')];
  for (let at = 0; at < Math.max(left.length, right.length); at += 1) {
    const difference = Number(left[at] ?? 0) - Number(right[at] ?? 0);
    if (difference !== 0 && !Number.isNaN(difference)) return difference;
  }
  return byText(a, b);
};

/**
 * `devices`: how many are enrolled on an engine, by engine id. Where two builds share their id, each cell has the whole
 * identity in its own: one's result would stand for both.
 */
export const cellsFor = (
  engines: readonly EngineBuild[],
  configurations: readonly Configuration[],
  devices: Readonly<Record<string, number>>,
): readonly Cell[] => {
  const all = enginesOf(engines);
  return all.flatMap((engine) => {
    const id = engineId(engine);
    const unique = all.every((other) => other === engine || engineId(other) !== id) ? id : identityOf(engine);
    return configurations.map(
      ({ name, mode, protocols }): Cell => ({
        ...{ cellId: `${unique}/${name}`, engine, mode, devices: devices[id] ?? 0 },
        ...(protocols ? { protocols } : {}),
      }),
    );
  });
};

/** Promised today: past its end of life nothing new is made for a version. */
export const isPromised = ({ endOfLife }: SupportedEngine, now: number): boolean =>
  endOfLife === undefined || Date.parse(`${endOfLife}T00:00:00Z`) > now;

/** A version that was promised and of which nobody has a pack: no engine answers to this identity. */
export const unknownBuild = (engine: string): EngineBuild => {
  const at = engine.lastIndexOf('@');
  const [name, version] = [engine.slice(0, at), engine.slice(at + 1)];
  return { name, version, packageVersion: 'no-pack', digest: '0'.repeat(64) };
};
