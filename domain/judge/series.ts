/** A recorded series, policy and ticks, evaluated from its first tick on and compared with what it expects (annex A). */
import { foldTick, initialJudgeState, type JudgeState, leading, type TickLeaves } from './fold.ts';
import { type JudgePolicy, type PromotePolicy, validateJudgePolicy } from './policy.ts';
import { foldPromote, initialPromoteState, promoteValues, validatePromote } from './promote.ts';

export type SeriesPolicy = JudgePolicy & {
  readonly start: readonly { readonly tick: number; readonly mass: number }[];
  readonly promote?: PromotePolicy;
};

type Text = string | number;

/** Numbers as decimal text: computed with more digits than a double has. Whatever is absent is not compared. */
export type Expected = {
  readonly tolerance?: { readonly relative: Text; readonly absolute: Text };
  readonly decision?: {
    readonly hold: { readonly tick: number; readonly cell: string } | null;
    readonly halt: { readonly tick: number; readonly cell: string; readonly A: Text; readonly B: Text } | null;
  };
  readonly latches?: readonly { readonly cell: string; readonly A: number | null; readonly B: number | null }[];
  readonly ticks?: readonly { readonly tick: number; readonly A: ExpectedKey; readonly B: ExpectedKey }[];
  readonly cells?: readonly {
    readonly tick: number;
    readonly A: Readonly<Record<string, Text>>;
    readonly B: Readonly<Record<string, Text>>;
  }[];
  readonly promote?: {
    readonly ready: number | null;
    readonly ticks: readonly Readonly<Record<string, Text>>[];
  };
};
type ExpectedKey = { readonly max: Text; readonly leading: readonly string[] };

export type Series = {
  readonly policy: SeriesPolicy;
  readonly ticks: readonly TickLeaves[];
  readonly expected?: Expected;
};

export type SeriesTick = {
  readonly tick: number;
  readonly A: { readonly cell: string; readonly value: number };
  readonly B: { readonly cell: string; readonly value: number };
  /** E_safe of the critical cells, in the order of the policy; null before the evidence begins, or without a gate. */
  readonly promote: readonly number[] | null;
};

export type Evaluation = {
  readonly ticks: readonly SeriesTick[];
  readonly latches: readonly { readonly cell: string; readonly A: number | null; readonly B: number | null }[];
  readonly hold: JudgeState['hold'];
  readonly halt: JudgeState['halt'];
  readonly promoteReady: number | null;
  /** One line per value that is not as the series expects it. */
  readonly differences: readonly string[];
  /** How many values were compared. */
  readonly compared: number;
};

/** Refused: the policy or a tick that must not be used, said in words. Folding goes on after a HALT. */
export const evaluateSeries = ({ policy, ticks, expected = {} }: Series): Evaluation | { readonly refused: string } => {
  const { promote } = policy;
  const findings = [...validateJudgePolicy(policy), ...(promote ? validatePromote(policy, promote) : [])];
  if (findings.length > 0) return { refused: `the policy is not sound: ${findings.join('; ')}` };
  const mass = new Map(policy.start.map((start) => [start.tick, start.mass]));
  const check = comparison(expected.tolerance);
  const rows: SeriesTick[] = [];
  let state = initialJudgeState(policy);
  let safe = promote ? initialPromoteState(promote) : null;
  for (const [tick, leaves] of ticks.entries()) {
    const next = foldTick(policy, state, { tick, startMass: mass.get(tick) ?? 0, leaves });
    if ('refused' in next) return next;
    state = next;
    const A = leading(policy, state.statistics.A);
    const B = leading(policy, state.statistics.B);
    const row = expected.ticks?.find((one) => one.tick === tick);
    const cells = expected.cells?.find((one) => one.tick === tick);
    for (const [key, first] of [['A', A] as const, ['B', B] as const]) {
      if (row) check.number(`tick ${tick}, largest of key ${key}`, first.value, row[key].max);
      if (row) check.one(`tick ${tick}, leading of key ${key}`, first.cell, row[key].leading);
      for (const [id, want] of Object.entries(cells?.[key] ?? {})) {
        const place = policy.cells.findIndex((cell) => cell.id === id);
        check.number(`tick ${tick}, ${id} of key ${key}`, state.statistics[key][place] ?? Number.NaN, want);
      }
    }
    safe = promote && safe ? foldPromote(policy, promote, safe, { tick, leaves }) : null;
    const values = promote && safe && tick >= promote.from ? promoteValues(promote, safe.logs) : null;
    const wanted = expected.promote?.ticks.find((one) => one.tick === tick);
    promote?.cells.forEach((id, c) => {
      const want = wanted?.[id];
      if (want !== undefined) check.number(`tick ${tick}, promote of ${id}`, values?.[c] ?? Number.NaN, want);
    });
    rows.push({ tick, A, B, promote: values });
  }
  const latches = policy.cells.flatMap((cell, c) => {
    const latch = state.latches[c] ?? { A: null, B: null };
    return latch.A === null && latch.B === null ? [] : [{ cell: cell.id, ...latch }];
  });
  const { decision } = expected;
  if (decision) {
    check.one('HOLD', said(state.hold), [said(decision.hold)]);
    check.one('HALT', said(state.halt), [said(decision.halt)]);
    for (const key of ['A', 'B'] as const)
      if (decision.halt) check.number(`key ${key} at the HALT`, state.halt?.[key] ?? Number.NaN, decision.halt[key]);
  }
  const latched = (list: Evaluation['latches']) => list.map(({ cell, A, B }) => `${cell} A ${A} B ${B}`).join(', ');
  if (expected.latches) check.one('latches', latched(latches), [latched(expected.latches)]);
  if (expected.promote) check.one('promote from tick', String(safe?.ready), [String(expected.promote.ready)]);
  const { differences, compared } = check.found();
  const promoteReady = safe?.ready ?? null;
  return { ticks: rows, latches, hold: state.hold, halt: state.halt, promoteReady, differences, compared };
};

const said = (decision: { readonly tick: number; readonly cell: string } | null): string =>
  decision === null ? 'none' : `tick ${decision.tick}, ${decision.cell}`;

const comparison = (tolerance: NonNullable<Expected['tolerance']> = { relative: 1e-9, absolute: 1e-9 }) => {
  const differences: string[] = [];
  let compared = 0;
  return {
    number: (what: string, got: number, want: Text) => {
      compared++;
      const allowed = Math.max(Number(tolerance.absolute), Number(tolerance.relative) * Math.abs(Number(want)));
      if (!(Math.abs(got - Number(want)) <= allowed)) differences.push(`${what}: ${got}, expected ${want}`);
    },
    one: (what: string, got: string, want: readonly string[]) => {
      compared++;
      if (!want.includes(got)) differences.push(`${what}: ${got || 'none'}, expected ${want.join(' or ') || 'none'}`);
    },
    found: () => ({ differences, compared }),
  };
};
