/** Runs the gates and says what each reached. */
import {
  cellGates,
  type Limits,
  readSafety,
  readSpeed,
  type SafetyGate,
  type Slack,
  type SpeedGate,
  safetyGates,
  shareHolds,
  speedGates,
  speedHolds,
} from './gates.ts';
import { differingStates } from './looks.ts';
import type { Pool } from './pool.ts';
import { worlds } from './worlds.ts';

export type Outcome = {
  readonly gate: string;
  readonly what: string;
  readonly runs: number;
  /** Whether the MUST holds; true where there is none. */
  readonly holds: boolean;
  /** null where there is no TARGET. */
  readonly onTarget: boolean | null;
  readonly halt: string;
  readonly hold: string;
  readonly must: string;
  readonly target: string;
  readonly values: object;
};

export type Group = 'safety' | 'cells' | 'speed';
export type Form = 'full' | 'reduced';

export type Measuring = {
  readonly pool: Pool;
  readonly form: Form;
  /** Ids of gates; all when empty. */
  readonly only: readonly string[];
  /** Wraps the runs of a gate, to show progress. */
  readonly step: <T>(what: string, work: () => Promise<T>) => Promise<T>;
};

/** Runs of the reduced form, which decides only what is far off. */
const reducedRuns: Record<Group, number> = { safety: 50, cells: 400, speed: 30 };

export const measureGroup = async (group: Group, measuring: Measuring): Promise<readonly Outcome[]> => {
  const { pool, form, only, step } = measuring;
  const slack: Slack = form === 'reduced' ? 3 : 0;
  const asked = ({ id }: { readonly id: string }) => only.length === 0 || only.includes(id);
  const runsOf = (gate: SafetyGate | SpeedGate) => {
    const count = form === 'reduced' ? reducedRuns[group] : gate.runs;
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

const safetyOutcome = (gate: SafetyGate, runs: Parameters<typeof readSafety>[0], slack: Slack): Outcome => {
  const read = readSafety(runs);
  const { halt, hold } = gate;
  return {
    ...{ gate: gate.id, what: gate.what, runs: read.runs, values: read },
    holds:
      shareHolds(read.halt, halt.must, read.runs, slack) &&
      (hold === null || shareHolds(read.hold, hold.must, read.runs, slack)),
    onTarget: halt.target === null ? null : read.halt <= halt.target,
    halt: percent(read.halt),
    hold: percent(read.hold),
    must: hold === null ? percent(halt.must) : `${percent(halt.must)}, hold ${percent(hold.must)}`,
    target: halt.target === null ? '' : percent(halt.target),
  };
};

const looksOutcome = (): Outcome => {
  const differing = ['N2', 'A5']
    .flatMap((name) => worlds.filter(({ id }) => id === name))
    .map((world) => differingStates(world, 120));
  const sum = differing.reduce((a, b) => a + b, 0);
  return {
    ...{ gate: 'F10', what: 'restarts and looks change nothing', runs: differing.length, values: { differing: sum } },
    ...{ holds: sum === 0, onTarget: null, halt: sum === 0 ? 'identical' : `${sum} differ`, hold: '' },
    ...{ must: 'identical', target: '' },
  };
};

const minutes = (n: number | undefined): string => (n === undefined ? '' : Number.isFinite(n) ? String(n) : '–');

const said = ({ median, p95, miss, devices, dead }: Limits, missAlways: boolean): string =>
  [
    p95 === undefined ? minutes(median) : `${minutes(median)}/${minutes(p95)}`,
    miss === undefined || (miss === 0 && !missAlways) ? '' : `miss ${percent(miss)}`,
    devices === undefined ? '' : `${devices} dev.`,
    dead === undefined ? '' : `${dead} dead`,
  ]
    .filter((part) => part !== '')
    .join(', ');

const speedOutcome = (gate: SpeedGate, runs: Parameters<typeof readSpeed>[2], slack: Slack): Outcome => {
  const halt = readSpeed(gate.scenario, 'halt', runs);
  const hold = readSpeed(gate.scenario, 'hold', runs);
  const read = gate.decision === 'halt' ? halt : hold;
  const { must, target, boundHours } = gate;
  const asked = { ...must, ...target };
  const shown = ({ median, p95, miss, devices, dead }: Limits): Limits => ({
    ...(median === undefined ? {} : { median }),
    ...(p95 === undefined ? {} : { p95 }),
    ...(miss === undefined ? {} : { miss }),
    ...(asked.devices === undefined || devices === undefined ? {} : { devices }),
    ...(asked.dead === undefined || dead === undefined ? {} : { dead }),
  });
  return {
    ...{ gate: gate.id, what: gate.what, runs: runs.length },
    holds: must === null || speedHolds(read, must, slack),
    onTarget: target === null ? null : speedHolds(read, target, 0),
    halt: said(shown(halt), false),
    hold: gate.scenario.startsWith('D16')
      ? ''
      : said(
          hold.miss > 0
            ? { median: hold.median, p95: hold.p95, miss: hold.miss }
            : { median: hold.median, p95: hold.p95 },
          false,
        ),
    must: must === null ? '' : `${gate.decision === 'hold' ? 'hold ' : ''}${said(must, true)}`,
    target: target === null ? '' : `${gate.decision === 'hold' ? 'hold ' : ''}${said(target, true)}`,
    values: { halt, hold, ...(boundHours === undefined ? {} : { ofBound: halt.affectedHours / boundHours }) },
  };
};
