/**
 * The likelihood-ratio factor of one tick and the states it drives (halt specification, sections 3 to 5 and 13). Only log1p:
 * no cancellation anywhere. Events are counts from 0; exposures are device-hours, or trials, and finite from 0.
 */
import type { Bets } from './policy.ts';

/** Upper caps (section 13, rule 2): they only lower E, and without the first one 0 * Infinity would blind a cell. */
export const logFactorCap = 400;
export const stateCap = 1e200;

/**
 * g - 1 of bet `r`: what one treated event multiplies the factor by, less one (section 3). Exactly 0 without control and for
 * r = r0. Needs treated + control > 0.
 */
export const gainMinus1 = (treated: number, control: number, r: number, r0: number): number =>
  (control * ((r - r0) / (control + r * treated))) / r0;

/** w - 1 of bet `r`: what one control event multiplies the factor by, less one (section 3). Needs treated + control > 0. */
export const lossMinus1 = (treated: number, control: number, r: number, r0: number): number =>
  -treated * ((r - r0) / (control + r * treated));

/** Whether the factor of a tick can differ from 1 (section 3). */
export const isEvidence = (x: number, y: number, treated: number, control: number, delta: number): boolean =>
  treated !== 0 && control !== 0 && (x !== 0 || y !== 0 || delta !== 0);

/**
 * ln e of one tick for bet `r` against the null "treated rate <= r0 * control rate + delta" (section 3).
 * x, y: events of treated and control devices; treated, control: their exposure; delta: per unit of exposure.
 * Without exposure on either side there is no evidence: exactly 0. Requires r >= r0 > 0.
 */
export const logFactor = (
  x: number,
  y: number,
  treated: number,
  control: number,
  r: number,
  r0: number,
  delta: number,
): number => {
  if (!isEvidence(x, y, treated, control, delta)) return 0;
  const gain = gainMinus1(treated, control, r, r0);
  // Most leaves of most ticks have no events: their logarithms are not worth computing.
  const ofTreated = x === 0 ? 0 : x * Math.log1p(gain);
  const ofControl = y === 0 ? 0 : y * Math.log1p(lossMinus1(treated, control, r, r0));
  return ofTreated + ofControl - delta * treated * gain;
};

/** The next state of one bet: mass that starts in this tick is added before the factor (section 5). */
export const nextState = (state: number, startMass: number, logE: number): number =>
  Math.min((state + startMass) * Math.exp(Math.min(logE, logFactorCap)), stateCap);

/** Sum of weight * exp(log), with capped logs, in the order of the bets (sections 4 and 13). */
export const mixture = (bets: Pick<Bets, 'weight'>, logs: readonly number[]): number =>
  logs.reduce((sum, log, j) => sum + (bets.weight[j] ?? 0) * Math.exp(Math.min(log, logFactorCap)), 0);

/**
 * ln e against the absolute margin alone, "treated rate <= control rate + delta", for gain g > 1 (annex B). Valid while
 * treated * (g - 1) < control; beyond that, and without exposure, there is no evidence: exactly 0.
 */
export const absoluteLogFactor = (
  x: number,
  y: number,
  treated: number,
  control: number,
  delta: number,
  g: number,
): number => {
  if (treated === 0 || control === 0 || treated * (g - 1) >= control) return 0;
  return x * Math.log(g) + y * Math.log1p((-treated / control) * (g - 1)) - delta * treated * (g - 1);
};

/**
 * The exact "worse by ratio and by absolute rise" (section 3): the smaller of two e-processes. Both arguments are ln E
 * accumulated over ticks; the minimum of single factors would not be the same.
 */
export const logMinimum = (logRatio: number, logAbsolute: number): number => Math.min(logRatio, logAbsolute);

/** ln E against a rate that is known to be at most `ceiling` per unit of exposure (annex B); a cross-check. */
export const ceilingLogE = (x: number, treated: number, ceiling: number, r: number, r0: number): number =>
  x * Math.log(r / r0) - (r - r0) * ceiling * treated;
