/** The gates of the halt specification, sections 15.2 and 15.3, as data, and how a gate reads its runs. */
import { frozenOnset } from './cells.ts';
import type { Run } from './simulate.ts';
import { affectedSegments, segmentSizes, updatedDevices, type World } from './world.ts';
import { frailtyShapes, frozenCounts, frozenFaults, promoteRowName, promoteRows, worlds } from './worlds.ts';

/** Shares in 0..1 of runs with a HALT, or a HOLD, which are false alarms here. */
export type SafetyGate = {
  readonly id: string;
  readonly what: string;
  readonly scenario: string;
  readonly runs: number;
  /** null: misuse, run to show that it fails. */
  readonly halt: { readonly must: number; readonly target: number | null } | null;
  readonly hold: { readonly must: number } | null;
};

/** Minutes after the onset; `miss`: share of runs without the decision. Whatever is absent is not asked for. */
export type Limits = {
  readonly median?: number;
  readonly p95?: number;
  readonly miss?: number;
  /** Updated devices when it is decided (median). */
  readonly devices?: number;
  /** Failed first trials when it is decided (median). */
  readonly dead?: number;
};

export type SpeedGate = {
  readonly id: string;
  readonly what: string;
  readonly scenario: string;
  readonly runs: number;
  readonly decision: 'hold' | 'halt';
  readonly must: Limits | null;
  readonly target: Limits | null;
  /** Physical limit of the affected device-hours (section 16.1), where the table has one. */
  readonly boundHours?: number;
};

const rate = (must: number, target: number) => ({ must, target });

const nullWorld = (id: string, what: string, scenario: string, halt: SafetyGate['halt'], hold: number | null) => ({
  ...{ id, what, scenario, halt, runs: 2_000 },
  hold: hold === null ? null : { must: hold },
});

export const safetyGates: readonly SafetyGate[] = [
  nullWorld('F1', 'nothing changed', 'N1', rate(0.005, 0.003), 0.02),
  nullWorld('F2', 'day rhythm and a network event', 'N2', rate(0.005, 0.003), 0.02),
  nullWorld('F3', 'site outages', 'N3', rate(0.005, 0.003), 0.025),
  nullWorld('F4', 'sites assigned, counted once', 'N4d', rate(0.005, 0.003), 0.02),
  nullWorld('N4', 'sites assigned, raw counts: misuse', 'N4', null, null),
  nullWorld('F5', 'every rate × 1.3', 'N5', rate(0.01, 0.005), null),
  nullWorld('F6', 'every rate × 1.5, the margin', 'N6', rate(0.02, 0.01), null),
];

/** One cell each; a false promotion counts as a false halt here. */
export const cellGates: readonly SafetyGate[] = [
  ...frailtyShapes.map((shape) => ({
    ...{ id: 'F7', what: `devices with hazards of shape ${shape}`, scenario: `F7 ${shape}`, runs: 2_000, hold: null },
    halt: rate(0.01, 0.008),
  })),
  ...frozenCounts.map((expected) => ({
    ...{ id: 'F8', what: `frozen baseline of ${expected} events`, scenario: `F8 ${expected}`, runs: 4_000, hold: null },
    halt: rate(0.01, 0.008),
  })),
  // 5 % and the specification's slack for this number of runs.
  ...promoteRows.map((row) => ({
    ...{ id: 'F9', what: `promote, ${promoteRowName(row)}`, scenario: `F9 ${promoteRowName(row)}`, runs: 4_000 },
    ...{ hold: null, halt: { must: 0.057, target: null } },
  })),
];

const halts = (
  id: string,
  what: string,
  scenario: string,
  must: Limits,
  target: Limits,
  boundHours?: number,
): SpeedGate => ({
  ...{ id, what, scenario, must, target, runs: 300, decision: 'halt' },
  ...(boundHours === undefined ? {} : { boundHours }),
});

const within = (median: number, p95: number, more: Limits = {}): Limits => ({ median, p95, ...more });

const frozenMust = [within(11, 20), within(13, 26), within(2, 3)];
const frozenTarget = [within(8, 15), within(10, 20), within(1, 2)];

