/** `sigrel judge run`: the judge's statistic on a recorded series, without servers. */
import type { Command } from 'commander';
import { SigrelError } from '../../../domain/errors.ts';
import { type Evaluation, evaluateSeries } from '../../../domain/judge/series.ts';
import { plural } from '../../../domain/timeline.ts';
import type { Global } from '../global.ts';
import { cut, out, outJson, paint, table, wrap } from '../output.ts';
import { readSeries } from '../series-file.ts';

export const addJudgeCommands = (program: Command, global: Global): void => {
  program
    .command('judge')
    .description('the statistic that holds and halts releases')
    .command('run')
    .argument('<file>', 'a recorded series: policy, ticks and, where known, expected values (JSON)')
    .option('--json', 'for programs')
    .description('evaluate a recorded series; exit code 3 when it differs from what it expects')
    .addHelpText('after', '\nExample:\n  $ sigrel judge run test/vectors/halt/series/02-crash-x100-fleet-wide.json')
    .action(async (file: string, options: { json?: boolean }) => {
      const evaluation = await evaluate(file);
      if (options.json) outJson(evaluation);
      else say(evaluation);
      if (evaluation.differences.length > 0) global.exitWith(3);
    });
};

/** Throws SRP_INPUT_SERIES. */
const evaluate = async (file: string): Promise<Evaluation> => {
  const evaluation = evaluateSeries(await readSeries(file));
  if (!('refused' in evaluation)) return evaluation;
  throw new SigrelError('SRP_INPUT_SERIES', `${file}: ${evaluation.refused}`);
};

const say = (evaluation: Evaluation): void => {
  const { ticks, latches, hold, halt, promoteReady, differences, compared } = evaluation;
  const columns = ['tick', 'key A', 'of cell', 'key B', 'of cell', 'gate', 'what'].map((name) => ({
    name,
    right: ['tick', 'key A', 'key B', 'gate'].includes(name),
  }));
  const events = (tick: number): string[] => [
    ...(hold?.tick === tick ? [paint('yellow', 'HOLD')] : []),
    ...(halt?.tick === tick ? [paint('red', 'HALT')] : []),
    ...(promoteReady === tick ? [paint('green', 'promote')] : []),
  ];
  out(
    table(
      columns,
      ticks.map(({ tick, A, B, promote }) => [
        String(tick),
        A.value.toPrecision(4),
        cut(A.cell, 22),
        B.value.toPrecision(4),
        cut(B.cell, 22),
        // The gate opens when every critical cell has enough: the least of them says how far it is.
        promote === null ? '' : Math.min(...promote).toPrecision(4),
        events(tick).join(' '),
      ]),
    ),
  );
  out('');
  out(hold ? wrap(`${paint('yellow', 'HOLD')} at tick ${hold.tick}: ${hold.cell}`, '') : 'no HOLD');
  out(
    halt
      ? wrap(
          `${paint('red', 'HALT')} at tick ${halt.tick}: ${halt.cell}, key A ${halt.A.toPrecision(6)}, key B ${halt.B.toPrecision(6)}`,
          '',
        )
      : 'no HALT',
  );
  if (promoteReady !== null) out(`${paint('green', 'promote')} from tick ${promoteReady}`);
  for (const { cell, A, B } of latches) out(wrap(`latched by ${cell}: A ${A ?? 'never'}, B ${B ?? 'never'}`, '  '));
  if (differences.length === 0) {
    out(compared === 0 ? 'the series expects nothing' : paint('green', `all ${plural(compared, 'value')} as expected`));
    return;
  }
  out(paint('red', `${differences.length} of ${plural(compared, 'value')} not as expected`));
  for (const one of differences.slice(0, 20)) out(wrap(one, '  '));
  if (differences.length > 20) out(`  and ${differences.length - 20} more: --json has them`);
};
