/** The same rules on the same input must do the same on every engine that loaded them, or the difference is declared. */
import type { Difference } from '../content/family.ts';
import { compareRuleIds, type EngineBuild, type RuleId } from '../release.ts';

/** What a cell's engine did: which rules alerted on which input, and which rules it has. */
export type Observation = {
  readonly cellId: string;
  readonly engine: Pick<EngineBuild, 'name' | 'version'>;
  readonly configuration: string;
  readonly rules: readonly RuleId[];
  /** By input; an input that is not there was not looked at. */
  readonly alerts: Readonly<Record<string, readonly RuleId[]>>;
};

export type Divergence = {
  readonly rule: RuleId;
  readonly input: string;
  /** Cells in which it alerts, and in which it is loaded and stays silent. */
  readonly alerting: readonly string[];
  readonly silent: readonly string[];
};

/** Whether a declared difference is about this engine. */
export const appliesTo = (difference: Difference, engine: Pick<EngineBuild, 'name' | 'version'>): boolean =>
  difference.engines.some((one) => one === `${engine.name}@${engine.version}` || one === `${engine.name}@*`);

/**
 * Silent divergences in the order of inputs and rules. Only cells of one configuration are compared; those of an engine with a
 * declared difference for rule and input are left out.
 */
export const findDivergences = (
  observations: readonly Observation[],
  differences: readonly Difference[],
): readonly Divergence[] => {
  const found: Divergence[] = [];
  for (const configuration of [...new Set(observations.map((one) => one.configuration))]) {
    const cells = observations.filter((one) => one.configuration === configuration);
    const inputs = [...new Set(cells.flatMap(({ alerts }) => Object.keys(alerts)))].sort();
    for (const input of inputs) {
      const seen = new Set(cells.flatMap(({ alerts }) => alerts[input] ?? []));
      for (const rule of [...seen].sort(compareRuleIds)) {
        const about = differences.filter((one) => one.rule === rule && one.vector === input);
        const compared = cells.filter(
          (cell) =>
            cell.alerts[input] !== undefined &&
            cell.rules.includes(rule) &&
            !about.some((difference) => appliesTo(difference, cell.engine)),
        );
        const alerting = compared.filter((cell) => cell.alerts[input]?.includes(rule));
        const silent = compared.filter((cell) => !alerting.includes(cell));
        if (alerting.length === 0 || silent.length === 0) continue;
        const ids = (list: readonly Observation[]) => list.map(({ cellId }) => cellId);
        found.push({ rule, input, alerting: ids(alerting), silent: ids(silent) });
      }
    }
  }
  return found;
};

/** Cells that differ from the others. Who is right is not known: the fewer are named. */
export const differentCells = (divergences: readonly Divergence[]): readonly string[] => [
  ...new Set(divergences.flatMap(({ alerting, silent }) => (alerting.length < silent.length ? alerting : silent))),
];
