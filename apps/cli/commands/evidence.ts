/** `sigrel evidence`: what the judge's numbers come from, and what a stage can show. */
import { writeFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { SigrelError } from '../../../domain/errors.ts';
import type { ExplainedCell } from '../../../domain/judge/explain.ts';
import { metrics } from '../../../domain/policy.ts';
import { plural } from '../../../domain/timeline.ts';
import type { EvidenceAnswer } from '../../../services/api/contract.ts';
import type { Global } from '../global.ts';
import { note, out, outJson, paint, table, wrap } from '../output.ts';
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
      const answer = await global.api().get<EvidenceAnswer>(`/releases/${encodeURIComponent(id)}/evidence`);
      const { evidence, stages } = answer;
      const cells = chosen(evidence.cells, options);
      const plot = { ...evidence, stages, title: `Evidence of ${id}` };
      if (options.svg !== undefined) {
        await writeFile(options.svg, plotSvg(plot)).catch((cause: Error) => {
          throw new SigrelError('SRP_INPUT_OUTPUT', `${options.svg} cannot be written: ${cause.message}`, { cause });
        });
        note(`picture written to ${options.svg}`);
      }
      if (options.json) outJson({ ...answer, evidence: { ...evidence, cells } });
      else say(answer, cells);
      if (evidence.refused !== null || evidence.ticks.some(({ asRecorded }) => !asRecorded)) global.exitWith(3);
    });
};

/** Throws SRP_INPUT_CELL when there is no such cell. */
const chosen = (cells: readonly ExplainedCell[], { segment, metric }: Options): readonly ExplainedCell[] => {
  const found = cells.filter(
    (cell) => (segment === undefined || cell.segment === segment) && (metric === undefined || cell.metric === metric),
  );
  if (found.length > 0 || cells.length === 0) return found;
  const known = (values: readonly (string | null)[]) => [...new Set(values.filter((one) => one !== null))].join(', ');
  const words = `no cell is of ${[metric, segment].filter((one) => one !== undefined).join(' in ')}; metrics are ${known(cells.map((cell) => cell.metric))}, segments ${known(cells.map((cell) => cell.segment))}`;
  throw new SigrelError('SRP_INPUT_CELL', words);
};

const say = ({ evidence, stages, releaseId }: EvidenceAnswer, cells: readonly ExplainedCell[]): void => {
  const { ticks, thresholds, hold, halt, refused } = evidence;
  const last = ticks.at(-1);
  if (last === undefined) {
    out(`release ${releaseId} has no evidence yet: nobody was offered it, or no tick is over`);
    return;
  }
  const stage = stages[last.stage] ?? String(last.stage);
  out(`${plural(ticks.length, 'tick')}, now in stage ${stage}; a hold needs ${thresholds.hold} on key A, a halt`);
  out(`${thresholds.A} on key A and ${thresholds.B} on key B of one cell\n`);
  for (const line of plotLines({ ...evidence, stages, title: '' })) out(line);
  out(paint('dim', '         A, B: largest of each key over all cells (* both); ┊ a stage opens; h HOLD, H HALT\n'));
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
  if (hold) out(wrap(`${paint('yellow', 'HOLD')} at tick ${hold.tick}: ${hold.cell}`, ''));
  if (halt) out(wrap(`${paint('red', 'HALT')} at tick ${halt.tick}: ${halt.cell}`, ''));
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
