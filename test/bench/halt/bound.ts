/**
 * The least exposure that any rule needs (halt specification, section 16.1): with at most `alpha` false halts and power one
 * the expected log likelihood ratio at the decision is at least ln(1/alpha) (Wald). Which of K cells is hit is not known:
 * who has to search needs ln(K/alpha).
 */
import type { Key } from '../../../domain/judge/policy.ts';

/** What is tested against: ratio and margin, the margin per unit of exposure. */
export type Null = { readonly r0: number; readonly delta: number };

export const nullOf = (key: Key, delta: number): Null => ({ r0: key.r0, delta: key.margin ? delta : 0 });

/**
 * Nats per tick of events at these rates, in these exposures, against the nearest point of the null, whose baseline nobody
 * knows. 0 without exposure on either side, and for rates within the null.
 */
export const poissonInformation = (
  rates: { readonly treated: number; readonly control: number },
  exposure: { readonly treated: number; readonly control: number },
  { r0, delta }: Null,
): number => {
  const { treated: t, control: c } = exposure;
  if (t === 0 || c === 0 || rates.treated <= r0 * rates.control + delta) return 0;
  const a = (r0 * t) / c;
  // The best gain is the smaller root of a*delta*g^2 - b*g + rate*(1 + a), in the form without cancellation.
  const b = rates.treated * a + rates.control * r0 + delta * (1 + a);
  const last = rates.treated * (1 + a);
  const g = (2 * last) / (b + Math.sqrt(b * b - 4 * a * delta * last));
  return rates.treated * t * Math.log(g) + rates.control * c * Math.log1p(-a * (g - 1)) - delta * t * (g - 1);
};

/** Nats of trials of which `p1` fail instead of `p0`. */
export const trialInformation = (trials: number, p1: number, p0: number, { r0, delta }: Null): number => {
  const q = r0 * p0 + delta;
  if (p1 <= q) return 0;
  const passing = p1 === 1 ? 0 : (1 - p1) * Math.log((1 - p1) / (1 - q));
  return trials * (p1 * Math.log(p1 / q) + passing);
};

/** First (fractional) tick at which the sum reaches `nats`; null when it never does. */
export const boundTick = (perTick: readonly number[], nats: number): number | null => {
  let sum = 0;
  for (const [tick, information] of perTick.entries()) {
    if (sum + information >= nats) return tick + (nats - sum) / information;
    sum += information;
  }
  return null;
};

/** The sum of `perTick` up to a fractional tick. */
export const sumUpTo = (perTick: readonly number[], tick: number): number => {
  const whole = Math.floor(tick);
  const sum = perTick.slice(0, whole).reduce((a, b) => a + b, 0);
  return sum + (tick - whole) * (perTick[whole] ?? 0);
};

export const natsOf = (alpha: number, cells = 1): number => Math.log(cells / alpha);
