/** The likelihood-ratio factor of one tick (halt specification, section 3). Only log1p: no cancellation anywhere. */

/** Upper caps (section 13, rule 2): they only lower E, and without the first one 0 * Infinity would blind a cell. */
export const logFactorCap = 400;
export const stateCap = 1e200;

/**
 * ln e of one tick for bet `r` against the null "treated rate <= r0 * control rate + delta".
 * x, y: events of treated and control devices; treated, control: their exposure (hours, or trials).
 * Without exposure on either side there is no evidence: exactly 0. Requires r > r0.
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
  if (treated === 0 || control === 0) return 0;
  const u = (r - r0) / (control + r * treated);
  const gMinus1 = (control * u) / r0;
  return x * Math.log1p(gMinus1) + y * Math.log1p(-treated * u) - delta * treated * gMinus1;
};

/** The next state of one bet: mass that starts in this tick is added before the factor (section 5). */
export const nextState = (state: number, startMass: number, logE: number): number =>
  Math.min((state + startMass) * Math.exp(Math.min(logE, logFactorCap)), stateCap);