export const speedGates: readonly SpeedGate[] = [
  {
    ...{ id: 'D1', what: 'A1 crash ×3: HOLD', scenario: 'A1', runs: 300, decision: 'hold' },
    ...{ must: { median: 280, miss: 0.25 }, target: null },
  },
  {
    ...{ id: 'D1', what: 'A1 at 25 %: HOLD', scenario: 'A1 at 25 %', runs: 300, decision: 'hold' },
    ...{ must: null, target: within(245, 370, { miss: 0.01 }) },
  },
  halts('D2', 'A2 crash ×10', 'A2', within(171, 209), within(160, 195), 5050),
  halts('D3', 'A3 crash ×100', 'A3', within(71, 87), within(66, 81), 148),
  halts('D4', 'A4 crash ×100 in 2 %', 'A4', within(217, 275, { miss: 0.02 }), within(205, 255, { miss: 0 }), 202),
  halts('D5', 'A5 crash ×1000 in 2 %', 'A5', within(109, 142), within(101, 136), 10.3),
  halts('D6', 'A6 load ×1000 in 2 %', 'A6', within(172, 211), within(160, 200), 64.1),
  halts('D7', 'A7 blocked ×300 in 2 %', 'A7', within(194, 223), within(182, 212), 106),
  halts('D8', 'A8 scan error ×3', 'A8', within(200, 234), within(187, 218), 8687),
  halts('D9', 'A9 all of 2 % bricked', 'A9', within(25, 30), within(20, 25, { dead: 2 })),
  halts('D10', 'A10 20 % of 2 % bricked', 'A10', within(79, 93), within(75, 88), 6.3),
  halts('D11', 'A11 1 % of all bricked', 'A11', within(82, 133), within(77, 88), 392),
  halts('D12', 'A12 crash ×30 at 205', 'A12', within(8, 13), within(6, 9), 1923),
  halts('D13', 'A13 proxy ×30, at 25 %', 'A13 at 25 %', { median: 135, miss: 0.12 }, { median: 105, miss: 0.02 }),
  halts('D14', 'A14 brick, stratified', 'A14 stratified', within(18, 20, { devices: 260 }), {
    ...within(15, 18, { devices: 195 }),
  }),
  halts('D15', 'A14, first deadline 3', 'A14 stratified, 3 min', within(11, 12), within(8, 11, { devices: 100 })),
  ...frozenFaults.map(({ name }, i) =>
    halts('D16', `no control, ${name}`, `D16 ${name}`, frozenMust[i] ?? {}, frozenTarget[i] ?? {}),
  ),
];

// ---- reading runs

const standardError = (share: number, runs: number): number => Math.sqrt((share * (1 - share)) / runs);

/**
 * With `slack` a share is beyond its limit only by more than that many standard errors: fewer runs than the gates were made
 * for decide only what is far off.
 */
export const shareHolds = (share: number, limit: number, runs: number, slack: number): boolean =>
  share <= limit + slack * standardError(limit, runs);

/** The order statistic ⌊q(n − 1)⌋ (from 0); with slack the one of the lowest share that q may be. */
export const quantile = (values: readonly number[], q: number, slack = 0): number => {
  const lowest = Math.max(0, q - slack * standardError(q, values.length));
  return values.toSorted((a, b) => a - b)[Math.floor(lowest * (values.length - 1))] ?? Number.POSITIVE_INFINITY;
};

export type SafetyReading = { readonly runs: number; readonly halt: number; readonly hold: number };

export const readSafety = (runs: readonly Run[]): SafetyReading => ({
  runs: runs.length,
  halt: runs.filter(({ halt }) => halt !== null).length / runs.length,
  hold: runs.filter(({ hold }) => hold !== null).length / runs.length,
});

/** Delays in minutes; a run without the decision has an infinite one, one that decided before the onset is left out. */
export type SpeedReading = {
  readonly runs: number;
  readonly early: number;
  readonly delays: readonly number[];
  readonly median: number;
  readonly p95: number;
  readonly miss: number;
  readonly devices: number;
  readonly dead: number;
  /** Median over the runs; infinite where half of them miss. */
  readonly affectedHours: number;
};

export const readSpeed = (scenario: string, decision: 'hold' | 'halt', runs: readonly Run[]): SpeedReading => {
  const world = worlds.find(({ id }) => id === scenario);
  const onset = world?.onset ?? frozenOnset;
  const counted = runs.filter((run) => run[decision] === null || run[decision] >= onset);
  const delays = counted.map((run) => (run[decision] === null ? Number.POSITIVE_INFINITY : run[decision] - onset + 1));
  const median = quantile(delays, 0.5);
  return {
    ...{ runs: counted.length, early: runs.length - counted.length, delays, median, p95: quantile(delays, 0.95) },
    miss: delays.filter((delay) => delay === Number.POSITIVE_INFINITY).length / counted.length,
    // Both grow with the tick, which is all that they depend on: those of the median are the medians.
    devices: world ? devicesAt(world, onset + median - 1) : 0,
    affectedHours: world ? affectedHoursUntil(world, onset + median) : 0,
    dead: quantile(
      counted.map(({ dead }) => dead),
      0.5,
    ),
  };
};

const devicesAt = (world: World, tick: number): number =>
  Number.isFinite(tick) ? segmentSizes.reduce((sum, _, s) => sum + updatedDevices(world, s, tick), 0) : tick;

/** Σ U_s/60 over the affected segments, from the onset up to the tick, exclusive. */
const affectedHoursUntil = (world: World, end: number): number => {
  if (!Number.isFinite(end)) return end;
  let devices = 0;
  for (const segment of affectedSegments(world))
    for (let tick = world.onset; tick < end; tick++) devices += updatedDevices(world, segment, tick);
  return devices / 60;
};

/** Whether the runs keep the limits. */
export const speedHolds = (reading: SpeedReading, limits: Limits, slack: number): boolean => {
  const { median, p95, miss, devices, dead } = limits;
  return (
    (median === undefined || quantile(reading.delays, 0.5, slack) <= median) &&
    (p95 === undefined || quantile(reading.delays, 0.95, slack) <= p95) &&
    (miss === undefined || shareHolds(reading.miss, miss, reading.runs, slack)) &&
    (devices === undefined || reading.devices <= devices) &&
    (dead === undefined || reading.dead <= dead)
  );
};
