/** `sigrel judge`: its statistic on a recorded series, without servers, and on a release's telemetry once more, from Kafka. */
import type { Command } from 'commander';
import { SigrelError } from '../../../domain/errors.ts';
import { compareRecomputed, createWindowFold, type Recomputed } from '../../../domain/judge/recompute.ts';
import { type Evaluation, evaluateSeries } from '../../../domain/judge/series.ts';
import type { Verdict } from '../../../domain/release.ts';
import { foldEvents, isTerminal } from '../../../domain/release-state.ts';
import { decodeTelemetry, type Window } from '../../../domain/telemetry.ts';
import { plural } from '../../../domain/timeline.ts';
import type { StoredEvent } from '../../../events/catalogue.ts';
import { bucketOf } from '../../../infra/cohort.ts';
import { digestOf } from '../../../infra/content/digests.ts';
import { createKafka, silent } from '../../../infra/kafka/client.ts';
import { eachRecord, readToEnd } from '../../../infra/kafka/read.ts';
import { partitionsOf, type Topic, topicName } from '../../../infra/kafka/topics.ts';
import { stderrProgress, step } from '../../../infra/servers/progress.ts';
import { brokersOf, readEvents } from '../context.ts';
import type { Global } from '../global.ts';
import { cut, note, out, outJson, paint, table, wrap } from '../output.ts';
import { readSeries } from '../series-file.ts';

export const addJudgeCommands = (program: Command, global: Global): void => {
  const judge = program.command('judge').description('the statistic that holds and halts releases');
  judge
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
  judge
    .command('recompute')
    .argument('<id>', 'the release')
    .option('--json', 'for programs')
    .description(
      'windows and decisions of a release once more from the telemetry in Kafka, while all of it is there (7 days); exit code 3 when they are not as recorded',
    )
    .addHelpText('after', '\nExample:\n  $ sigrel judge recompute ips-20261124-101500')
    .action(async (id: string, options: { json?: boolean }) => {
      const found = await recompute(global, id);
      if (options.json) outJson({ releaseId: id, ...found });
      else sayRecomputed(found);
      if (found.differences.length > 0) global.exitWith(3);
    });
};

/** From Kafka alone: the telemetry, the windows that were made of it, and the events that name verdicts. Throws SRP_*. */
const recompute = async (global: Global, releaseId: string): Promise<Recomputed> => {
  const config = global.config();
  const events = await readEvents(config, releaseId);
  const kafka = createKafka({ brokers: brokersOf(config), clientId: 'sigrel-cli', log: silent });
  const nameOf = (topic: Topic) => topicName(config.kafka.topicPrefix, topic);
  const fold = createWindowFold({ releaseId, partitions: partitionsOf('telemetry.reports.v1'), bucketOf });
  const reports = nameOf('telemetry.reports.v1');
  let records = 0;
  await step(stderrProgress(), 'telemetry of the whole fleet, folded again', () =>
    eachRecord(
      kafka,
      reports,
      { whole: true, timeoutMs: longestReadMs },
      ({ partition, offset, appendedAt, value }) => {
        records += 1;
        fold.take(partition, Number(offset), appendedAt, decodeTelemetry(value));
      },
    ),
  );
  const written = await readToEnd(kafka, nameOf('telemetry.windows.v1'), { keep: (key) => key === releaseId });
  const recorded = written.map(({ value }): Window => JSON.parse(new TextDecoder().decode(value)));
  const state = foldEvents(events);
  // While a release is open, the last ticks are in one of the two logs only.
  const lastOf = (windows: readonly Window[]): number => {
    const last = new Map<number, number>();
    for (const { partition, tick } of windows) last.set(partition, Math.max(last.get(partition) ?? -1, tick));
    return Math.min(...last.values(), Number.POSITIVE_INFINITY);
  };
  const until =
    state && isTerminal(state) ? Number.POSITIVE_INFINITY : Math.min(lastOf(fold.windows()), lastOf(recorded)) - 1;
  const upTo = (windows: readonly Window[]) => windows.filter(({ tick }) => tick <= until);
  const known = { windows: upTo(recorded), verdicts: verdictsIn(events).filter(({ tick }) => tick <= until) };
  note(`${records} records, ${plural(recorded.length, 'recorded window')}`);
  return compareRecomputed(releaseId, upTo(fold.windows()), known, digestOf);
};

/** A day of a large fleet. */
const longestReadMs = 3_600_000;

const verdictsIn = (events: readonly StoredEvent[]): readonly Verdict[] =>
  events.flatMap((event) => {
    if (event.type === 'StageHeld') return event.data.verdict ?? [];
    if (event.type !== 'RegressionDetected') return [];
    const { stage: _stage, ...verdict } = event.data;
    return verdict;
  });

const sayRecomputed = ({ windows, ticks, verdicts, differences }: Recomputed): void => {
  if (windows === 0 && differences.length === 0) {
    out('there is no window of this release: nobody was offered it, or no tick is over');
    return;
  }
  out(`${plural(windows, 'window')} of ${plural(ticks, 'tick')} made once more`);
  for (const { kind, cell, tick, statA, statB } of verdicts) {
    const keys = `key A ${statA.toPrecision(6)}, key B ${statB.toPrecision(6)}`;
    out(wrap(`${paint(kind === 'halt' ? 'red' : 'yellow', kind.toUpperCase())} at tick ${tick}: ${cell}, ${keys}`, ''));
  }
  if (differences.length === 0) {
    out(paint('green', 'all as recorded'));
    return;
  }
  out(paint('red', `${plural(differences.length, 'difference')}`));
  for (const one of differences.slice(0, 20)) out(wrap(one, '  '));
  if (differences.length > 20) out(`  and ${differences.length - 20} more: --json has them`);
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
