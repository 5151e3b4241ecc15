/**
 * `npm run bench`: what sigrel costs, beside baselines measured in the same run. Writes bench-results/<time>.json with every
 * single value.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { availableParallelism, cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { checkout } from '../../apps/cli/context.ts';
import { note, out, paint } from '../../apps/cli/output.ts';
import { stderrProgress } from '../../infra/servers/progress.ts';
import { benchAggregate } from './aggregate.ts';
import { benchExposure } from './exposure.ts';
import { benchGateway } from './gateway.ts';
import { benchHalt, haltGates } from './halt.ts';
import { benchLoad } from './load.ts';
import { benchMatrix } from './matrix.ts';
import { benchPipeline } from './pipeline.ts';

const usage = `npm run bench -- [pipeline] [load] [exposure] [matrix] [halt] [aggregate] [gateway] [--halts N] [--releases N]
                  [--minutes N] [--devices N] [--rate N] [--reports N] [--reduced] [--only GATES] [--runs N]
  pipeline   a release beside its engines, recording, from harm to freeze (servers of its own): --halts 10, --releases 5
  load       from the crossing report to the freeze under 10,000 reports a second, and whether anything falls behind
             (servers of its own): --halts 50, --minutes 5, --devices 100000, --rate 10000; --apart: gateway
             and aggregator in a process of their own; exit code 1 when an aim is missed
  exposure   the fleet that a fault reaches until HOLD and HALT in the whole path, against the least that any rule needs
             (servers of its own): --runs 5 of each of three faults; exit code 1 when an aim is missed
  matrix     the example families over every engine, and a large rule set (no servers)
  halt       the gates of the halt judge in simulated worlds (no servers): --reduced takes a minute instead of
             some ten, --only F1,D3 runs some gates, --runs another number of times than the specification says;
             exit code 1 when a MUST gate fails
  aggregate  memory per device, and reports to windows beside kafkajs alone (servers of its own);
             exit code 1 when an aim is missed
  gateway    reports per second in batches of 100 with a Kafka of its own, beside kafkajs alone: --reports 200000 a round;
             exit code 1 when the aim is missed
  all of them, when none is named`;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    halts: { type: 'string' },
    minutes: { type: 'string', default: '5' },
    devices: { type: 'string' },
    rate: { type: 'string', default: '10000' },
    apart: { type: 'boolean', default: false },
    releases: { type: 'string', default: '5' },
    reports: { type: 'string', default: '200000' },
    reduced: { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
    runs: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
});
const counts = ['halts', 'releases', 'devices', 'rate', 'reports', 'runs'] as const;
const noCount = counts.find(
  (name) => values[name] !== undefined && !(Number.isSafeInteger(Number(values[name])) && Number(values[name]) > 0),
);
const noMinutes = !(Number(values.minutes) >= 0);
const only = values.only.split(',').filter((gate) => gate !== '');
const runs = values.runs === undefined ? null : Number(values.runs);
/** An aim that is not reached is an exit code. */
const judged = async (
  measuring: Promise<{ readonly figures: object; readonly failed: readonly string[] }>,
): Promise<object> => {
  const { figures, failed } = await measuring;
  if (failed.length > 0) process.exitCode = 1;
  return figures;
};
const parts = {
  pipeline: () => benchPipeline({ halts: Number(values.halts ?? 10), releases: Number(values.releases) }),
  load: () =>
    judged(
      benchLoad({
        ...{ halts: Number(values.halts ?? 50), minutes: Number(values.minutes) },
        ...{ devices: Number(values.devices ?? 100_000), reportsPerSecond: Number(values.rate) },
        apart: values.apart,
      }),
    ),
  exposure: () => judged(benchExposure({ runs: runs ?? 5, devices: Number(values.devices ?? 20_000) })),
  matrix: () => benchMatrix(stderrProgress()),
  gateway: () => judged(benchGateway({ reports: Number(values.reports), rounds: 5 }, stderrProgress())),
  halt: () => judged(benchHalt({ form: values.reduced ? 'reduced' : 'full', only, runs }, stderrProgress())),
  aggregate: () => judged(benchAggregate()),
};
type Part = keyof typeof parts;
const isPart = (name: string): name is Part => name in parts;

const unknown = positionals.find((name) => !isPart(name)) ?? only.find((gate) => !haltGates.includes(gate));
if (values.help || unknown !== undefined || noCount !== undefined || noMinutes) {
  if (unknown !== undefined) note(`there is no part and no gate "${unknown}" of the benchmark`);
  if (noCount !== undefined) note(`--${noCount} ${values[noCount]}: expected a whole number from 1`);
  if (noMinutes) note(`--minutes ${values.minutes}: expected a number from 0`);
  note(usage);
  process.exit(values.help ? 0 : 2);
}
const date = new Date().toISOString();
const chosen = positionals.length === 0 ? (Object.keys(parts) as Part[]) : positionals.filter(isPart);
const figures: Record<string, object> = {};
for (const part of chosen) {
  out(paint('bold', part));
  figures[part] = await parts[part]();
}
const result = {
  date,
  command: `npm run bench -- ${process.argv.slice(2).join(' ')}`.trim(),
  machine: {
    cores: availableParallelism(),
    cpu: cpus()[0]?.model,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    node: process.version,
  },
  ...figures,
};
const file = join(checkout, 'bench-results', `${date.replaceAll(/[:.]/g, '-')}.json`);
await mkdir(join(checkout, 'bench-results'), { recursive: true });
await writeFile(file, `${JSON.stringify(result, null, 2)}\n`);
note(`written to ${file}`);
process.exit();
