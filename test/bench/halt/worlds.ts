/** The worlds and scenarios of the halt specification, section 15.1, and the variants its gates ask for. */
import type { PromoteRow } from './cells.ts';
import { halfPercent, type MetricId, metrics, twoPercent, type World, worldOf } from './world.ts';

const everyMetric = (ratio: number): Partial<World> => ({ effect: () => ratio });

const ratioOf = (metric: MetricId, ratio: number, only?: number): Partial<World> => ({
  effect: (id, segment) => (id === metric && (only === undefined || segment === only) ? ratio : 1),
});

const brick = (share: number, only?: number): Partial<World> => ({
  brick: (segment) => (only === undefined || segment === only ? share : 0),
});

const daily = (tick: number): number => 1 + 0.6 * Math.sin((2 * Math.PI * tick) / 360);
const ofNetwork = new Set<MetricId>([3, 4, 8, 9].flatMap((place) => metrics[place]?.id ?? []));

/** A network event in both arms, on top of a daily rhythm. */
const networkEvent: Partial<World> = {
  common: (tick, metric) => daily(tick) * (tick >= 200 && tick < 230 && ofNetwork.has(metric) ? 6 : 1),
};

const lateScenario = { onset: 205 } as const;
const stayingAt25 = { lastShare: 0.25 } as const;
const stratified = { stratified: true } as const;

export const worlds: readonly World[] = [
  worldOf('N1'),
  worldOf('N2', networkEvent),
  worldOf('N3', { outages: 'by device' }),
  worldOf('N4', { outages: 'by site' }),
  worldOf('N4d', { outages: 'by site, counted once' }),
  worldOf('N5', everyMetric(1.3)),
  worldOf('N6', everyMetric(1.5)),
  worldOf('A1', ratioOf('crash', 3)),
  worldOf('A1 at 25 %', { ...ratioOf('crash', 3), ...stayingAt25 }),
  worldOf('A2', ratioOf('crash', 10)),
  worldOf('A3', ratioOf('crash', 100)),
  worldOf('A4', ratioOf('crash', 100, twoPercent)),
  worldOf('A5', ratioOf('crash', 1000, twoPercent)),
  worldOf('A6', ratioOf('load-failure', 1000, twoPercent)),
  worldOf('A7', ratioOf('blocked', 300, twoPercent)),
  worldOf('A8', ratioOf('scan-error', 3)),
  worldOf('A9', brick(1, twoPercent)),
  worldOf('A10', brick(0.2, twoPercent)),
  worldOf('A11', brick(0.01)),
  worldOf('A12', { ...ratioOf('crash', 30), ...lateScenario }),
  worldOf('A13 at 25 %', { ...ratioOf('proxy-down', 30, twoPercent), ...lateScenario, ...stayingAt25 }),
  worldOf('A14 stratified', { ...brick(1, halfPercent), ...stratified }),
  worldOf('A14 stratified, 3 min', { ...brick(1, halfPercent), ...stratified, deadline: 3 }),
];

// ---- one cell each

export const frailtyShapes = [Number.POSITIVE_INFINITY, 1, 0.1, 0.02, 0.005];

/** Expected events of the baseline. */
export const frozenCounts = [0.05, 0.5, 2, 5, 20, 100];

const row = (baseline: number, r1: number, delta1: number, ratio: number, expected: number): PromoteRow => ({
  ...{ baseline, r1, delta1, ratio, expected },
});

/** The second table of section 16.3. */
export const promoteRows = [
  row(1e-4, 3, 1e-3, 999, 3_176),
  row(1e-4, 3, 0, 999, 33_308),
  row(1e-4, 2, 0, 3, 150_217),
  row(1e-3, 2, 0, 999, 9_779),
  row(1e-3, 3, 1e-3, 3, 2_717),
  row(2e-2, 2, 0, 999, 489),
  row(2e-2, 3, 1e-2, 3, 188),
];

export const promoteRowName = ({ baseline, r1, delta1, ratio }: PromoteRow): string =>
  `${baseline.toExponential()}/h, below ×${r1}${delta1 > 0 ? ` + ${delta1.toExponential()}/h` : ''}, C/T ${ratio}`;

/** D16. `share` of the frozen cells' weight. */
export const frozenFaults = [
  { name: '×10, fleet', devices: 200_000, share: 0.045, ratio: 10 },
  { name: '×100 in 2 %', devices: 4_000, share: 0.00525, ratio: 100 },
  { name: '×1000 in 2 %', devices: 4_000, share: 0.00525, ratio: 1000 },
];
