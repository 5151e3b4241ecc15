/**
 * The stage that reaches everybody leaves no control. From its first tick on the device-hour metrics are judged against what
 * the controls of this release have shown before (halt specification, section 10): not concurrent, so that only gross faults
 * count. Silence is left out: an outage on the way here silences everybody, and nothing would tell it from harm.
 */
import type { JudgeState } from './fold.ts';
import { type Bets, type FrozenCell, fleetShare, type JudgePolicy } from './policy.ts';

/** Section 14. The cells with concurrent control use 0.75 of the weight at most, so that these have their 0.25. */
const r0 = 3;
const share = 0.25;
const bets: Bets = (() => {
  const r = [5, 10, 30, 100, 300, 1000];
  return { r, weight: r.map(() => 1 / r.length) };
})();
const restartEvery = 10;

/**
 * The policy with the cells that begin in `tick`, and the state with room for them. The baseline is known at the start of the
 * tick: of each segment the events and the exposure of its controls so far; a segment that had none has no such cell.
 * `weights`: of the metrics. `ticks`: length of the stage.
 */
export const withFrozenCells = (
  policy: JudgePolicy,
  state: JudgeState,
  {
    tick,
    ticks,
    weights,
  }: { readonly tick: number; readonly ticks: number; readonly weights: ReadonlyMap<string, number> },
): { readonly policy: JudgePolicy; readonly state: JudgeState } => {
  const restarts = Array.from({ length: Math.max(1, Math.floor(ticks / restartEvery)) }, (_, n) => ({
    tick: tick + (n + 1) * restartEvery,
    mass: 0.5,
  }));
  const start = [{ tick, mass: 0.5 }, ...restarts.map((one) => ({ ...one, mass: one.mass / restarts.length }))];
  const cells = policy.metrics
    .filter(({ trial }) => trial === 'device-hour')
    .flatMap(({ id: metric }): FrozenCell[] => {
      const known = policy.leaves.flatMap((leaf, place) => {
        const [, events = 0, , exposure = 0] = state.totals[place] ?? [];
        return leaf.metric === metric && exposure > 0 ? [{ segment: leaf.segment, events, exposure }] : [];
      });
      if (known.length === 0) return [];
      const weight = share * (weights.get(metric) ?? 0);
      const common = { kind: 'frozen', metric, r0, bets, start } as const;
      return [
        {
          ...{ ...common, id: `${metric}/*/before`, segments: known.map(({ segment }) => segment) },
          ...{ weight: weight * fleetShare, baseline: known.map(({ events, exposure }) => ({ events, exposure })) },
        },
        ...known.map(({ segment, events, exposure }) => ({
          ...{ ...common, id: `${metric}/${segment}/before`, segments: [segment] },
          ...{ weight: (weight * (1 - fleetShare)) / known.length, baseline: { events, exposure } },
        })),
      ];
    });
  return { policy: { ...policy, cells: [...policy.cells, ...cells] }, state: withRoom(state, cells.length) };
};

const withRoom = (state: JudgeState, cells: number): JudgeState => {
  const more = <T>(values: readonly T[], value: T): readonly T[] => [...values, ...Array<T>(cells).fill(value)];
  return {
    ...state,
    states: { A: more(state.states.A, []), B: more(state.states.B, []) },
    statistics: { A: more(state.statistics.A, 0), B: more(state.statistics.B, 0) },
    latches: more(state.latches, { A: null, B: null }),
  };
};
