/**
 * `npm run bench -- halt`: the benchmark of the halt specification (section 15), by the product's own judge: how often it
 * halts without reason, and how fast with one. No servers.
 */
import { availableParallelism } from 'node:os';
import { type Column, out, table } from '../../apps/cli/output.ts';
import { type Progress, step } from '../../infra/servers/progress.ts';
import { type Form, fails, type Group, gateIds, measureGroup, type Outcome } from './halt/measure.ts';
import { createPool } from './halt/pool.ts';
import { tickOutcome } from './halt/tick.ts';

const titles: Record<Group | 'tick', string> = {
  safety: 'false alarms of whole releases: share of the runs',
  cells: 'false decisions of one cell: share of the runs',
  speed: 'minutes from the onset to the decision: median/95th percentile',
  tick: 'one tick of a large release, on one core',
};

/** What `--only` may name. */
export const haltGates: readonly string[] = [...gateIds, 'tick'];

/** Prints a table per group; `failed`: the gates whose MUST does not hold. */
export const benchHalt = async (
  { form, only, runs }: { readonly form: Form; readonly only: readonly string[]; readonly runs: number | null },
  progress: Progress,
): Promise<{ readonly figures: object; readonly failed: readonly string[] }> => {
  const started = performance.now();
  const cpu = process.cpuUsage();
  const pool = createPool();
  const outcomes: Outcome[] = [];
  try {
    for (const group of ['safety', 'cells', 'speed'] as const) {
      const found = await measureGroup(group, {
        ...{ pool, form, only, runs },
        step: (what, work) => step(progress, what, work),
      });
      if (found.length > 0) out(`\n${titleOf(group, found)}\n${tableOf(group, found, form)}`);
      outcomes.push(...found);
    }
  } finally {
    await pool.close();
  }
  if (only.length === 0 || only.includes('tick')) {
    const tick = tickOutcome();
    out(`\n${titles.tick}\n${tableOf('tick', [tick], form)}`);
    outcomes.push(tick);
  }
  const named = (list: readonly Outcome[]) => list.map(({ gate, what }) => `${gate} (${what})`);
  const failing = outcomes.filter((one) => fails(one, form));
  const failed = named(failing);
  const targets = outcomes.filter(({ onTarget }) => onTarget !== null);
  const reached = targets.filter(({ onTarget }) => onTarget).length;
  const nearly = named(failing.filter((one) => one.nearly));
  const good = outcomes.every(({ keeps }) => keeps) ? 'all MUST gates hold' : 'no MUST gate fails';
  out(failed.length === 0 ? `\n${good}` : `\nMUST gates that fail: ${failed.join(', ')}`);
  if (nearly.length > 0) out(`of these by less than two standard errors of the runs: ${nearly.join(', ')}`);
  out(`${reached} of ${targets.length} TARGETs are reached`);
  if (form === 'reduced')
    out('reduced form: a MUST fails only beyond three standard errors of these few runs; until then it is open');
  const wallSeconds = Math.round((performance.now() - started) / 1_000);
  // Of all threads; a machine that does other work takes longer, not more.
  const { user, system } = process.cpuUsage(cpu);
  const cpuSeconds = Math.round((user + system) / 1e6);
  return { figures: { form, wallSeconds, cpuSeconds, threads: availableParallelism(), failed, outcomes }, failed };
};

const titleOf = (group: Group, outcomes: readonly Outcome[]): string =>
  group === 'speed' ? `${titles.speed}, ${outcomes[0]?.runs} runs each` : titles[group];

const reachedBy = (outcome: Outcome, form: Form): string => {
  const { keeps, onTarget, must } = outcome;
  if (fails(outcome, form)) return 'FAILS';
  if (!keeps) return 'open';
  if (must === '' && onTarget !== true) return '–';
  return onTarget === true ? 'target' : 'must';
};

type ColumnOf = Column & { readonly of: (outcome: Outcome) => string };

const tableOf = (group: Group | 'tick', outcomes: readonly Outcome[], form: Form): string => {
  const right = group !== 'speed';
  const runs: ColumnOf = { name: 'runs', right: true, of: (one) => String(one.runs) };
  const columns: ColumnOf[] = [
    { name: 'gate', of: (one) => one.gate },
    { name: { safety: 'world', cells: 'world', speed: 'scenario', tick: 'size' }[group], of: (one) => one.what },
    // All scenarios have the same number, which the title has room for.
    ...(group === 'speed' ? [] : [runs]),
    { name: 'reached', of: (one) => reachedBy(one, form) },
    { name: { safety: 'HALT', cells: 'false', speed: 'HALT', tick: 'judge' }[group], right, of: (one) => one.halt },
    ...(group === 'cells' ? [] : [{ name: group === 'tick' ? 'bare' : 'HOLD', right, of: (one: Outcome) => one.hold }]),
    { name: 'MUST', of: (one) => one.must },
    { name: 'TARGET', of: (one) => one.target },
  ];
  return table(
    columns,
    outcomes.map((one) => columns.map(({ of }) => of(one))),
  );
};
