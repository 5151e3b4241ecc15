/** `sigrel evidence`: what the judge's numbers come from, and what a stage can show. */
import { writeFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { SigrelError } from '../../../domain/errors.ts';
import { type ExplainedCell, type Explanation, explainEvidence } from '../../../domain/judge/explain.ts';
import type { TickEvidence } from '../../../domain/judge/session.ts';
import { metrics } from '../../../domain/policy.ts';
import { plural } from '../../../domain/timeline.ts';
import type { EvidenceAnswer } from '../../../services/api/contract.ts';
import type { Global } from '../global.ts';
import { note, out, outJson, outWords, paint, table, wrap } from '../output.ts';
import { plotLines, plotSvg } from '../plot.ts';

type Options = { readonly segment?: string; readonly metric?: string; readonly svg?: string; readonly json?: boolean };

/** More than a screen says nothing more: the largest come first. */
const shown = 20;

export const addEvidenceCommand = (program: Command, global: Global): void => {
  program
    .command('evidence')
    .argument('<id>', 'the release')
    .option('--segment <segment>', 'its cells only, e.g. suricata-7.0.10-945d45ee/fail-open')
    .option('--metric <metric>', 'its cells only, e.g. crash')
    .option('--svg <file>', 'both keys over time as a picture')
    .option('--json', 'for programs: every tick and every cell')
    .description(
      'counts, exposures and both keys of each cell, and the smallest rise that the stage excludes; exit code 3 when its recorded statistics are not what its recorded counts give',
    )
    .addHelpText('after', '\nExample:\n  $ sigrel evidence ips-20261124-101500 --metric crash --svg evidence.svg')
    .action(async (id: string, options: Options) => {
      const { segment, metric } = options;
      const answer = await readAll(global, id);
      const { stages, policy, ticks: recorded } = answer;
      const choice = { ...(segment === undefined ? {} : { segment }), ...(metric === undefined ? {} : { metric }) };
      const evidence = explainEvidence(policy, recorded, choice);
      if (evidence.cells.length === 0) refuseChoice(explainEvidence(policy, recorded).cells, options);
      const of = [metric, segment].filter((one) => one !== undefined).join(' in ');
      const plot = { ...evidence, stages, title: `Evidence of ${id}${of === '' ? '' : `: ${of}`}` };
      if (options.svg !== undefined) {
        await writeFile(options.svg, plotSvg(plot)).catch((cause: Error) => {
          throw new SigrelError('SRP_INPUT_OUTPUT', `${options.svg} cannot be written: ${cause.message}`, { cause });
        });
        note(`picture written to ${options.svg}`);
      }
      const { holds, clearedCells, halt } = answer;
      if (options.json) outJson({ releaseId: id, stages, holds, clearedCells, halt, evidence });
      else say(answer, evidence, of);
      if (evidence.refused !== null || evidence.ticks.some(({ asRecorded }) => !asRecorded)) global.exitWith(3);
    });
};

/** Page after page: a long release has hundreds of thousands of ticks. */
const readAll = async (global: Global, id: string): Promise<EvidenceAnswer> => {
  const page = (from: number) =>
    global.api().get<EvidenceAnswer>(`/releases/${encodeURIComponent(id)}/evidence?from=${from}`);
  let answer = await page(0);
  const ticks: TickEvidence[] = [...answer.ticks];
  while (answer.next !== null) {
    note(`${plural(ticks.length, 'tick')} read`);
    answer = await page(answer.next);
    ticks.push(...answer.ticks);
  }
  return { ...answer, ticks };
};

/** Throws SRP_INPUT_CELL: `cells` are all that there are. */
const refuseChoice = (cells: readonly ExplainedCell[], { segment, metric }: Options): void => {
  if (cells.length === 0) return;
  const known = (values: readonly (string | null)[]) => [...new Set(values.filter((one) => one !== null))].join(', ');
  const words = `no cell is of ${[metric, segment].filter((one) => one !== undefined).join(' in ')}; metrics are ${known(cells.map((cell) => cell.metric))}, segments ${known(cells.map((cell) => cell.segment))}`;
  throw new SigrelError('SRP_INPUT_CELL', words);
};

const say = (answer: EvidenceAnswer, evidence: Explanation, of: string): void => {
  const { stages, releaseId, holds, clearedCells, halt } = answer;
  const { ticks, thresholds, cells, refused } = evidence;
  const last = ticks.at(-1);
  if (last === undefined) {
    out(`release ${releaseId} has no evidence yet: nobody was offered it, or no tick is over`);
    return;
  }
  const stage = stages[last.stage] ?? String(last.stage);
  const halts = `${thresholds.A} on key A and ${thresholds.B} on key B of one cell`;
  outWords(
    `${plural(ticks.length, 'tick')}, now in stage ${stage}; a hold needs ${thresholds.hold} on key A, a halt ${halts}`,
  );
  out('');
  for (const line of plotLines({ ...evidence, stages, title: '' })) out(line);
  const plotted = of === '' ? 'all cells' : `the cells of ${of}`;
  const legend = `A, B: largest of each key over ${plotted} (* both); ┊ a stage opens; h HOLD, H HALT`;
  out(`${wrap(paint('dim', legend), ' '.repeat(9))}\n`);
  const columns = ['with it', 'without', 'key A', 'key B', 'latched', 'excludes', 'cell'].map((name, n) => ({
    name,
    right: n < 4,
  }));
  const sorted = [...cells].sort((a, b) => b.A - a.A);
  const rows = sorted.slice(0, shown).map((cell) => {
    const trial = metrics.some(({ id, trial: of }) => id === cell.metric && of === 'window');
    const counts = (events: number, exposure: number) => `${events} in ${rounded(exposure)}${trial ? '' : ' h'}`;
    return [
      ...[counts(cell.x, cell.treated), counts(cell.y, cell.control), rounded(cell.A), rounded(cell.B)],
      [cell.latchedA === null ? '' : `A ${cell.latchedA}`, cell.latchedB === null ? '' : `B ${cell.latchedB}`].join(
        ' ',
      ),
      cell.excludes === null ? 'nothing' : `+${rounded(cell.excludes)}${trial ? '/trial' : '/h'}`,
      cell.cell,
    ];
  });
  out(table(columns, rows));
  if (sorted.length > shown) out(`and ${sorted.length - shown} more: --json has them, --metric and --segment choose`);
  out(
    wrap(
      '\nlargest key A first; latched: the tick at which a key had reached its threshold; excludes: the smallest rise above three times the rate without it that the evidence of this stage rules out at 5 %; whatever is smaller, this stage cannot see yet',
      '',
    ),
  );
  for (const { verdict, clearedAt } of holds) {
    const cleared = clearedCells.includes(verdict.cell) ? ', cleared by a person' : '';
    const until = clearedAt === null ? cleared : `, cleared by evidence at tick ${clearedAt}`;
    out(wrap(`${paint('yellow', 'HOLD')} at tick ${verdict.tick}: ${verdict.cell}${until}`, ''));
  }
  if (halt) {
    out(wrap(`${paint('red', 'HALT')} at tick ${halt.tick}: ${halt.cell}`, ''));
    const { latchedBoth = [], suspects = [] } = halt.attribution ?? {};
    out(wrap(`both keys: ${latchedBoth.join(', ')}`, '  '));
    out(wrap(`suspects, most suspect first (false discoveries at most 10 %): ${suspects.join(', ')}`, '  '));
  }
  const other = ticks.filter(({ asRecorded }) => !asRecorded);
  if (refused !== null) out(paint('red', wrap(`the windows cannot be folded: ${refused}`, '')));
  out(
    other.length === 0
      ? paint('green', 'every tick is as the judge recorded it')
      : paint('red', `${plural(other.length, 'tick')} not as the judge recorded it, the first is ${other[0]?.tick}`),
  );
};

const rounded = (value: number): string => {
  if (value === 0) return '0';
  if (value >= 1e5 || value < 1e-3) return value.toExponential(1);
  return value >= 100 ? String(Math.round(value)) : value.toPrecision(3);
};
