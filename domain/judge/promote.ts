/**
 * The mirrored e-process (halt specification, section 9): evidence that the treated rate is below r1 * control rate + delta1.
 * Of one stage: it starts afresh with the stage, or at a HOLD that it shall clear.
 */
import { mixture } from './factor.ts';
import { leafPlaces, type TickLeaves } from './fold.ts';
import { betFindings, type JudgePolicy, type PromotePolicy } from './policy.ts';

/**
 * ln e of one tick for bet g in (0, 1) against "treated rate >= r1 * control rate + delta1". No treated exposure: exactly 0;
 * no control exposure: only the absolute claim adds evidence.
 */
export const promoteLogFactor = (
  x: number,
  y: number,
  treated: number,
  control: number,
  r1: number,
  delta1: number,
  g: number,
): number => {
  if (treated === 0) return 0;
  const relative = control === 0 ? 0 : y * Math.log1p(((r1 * treated) / control) * (1 - g));
  return x * Math.log(g) + relative + delta1 * treated * (1 - g);
};

/** Plain data. `logs[cell][bet]`: sum of ln e since the start of the evidence, cells as in `PromotePolicy.cells`. */
export type PromoteState = {
  readonly nextTick: number;
  readonly logs: readonly (readonly number[])[];
  /** First tick at which every critical cell has 1/beta. */
  readonly ready: number | null;
};

export const initialPromoteState = (promote: PromotePolicy): PromoteState => ({
  nextTick: promote.from,
  logs: promote.cells.map(() => promote.g.map(() => 0)),
  ready: null,
});

/**
 * Folds the leaves of one tick that the halt side has accepted. Ticks before `from` change nothing; later ones come in order,
 * and a missing one must be waited for. A cell of several segments sums their ln e at the same g, which tests the average
 * over segments and certifies no small one.
 */
export const foldPromote = (
  policy: JudgePolicy,
  promote: PromotePolicy,
  state: PromoteState,
  tick: { readonly tick: number; readonly leaves: TickLeaves },
): PromoteState => {
  if (tick.tick !== state.nextTick) return state;
  return addPromoteLogs(promote, state, tick.tick, (id) => promoteLogs(policy, promote, id, tick.leaves));
};

/** The same with the ln e of this tick handed in: several evidences of one tick share those of a cell. */
export const addPromoteLogs = (
  promote: PromotePolicy,
  state: PromoteState,
  tick: number,
  logsOf: (cellId: string) => readonly number[],
): PromoteState => {
  const logs = promote.cells.map((id, c) => logsOf(id).map((log, j) => (state.logs[c]?.[j] ?? 0) + log));
  return { nextTick: tick + 1, logs, ready: state.ready ?? (promotes(promote, logs) ? tick : null) };
};

/** ln e of one cell in one tick, per bet. */
export const promoteLogs = (
  policy: JudgePolicy,
  promote: PromotePolicy,
  cellId: string,
  leaves: TickLeaves,
): readonly number[] => {
  const cell = policy.cells.find(({ id }) => id === cellId);
  const delta1 = promote.delta1[cell?.metric ?? ''] ?? 0;
  const places = leafPlaces(policy, cellId);
  return promote.g.map((g) =>
    places.reduce((sum, place) => {
      const [x, y, treated, control] = leaves[place] ?? [0, 0, 0, 0];
      return sum + promoteLogFactor(x, y, treated, control, promote.r1, delta1, g);
    }, 0),
  );
};

/** E_safe of every critical cell: no start mixture, and no correction for their number, since all have to reject. */
export const promoteValues = (promote: PromotePolicy, logs: PromoteState['logs']): readonly number[] =>
  logs.map((one) => mixture(promote, one));

/** Whether every critical cell has 1/beta now, at one and the same tick. */
export const promotes = (promote: PromotePolicy, logs: PromoteState['logs']): boolean =>
  promoteValues(promote, logs).every((value) => value >= 1 / promote.beta);

/** Findings of a promote policy that must not be used; empty when it is sound. */
export const validatePromote = (policy: JudgePolicy, promote: PromotePolicy): string[] => {
  const findings: string[] = [];
  if (!(promote.beta > 0 && promote.beta < 1))
    findings.push(`promote beta is ${promote.beta}, expected between 0 and 1`);
  if (!(promote.r1 > 0)) findings.push(`promote r1 is ${promote.r1}, expected more than 0`);
  findings.push(...betFindings('promote', promote.g, promote.weight, (g) => g > 0 && g < 1, 'between 0 and 1'));
  if (promote.cells.length === 0) findings.push('promote names no critical cell');
  for (const id of promote.cells) {
    const cell = policy.cells.find((one) => one.id === id);
    if (cell === undefined) findings.push(`promote names cell ${id}, which is no cell of the policy`);
    else if (cell.kind === 'frozen') findings.push(`promote names cell ${id}: a frozen cell cannot be critical`);
    else if (!((promote.delta1[cell.metric] ?? -1) >= 0))
      findings.push(`promote has no delta1 for metric ${cell.metric}, expected a number from 0`);
  }
  return findings;
};
