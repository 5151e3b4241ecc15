/** Runs the gates and says what each reached. */
import {
  cellGates,
  type Limits,
  readSafety,
  readSpeed,
  type SafetyGate,
  type SpeedGate,
  type SpeedReading,
  safetyGates,
  shareHolds,
  speedGates,
  speedHolds,
} from './gates.ts';
import { differingStates } from './looks.ts';
import type { Pool } from './pool.ts';
import type { Run } from './simulate.ts';
import { worlds } from './worlds.ts';

export type Outcome = {
  readonly gate: string;
  readonly what: string;
  readonly runs: number;
  /** Whether the measured values keep the MUST; true where there is none. */
  readonly keeps: boolean;
  /** They miss it by less than two standard errors of this many runs (three in the reduced form), or keep it. */
  readonly nearly: boolean;
  /** null where there is no TARGET. */
  readonly onTarget: boolean | null;
  readonly halt: string;
  readonly hold: string;
  readonly must: string;
  readonly target: string;
  readonly values: object;
};

export const gateIds: readonly string[] = [
  ...new Set([...safetyGates, { id: 'F10' }, ...cellGates, ...speedGates].map(({ id }) => id)),
];

/** So few runs as those of the reduced form decide only what is far off. */
export const fails = ({ keeps, nearly }: Outcome, form: Form): boolean => (form === 'reduced' ? !nearly : !keeps);

export type Group = 'safety' | 'cells' | 'speed';
export type Form = 'full' | 'reduced';

export type Measuring = {
  readonly pool: Pool;
  readonly form: Form;
  /** Ids of gates; all when empty. */
  readonly only: readonly string[];
  /** Runs of every gate; null: as many as the specification, or the reduced form, says. */
  readonly runs: number | null;
  /** Wraps the runs of a gate, to show progress. */
  readonly step: <T>(what: string, work: () => Promise<T>) => Promise<T>;
};

/** Runs of the reduced form, which decides only what is far off. */
const reducedRuns: Record<Group, number> = { safety: 50, cells: 400, speed: 30 };

export const measureGroup = async (group: Group, measuring: Measuring): Promise<readonly Outcome[]> => {
  const { pool, form, only, runs, step } = measuring;
  const slack = form === 'reduced' ? 3 : 2;
  const asked = ({ id }: { readonly id: string }) => only.length === 0 || only.includes(id);
  const runsOf = (gate: SafetyGate | SpeedGate) => {
    const count = runs ?? (form === 'reduced' ? reducedRuns[group] : gate.runs);
    return step(`${gate.id} ${gate.what}, ${count} runs`, () => pool.runs(gate.scenario, count));
  };
  const found: Outcome[] = [];
  if (group === 'speed') {
    for (const gate of speedGates.filter(asked)) found.push(speedOutcome(gate, await runsOf(gate), slack));
    return found;
  }
  const gates = group === 'safety' ? safetyGates : cellGates;
  for (const gate of gates.filter(asked)) found.push(safetyOutcome(gate, await runsOf(gate), slack));
  if (group === 'safety' && asked({ id: 'F10' })) found.push(looksOutcome());
  return found;
};

const percent = (share: number): string => `${Number((100 * share).toFixed(2))} %`;

const safetyOutcome = (gate: SafetyGate, runs: readonly Run[], slack: number): Outcome => {
  const read = readSafety(runs);
  const { halt, hold } = gate;
  const target = halt?.target ?? null;
  const keeps = (errors: number): boolean =>
    (halt === null || shareHolds(read.halt, halt.must, read.runs, errors)) &&
    (hold === null || shareHolds(read.hold, hold.must, read.runs, errors));
  return {
    ...{ gate: gate.id, what: gate.what, runs: read.runs, values: read },
    ...{ keeps: keeps(0), nearly: keeps(slack) },
    onTarget: target === null ? null : read.halt <= target,
    halt: percent(read.halt),
    hold: percent(read.hold),
    must: halt === null ? '' : `${percent(halt.must)}${hold === null ? '' : `, hold ${percent(hold.must)}`}`,
    target: target === null ? '' : percent(target),
  };
};

const looksOutcome = (): Outcome => {
  const differing = ['N2', 'A5']
    .flatMap((name) => worlds.filter(({ id }) => id === name))
    .map((world) => differingStates(world, 120));
  const sum = differing.reduce((a, b) => a + b, 0);
  return {
    ...{ gate: 'F10', what: 'restarts and looks change nothing', runs: differing.length, values: { differing: sum } },
    ...{ keeps: sum === 0, nearly: sum === 0, onTarget: null },
    ...{ halt: sum === 0 ? 'identical' : `${sum} differ`, hold: '', must: 'identical', target: '' },
  };
};

const minutes = (n: number | undefined): string => (n !== undefined && Number.isFinite(n) ? String(n) : '–');

const said = ({ median, p95, miss, devices, dead }: Limits): string =>
  [
    p95 === undefined ? minutes(median) : `${minutes(median)}/${minutes(p95)}`,
    miss === undefined ? '' : `miss ${percent(miss)}`,
    devices === undefined ? '' : `${devices} dev.`,
    dead === undefined ? '' : `${dead} dead`,
  ]
    .filter((part) => part !== '')
    .join(', ');

const speedOutcome = (gate: SpeedGate, runs: readonly Run[], slack: number): Outcome => {
  const halt = readSpeed(gate.scenario, 'halt', runs);
  const hold = readSpeed(gate.scenario, 'hold', runs);
  const read = gate.decision === 'halt' ? halt : hold;
  const { must, target, boundHours } = gate;
  const asked = { ...must, ...target };
  const measured = ({ median, p95, miss }: SpeedReading): Limits => ({ median, p95, ...(miss > 0 ? { miss } : {}) });
  return {
    ...{ gate: gate.id, what: gate.what, runs: runs.length },
    keeps: must === null || speedHolds(read, must, 0),
    nearly: must === null || speedHolds(read, must, slack),
    onTarget: target === null ? null : speedHolds(read, target, 0),
    halt: said({
      ...measured(halt),
      ...(asked.devices === undefined ? {} : { devices: halt.devices }),
      ...(asked.dead === undefined ? {} : { dead: halt.dead }),
    }),
    // A frozen cell alone: its HOLD is no question of the gate.
    hold: gate.id === 'D16' ? '' : said(measured(hold)),
    must: must === null ? '' : said(must),
    target: target === null ? '' : said(target),
    values: { halt, hold, ...(boundHours === undefined ? {} : { ofBound: halt.affectedHours / boundHours }) },
  };
};
