/**
 * `npm run bench -- halt`: the benchmark of the halt specification (section 15), by the product's own judge: how often it
 * halts without reason, and how fast with one. No servers.
 */
import { availableParallelism } from 'node:os';
import { type Column, out, table } from '../../apps/cli/output.ts';
import { type Progress, step } from '../../infra/servers/progress.ts';
import { type Form, type Group, measureGroup, type Outcome } from './halt/measure.ts';
import { createPool } from './halt/pool.ts';

const titles: Record<Group, string> = {
  safety: 'false alarms of whole releases: share of the runs',
  cells: 'false decisions of one cell: share of the runs',
  speed: 'minutes from the onset to the decision: median/95th percentile',
};

/** Prints a table per group; `failed`: the gates whose MUST does not hold. */
export const benchHalt = async (
  { form, only }: { readonly form: Form; readonly only: readonly string[] },
  progress: Progress,
): Promise<{ readonly figures: object; readonly failed: readonly string[] }> => {
  const started = performance.now();
  const pool = createPool();
  const outcomes: Outcome[] = [];
  try {
    for (const group of ['safety', 'cells', 'speed'] as const) {
      const found = await measureGroup(group, { pool, form, only, step: (what, work) => step(progress, what, work) });
      if (found.length > 0) out(`\n${titles[group]}\n${tableOf(group, found)}`);
      outcomes.push(...found);
    }
  } finally {
    await pool.close();
  }
  const failed = outcomes.filter(({ holds }) => !holds).map(({ gate, what }) => `${gate} (${what})`);
  const targets = outcomes.filter(({ onTarget }) => onTarget !== null);
  const reached = targets.filter(({ onTarget }) => onTarget).length;
  out(
    `\n${failed.length === 0 ? 'all MUST gates hold' : `MUST gates that fail: ${failed.join(', ')}`}; ${reached} of ${targets.length} TARGETs are reached`,
  );
  if (form === 'reduced') out('reduced form: a MUST fails only beyond three standard errors of these few runs');
  const wallSeconds = Math.round((performance.now() - started) / 1_000);
  return { figures: { form, wallSeconds, threads: availableParallelism(), failed, outcomes }, failed };
};

const reachedBy = ({ holds, onTarget }: Outcome): string => {
  if (!holds) return 'FAILS';
  return onTarget === true ? 'target' : 'must';
};

const tableOf = (group: Group, outcomes: readonly Outcome[]): string => {
  const both = group !== 'cells';
  const columns: Column[] = [
    { name: 'gate' },
    { name: group === 'speed' ? 'scenario' : 'world' },
    ...(group === 'speed' ? [] : [{ name: 'runs', right: true }]),
    { name: 'reached' },
    { name: both ? 'HALT' : 'false', right: group !== 'speed' },
    ...(both ? [{ name: 'HOLD', right: group !== 'speed' }] : []),
    { name: 'MUST' },
    { name: 'TARGET' },
  ];
  return table(
    columns,
    outcomes.map((one) => [
      one.gate,
      one.what,
      ...(group === 'speed' ? [] : [String(one.runs)]),
      reachedBy(one),
      one.halt,
      ...(both ? [one.hold] : []),
      one.must,
      one.target,
    ]),
  );
};
