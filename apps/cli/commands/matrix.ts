/** `sigrel matrix`: what the engines of the field said of a release, and what two people decide against it. */
import { writeFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { SigrelError } from '../../../domain/errors.ts';
import { detailLimit, type Fault } from '../../../domain/matrix/gates.ts';
import { ruleRows } from '../../../domain/matrix/rule-matrix.ts';
import {
  type CellResult,
  compareRuleIds,
  configurationOf,
  type GateResult,
  type Waiver,
} from '../../../domain/release.ts';
import { duration, plural } from '../../../domain/timeline.ts';
import type { KnownWaiver } from '../../../domain/waiver.ts';
import type { ReleaseAnswer, WaiverAnswer, WaiversAnswer, WithdrawalAnswer } from '../../../services/api/contract.ts';
import type { Global } from '../global.ts';
import { renderHeatMap } from '../heat-map.ts';
import { defaultBy, parseEnd, parsePerson, parseReason } from '../options.ts';
import { note, out, outJson, outWords, paint, table, wrap } from '../output.ts';
import { redCells } from '../view.ts';

export const addMatrixCommands = (program: Command, global: Global): void => {
  const matrix = program.command('matrix').description('the test on every engine of the field');
  addWaivers(matrix, global);
  matrix
    .command('show')
    .argument('<id>', 'the release')
    .description('cells, gates and what the engines said')
    .option('--html <file>', 'as one HTML file with a heat map')
    .option('--json', 'for programs')
    .addHelpText('after', '\nExample:\n  $ sigrel matrix show ips-20261124-101500 --html matrix.html')
    .action(async (id: string, options: { html?: string; json?: boolean }) => {
      const { release: state } = await global.api().get<ReleaseAnswer>(`/releases/${encodeURIComponent(id)}`);
      if (options.json)
        return outJson({ releaseId: id, matrix: state.matrix, gaps: state.gaps, excluded: state.excluded });
      if (!state.matrix) return out(`release ${id} has no matrix: it is ${state.phase}`);
      const { cells, results, fleetDevices, verdict } = state.matrix;
      if (options.html !== undefined) await writeHeatMap(id, results, options.html);
      const columns = ['engine', 'as', 'devices', 'rules', 'verdict', 'time', 'memory', 'gates that did not pass'].map(
        (name) => ({
          name,
          right: ['devices', 'rules', 'time', 'memory'].includes(name),
        }),
      );
      const rowsOf = cells.map((cell) => {
        const result = results.find((one) => one.cellId === cell.cellId);
        const red = result?.gates.filter((gate) => gate.verdict !== 'pass').map((gate) => gate.gate) ?? [];
        const colour = result?.verdict === 'pass' ? 'green' : 'red';
        const peak = result?.usage?.peakBytes;
        return [
          `${cell.engine.name} ${cell.engine.version}`,
          configurationOf(cell),
          String(cell.devices),
          result ? `${result.rulesLoaded ?? '-'} of ${result.rulesExpected}` : '',
          result ? paint(colour, result.verdict) : paint('dim', 'not yet'),
          result ? (result.reused ? 'reused' : duration(result.wallMs)) : '',
          peak ? `${Math.round(peak / 2 ** 20)} MB` : '',
          red.join(', '),
        ];
      });
      out(`${plural(cells.length, 'cell')} for ${plural(fleetDevices, 'device')}: ${verdict}`);
      out(table(columns, rowsOf));
      for (const result of redCells(state)) {
        out(`\n${paint('red', result.cellId)}`);
        for (const gate of result.gates.filter((one) => one.verdict !== 'pass')) sayGate(gate);
      }
      for (const { rule, input, alerting, silent } of state.matrix.divergences) {
        out('');
        outWords(`${paint('red', 'silent divergence')} of rule ${rule} on ${input}`);
        out(wrap(`alerts: ${alerting.join(', ')}`, '  '));
        out(wrap(`silent: ${silent.join(', ')}`, '  '));
      }
      for (const gap of state.gaps) {
        const head = `${gap.engine} goes without ${plural(gap.rules.length, 'rule')} (${plural(gap.devices, 'device')})`;
        out('');
        outWords(paint('yellow', head));
        for (const { rule, words } of gap.rules) out(wrap(`${rule}: ${words}`, '  '));
      }
      for (const { waiver, engine, devices } of state.excluded) {
        const by = `${waiver.by.join(' and ')} until ${waiver.expiresAt.slice(0, 10)}: ${waiver.reason}`;
        out('');
        outWords(`${paint('yellow', `${engine} is excluded`)} (${plural(devices, 'device')}) by ${by}`);
      }
      for (const waiver of state.matrix.overridden) {
        const by = `${waiver.by.join(' and ')} until ${waiver.expiresAt.slice(0, 10)}: ${waiver.reason}`;
        out('');
        outWords(`${paint('yellow', `${waiver.target} is overridden`)} by ${by}`);
        sayFailures(waiver);
      }
    });
};

/** What a gate saw and what it needs, then rule by rule what was wrong, in the engine's own words. */
const sayGate = ({ gate, observed, operator, limit, details }: GateResult): void => {
  out(wrap(`${gate}: ${observed}, needs ${operator} ${limit}`, '  '));
  for (const { rule, vector, file, line, words } of details) {
    const place = [
      rule === undefined ? '' : `rule ${rule}`,
      vector === undefined ? '' : `vector ${vector}`,
      file === undefined ? '' : `${file}:${line ?? ''}`,
    ].filter((part) => part !== '');
    out(wrap(`${place.length === 0 ? '' : `${place.join(', ')}: `}${words}`, '    '));
  }
};

type WaiverOptions = { readonly by: string; readonly reason: string; readonly until: string; readonly json?: boolean };

/** What exactly two people let pass. */
const sayFailures = ({ failures = [] }: Pick<Waiver, 'failures'>): void => {
  for (const failure of failures) out(wrap(`lets pass: ${failure}`, '  '));
};

/** Two people may have asked for two ends. */
const ofEnds = ({ askedUntil }: KnownWaiver): string => {
  const days = [...new Set(askedUntil.map((end) => end.slice(0, 10)))];
  return days.length < 2 ? '' : ` (the earlier of the two that were asked for, ${days.join(' and ')})`;
};

const takenBack = ({ withdrawn }: KnownWaiver): string =>
  withdrawn === null ? '' : `; withdrawn by ${withdrawn.by} on ${withdrawn.at.slice(0, 10)}: ${withdrawn.reason}`;

/** `matrix exclude`, `override`, `withdraw` and `waivers`: what two people decide against the matrix. */
const addWaivers = (matrix: Command, global: Global): void => {
  const decision = (command: Command) =>
    command
      .requiredOption('--by <person>', 'who decides; a second, different person puts it in force', parsePerson)
      .requiredOption('--reason <text>', 'why', parseReason)
      .requiredOption(
        '--until <date>',
        'its end, e.g. 2027-01-31; at most 90 days; of both ends the earlier counts',
        parseEnd,
      )
      .option('--json', 'for programs');
  const told = ({ waiver, inForce }: WaiverAnswer, json: boolean | undefined): void => {
    const until = `${waiver.expiresAt.slice(0, 10)}${ofEnds(waiver)}`;
    const by = waiver.by.join(' and ');
    if (json) outJson({ waiver, inForce });
    else if (inForce) outWords(`in force until ${until}, by ${by}: ${waiver.target}`);
    else outWords(`proposed by ${by} until ${until}; a second person puts it in force with the same command`);
    if (!json) sayFailures(waiver);
  };
  decision(
    matrix
      .command('exclude')
      .argument('<family>', 'e.g. ips')
      .argument('<engine>', 'its id, as in "fleet status"')
      .description('leave the devices of an engine out of the releases of a family'),
  )
    .addHelpText(
      'after',
      '\nExample:\n  $ sigrel matrix exclude ips suricata-5.0.2-1f2e3d4c \\\n      --by ann --reason "no pack, 3 lab devices" --until 2027-01-31',
    )
    .action(async (family: string, engine: string, { json, ...asked }: WaiverOptions) => {
      const path = `/families/${encodeURIComponent(family)}/exclusions`;
      told(await global.api().post<WaiverAnswer>(path, { engine, ...asked }), json);
    });
  decision(
    matrix
      .command('override')
      .argument('<release>', 'the release that was blocked')
      .argument('<cell>', 'the red cell, as in "matrix show"')
      .description('let a red cell pass in the next release of exactly this content; never a void one'),
  )
    .addHelpText(
      'after',
      '\nExample:\n  $ sigrel matrix override ips-20261124-101500 suricata-6.0.1-1f2e3d4c/ids \\\n      --by ann --reason "known, harmless" --until 2027-01-31',
    )
    .action(async (release: string, cell: string, { json, ...asked }: WaiverOptions) => {
      const path = `/releases/${encodeURIComponent(release)}/overrides`;
      told(await global.api().post<WaiverAnswer>(path, { cell, ...asked }), json);
    });
  matrix
    .command('withdraw')
    .argument('<family>', 'e.g. ips')
    .argument('<what>', 'the engine or the cell, as in "matrix waivers"')
    .description('take an exclusion or override back, proposed or in force; one person is enough')
    .requiredOption('--reason <text>', 'why', parseReason)
    .option('--by <person>', 'who takes it back', parsePerson, defaultBy())
    .option('--json', 'for programs')
    .addHelpText(
      'after',
      `
A release that is under way looks at the field, and at what is in force, before each stage and
before it completes. An overridden cell that is red holds it there (engine-untested): it neither
grows nor completes until two people override the cell anew, or exclude its engine, and somebody
resumes it. An excluded engine is part of the field again, and tested: without green cells the
release is held in the same way; with them it grows with the next stage, which one person may
decide as with pause and resume; one that missed a stage waits for the next release.

Example:
  $ sigrel matrix withdraw ips suricata-5.0.2-1f2e3d4c --by eve --reason "the pack is there"`,
    )
    .action(async (family: string, target: string, { json, ...said }: Omit<WaiverOptions, 'until'>) => {
      const path = `/families/${encodeURIComponent(family)}/waivers/withdraw`;
      const answer = await global.api().post<WithdrawalAnswer>(path, { target, ...said });
      if (json) return outJson(answer);
      for (const waiver of answer.withdrawn) {
        const what = waiver.kind === 'exclude' ? 'the exclusion' : 'the override';
        outWords(
          `withdrawn: ${what} of ${target} by ${waiver.by.join(' and ')}, until ${waiver.expiresAt.slice(0, 10)}`,
        );
        sayFailures(waiver);
      }
    });
  matrix
    .command('waivers')
    .argument('<family>', 'e.g. ips')
    .option('--json', 'for programs')
    .description('exclusions and overrides of a family: proposed, in force, over, withdrawn')
    .addHelpText('after', '\nExample:\n  $ sigrel matrix waivers ips')
    .action(async (family: string, options: { json?: boolean }) => {
      const path = `/families/${encodeURIComponent(family)}/waivers`;
      const { waivers } = await global.api().get<WaiversAnswer>(path);
      if (options.json) return outJson({ waivers });
      if (waivers.length === 0) return out(`family ${family} has no exclusion and no override`);
      const columns = ['kind', 'what', 'state', 'until', 'by', 'reason'].map((name) => ({ name }));
      out(
        table(
          columns,
          waivers.map((waiver) => [
            ...[waiver.kind, waiver.target, waiver.state, waiver.expiresAt.slice(0, 10)],
            ...[waiver.by.join(', '), `${waiver.reason}${ofEnds(waiver)}${takenBack(waiver)}`],
          ]),
        ),
      );
      for (const waiver of waivers.filter(({ kind }) => kind === 'override')) {
        out(`\n${waiver.target}`);
        sayFailures(waiver);
      }
    });
};

/** Rules that some gate names. */
const writeHeatMap = async (id: string, results: readonly CellResult[], file: string): Promise<void> => {
  const named = results.flatMap(({ gates }) => gates.flatMap(({ details }) => details.map(({ rule }) => rule)));
  const ids = [...new Set(named.filter((rule) => rule !== undefined))].sort(compareRuleIds);
  const cells = results.map((result) => ({
    cellId: result.cellId,
    faults: faultsIn(result),
    notLoaded: result.rulesLoaded === null ? null : refusedBy(result),
    partial: result.gates.some(({ verdict, details }) => verdict !== 'pass' && details.length >= detailLimit),
  }));
  const html = renderHeatMap({ title: `Matrix of ${id}`, results, rows: ruleRows(ids, cells), label: () => '' });
  await writeFile(file, html).catch((cause: Error) => {
    throw new SigrelError('SRP_INPUT_OUTPUT', `${file} cannot be written: ${cause.message}`, { cause });
  });
  note(`heat map written to ${file}`);
};

const refusedBy = (result: CellResult) =>
  result.gates
    .filter(({ gate }) => gate === 'rules-loaded')
    .flatMap(({ details }) => details.flatMap(({ rule, words }) => (rule === undefined ? [] : [{ id: rule, words }])));

const faultsIn = (result: CellResult): readonly Fault[] =>
  result.gates
    .filter(({ verdict }) => verdict === 'fail')
    .flatMap(({ gate, details }) => {
      const kind = gate === 'must-match' ? 'no-alert' : 'extra-alert';
      if (!['must-match', 'must-not-match', 'goodware', 'traffic-smoke'].includes(gate)) return [];
      return details.flatMap(({ rule, vector, words }): Fault[] =>
        rule === undefined || vector === undefined ? [] : [{ rule, input: vector, kind, words }],
      );
    });
