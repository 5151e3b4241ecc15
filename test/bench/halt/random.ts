/** Random numbers of the halt benchmark: the same for the same world and run, on any number of threads. */

/** Uniform in [0, 1), 53 bits. */
export type Random = () => number;

/** sfc32 (Doty-Humphrey, PractRand), seeded by splitmix32 with the text and the number of the run. */
export const randomOf = (world: string, run: number): Random => {
  let seed = Math.imul(run + 1, 0x9e3779b9);
  for (const letter of world) seed = mix(seed ^ (letter.codePointAt(0) ?? 0));
  let a = mix(seed + 1);
  let b = mix(seed + 2);
  let c = mix(seed + 3);
  let counter = 1;
  const next = (): number => {
    const sum = (a + b + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return sum >>> 0;
  };
  for (let i = 0; i < 12; i++) next();
  return () => ((next() >>> 5) * 0x4000000 + (next() >>> 6)) / 0x20000000000000;
};

/** The finaliser of splitmix32: neighbouring seeds become unrelated ones. */
const mix = (seed: number): number => {
  let z = (seed + 0x9e3779b9) | 0;
  z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
  z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
  return z ^ (z >>> 15);
};

/** By inversion. Means here are small, most of them far below 1; large ones are halved, as exp(-mean) would underflow. */
export const poisson = (random: Random, mean: number): number => {
  if (mean > 500) return poisson(random, mean / 2) + poisson(random, mean / 2);
  if (mean === 0) return 0;
  return poissonFrom(random, mean, Math.exp(-mean));
};

/** As `poisson`, for a mean up to 500 whose exp(-mean) is known. */
export const poissonFrom = (random: Random, mean: number, ofNone: number): number => {
  let left = random();
  let probability = ofNone;
  let n = 0;
  // The second condition ends it where rounding has left more than all the probabilities beyond.
  while (left >= probability && (n < mean || probability > 1e-18)) {
    left -= probability;
    n++;
    probability *= mean / n;
  }
  return n;
};

export const binomial = (random: Random, trials: number, probability: number): number => {
  let n = 0;
  for (let i = 0; i < trials; i++) if (random() < probability) n++;
  return n;
};

/** On 1, 2, …. */
export const geometric = (random: Random, mean: number): number =>
  1 + Math.floor(Math.log1p(-random()) / Math.log1p(-1 / mean));

export const exponential = (random: Random, rate: number): number => -Math.log1p(-random()) / rate;

/** Box-Muller. */
export const normal = (random: Random): number =>
  Math.sqrt(2 * exponential(random, 1)) * Math.cos(2 * Math.PI * random());

/** Mean 1 (Marsaglia and Tsang; below shape 1 with their boost). */
export const gammaOfMean1 = (random: Random, shape: number): number => {
  if (shape === Number.POSITIVE_INFINITY) return 1;
  if (shape < 1) {
    const boosted = gamma(random, shape + 1);
    return (boosted * random() ** (1 / shape)) / shape;
  }
  return gamma(random, shape) / shape;
};

const gamma = (random: Random, shape: number): number => {
  const d = shape - 1 / 3;
  const c = 1 / Math.sqrt(9 * d);
  for (;;) {
    const x = normal(random);
    const v = (1 + c * x) ** 3;
    if (v > 0 && Math.log1p(-random()) < 0.5 * x * x + d - d * v + d * Math.log(v)) return d * v;
  }
};
