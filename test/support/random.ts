/** Random numbers of tests: the same for the same seed, so that what failed once fails again. */

/** Uniform in [0, 1). */
export type Random = () => number;

/** mulberry32: small, quick, and the same everywhere. */
export const seeded = (seed: number): Random => {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
};

/** Another one in each run, for the name of a test, so that a failure says it; `TEST_SEED` takes one again. */
export const seedOfRun = Number(process.env.TEST_SEED ?? Date.now() % 1_000_000);

export const below = (random: Random, n: number): number => Math.floor(random() * n);

export const pick = <T>(random: Random, list: readonly T[]): T => list[below(random, list.length)] as T;

export const shuffled = <T>(random: Random, list: readonly T[]): T[] =>
  list
    .map((item) => ({ item, rank: random() }))
    .sort((a, b) => a.rank - b.rank)
    .map(({ item }) => item);
