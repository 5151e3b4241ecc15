/** `sigrel lint`: the gates of the matrix on a folder, here and now, without servers. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Command } from 'commander';
import type { Family } from '../../../domain/content/family.ts';
import { type ContentFinding, findReusedIds, type Rule } from '../../../domain/content/rules.ts';
import { SigrelError } from '../../../domain/errors.ts';
import type { Divergence } from '../../../domain/matrix/divergence.ts';
import { isPromised } from '../../../domain/matrix/plan.ts';
import { type RuleRow, type RuleVerdict, ruleRows } from '../../../domain/matrix/rule-matrix.ts';
import type { CellResult, RuleId } from '../../../domain/release.ts';
import { firstFault, plural } from '../../../domain/timeline.ts';
import { parsePolicy } from '../../../events/policy-schema.ts';
import { loadFamily } from '../../../infra/content/load-family.ts';
import { createEngines } from '../../../infra/engines/catalogue.ts';
import { asNew, type Gap, testFamily } from '../../../infra/engines/local-matrix.ts';
import { acquirePacks, type Pack, packsOf } from '../../../infra/engines/packs.ts';
import { createMatrixTools } from '../../../infra/engines/tools.ts';
import { cacheRoot } from '../../../infra/servers/cache.ts';
import { stderrProgress, step } from '../../../infra/servers/progress.ts';
import type { Global } from '../global.ts';
import { renderHeatMap } from '../heat-map.ts';
import { note, out, outJson, outWords, paint, table, wrap } from '../output.ts';

type LintOptions = {
  readonly engine?: string[];
  readonly previous?: string;
  readonly html?: string;
  readonly json?: boolean;
  readonly fresh?: boolean;
};

export const addLintCommand = (program: Command, global: Global): void => {
  program
    .command('lint')
    .argument('<folder>', 'the content, as for "release start"')
    .option(
      '--engine <name...>',
      'on these engines only, e.g. suricata@6.0.1; else on every one that loads the language',
    )
    .option('--previous <folder>', 'what the fleet runs now: adds budgets, revert, first use and reused ids')
    .option('--fresh', 'test every cell again, also where nothing has changed since')
    .option('--html <file>', 'a heat map of rules and engines as one HTML file')
    .option('--json', 'for programs')
    .description('test content on every engine, without servers; exit code 3 when there are findings')
    .addHelpText('after', '\nExample:\n  $ sigrel lint examples/releases/astaro --html astaro.html')
    .action(async (folder: string, options: LintOptions) => {
      const progress = stderrProgress();
      const loaded = await loadFamily(folder);
      if (!loaded.ok) {
        if (options.json)
          outJson({ folder, findings: loaded.findings, cells: [], rules: [], gaps: [], divergences: [] });
        else sayFindings(loaded.findings);
        return global.exitWith(3);
      }
      const { family } = loaded;
      const previous = options.previous === undefined ? null : await readPrevious(options.previous, family);
      const packs = await acquirePacks(progress, options.engine ?? packsOf(family.language.engines));
      const findings = [
        ...policyFindings(family),
        ...findReusedIds(family.rules, previous ?? []),
        ...(options.engine === undefined ? supportFindings(family, packs) : []),
      ];
      checkEngines(packs, family);
      const tools = createMatrixTools(createEngines(progress), join(cacheRoot(), 'cells'));
      const builds = packs.map(({ build }) => build);
      const cells = builds.length * family.configurations.length;
      const matrix = await step(progress, `${plural(cells, 'cell')}, ${plural(family.rules.length, 'rule')}`, () =>
        testFamily(options.fresh ? asNew(tools) : tools, family, builds, {
          previous,
          from: `lint at ${new Date().toISOString()}`,
        }),
      );
      const ids = family.rules.map((rule) => rule.ruleId);
      const results = matrix.cells.map(({ result }) => result);
      const rows = ruleRows(
        ids,
        matrix.cells.map(({ result: { cellId }, faults, notLoaded }) => ({ cellId, faults, notLoaded })),
      );
      if (options.html !== undefined) {
        const label = (id: RuleId) => family.rules.find((rule) => rule.ruleId === id)?.message ?? '';
        const html = renderHeatMap({ title: `${family.name}: ${folder}`, results, rows, label });
        await writeFile(options.html, html).catch((cause: Error) => {
          throw new SigrelError('SRP_INPUT_OUTPUT', `${options.html} cannot be written: ${cause.message}`, { cause });
        });
        note(`heat map written to ${options.html}`);
      }
      const { gaps, divergences } = matrix;
      const red = results.some((result) => result.verdict !== 'pass');
      if (options.json) {
        const rules = withPlaces(family, rows);
        outJson({ folder, family: family.name, findings, cells: results, rules, gaps, divergences });
      } else {
        sayFindings(findings);
        sayCells(results);
        sayRules(family, rows, red);
        sayGaps(gaps);
        sayDivergences(divergences);
      }
      if (findings.length > 0 || red || divergences.length > 0) global.exitWith(3);
    });
};

const policyFindings = (family: Family): readonly ContentFinding[] => {
  const parsed = parsePolicy(family.policy);
  return parsed.ok ? [] : parsed.findings.map((finding) => ({ ...finding, file: 'policy.yaml' }));
};

/** Versions that were promised and that nobody can test: their cells would block every release. */
const supportFindings = (family: Family, packs: readonly Pack[]): readonly ContentFinding[] => {
  const known = new Set(packs.map(({ build }) => `${build.name}@${build.version}`));
  const promised = family.support.filter((one) => isPromised(one, Date.now()) && !known.has(one.engine));
  return promised.map(({ engine }) => ({
    code: 'support',
    message: `there is no pack of ${engine}: its cells cannot be tested and block every release; known are ${[...known].join(', ')}`,
    file: 'support.yaml',
  }));
};

/** The rules of another folder of the same language. Throws SRP_INPUT_PREVIOUS. */
const readPrevious = async (folder: string, family: Family): Promise<readonly Rule[]> => {
  const loaded = await loadFamily(folder);
  if (!loaded.ok) {
    const [first] = loaded.findings;
    throw new SigrelError('SRP_INPUT_PREVIOUS', `${folder} cannot be what the fleet runs: ${first?.message}`);
  }
  if (loaded.family.language === family.language) return loaded.family.rules;
  const message = `${folder} is ${loaded.family.language.name}, expected ${family.language.name} like the content`;
  throw new SigrelError('SRP_INPUT_PREVIOUS', message);
};

const checkEngines = (packs: readonly Pack[], { language }: Family): void => {
  const other = packs.find(({ build }) => !language.engines.includes(build.name));
  if (!other) return;
  const message = `${other.build.name}@${other.build.version} does not load ${language.name}; expected ${packsOf(language.engines).join(', ')}`;
  throw new SigrelError('SRP_INPUT_ENGINE', message);
};

const sayGaps = (gaps: readonly Gap[]): void => {
  for (const { engine, rules } of gaps) {
    out('');
    outWords(paint('yellow', `${engine} goes without ${plural(rules.length, 'rule')}`));
    for (const { id, words } of rules) out(wrap(`${id}: ${words}`, '  '));
  }
};

const sayDivergences = (divergences: readonly Divergence[]): void => {
  for (const { rule, input, alerting, silent } of divergences) {
    out('');
    outWords(`${paint('red', 'silent divergence')} of rule ${rule} on ${input}, declared in no differences.yaml`);
    out(wrap(`alerts: ${alerting.join(', ')}`, '  '));
    out(wrap(`silent: ${silent.join(', ')}`, '  '));
  }
};

const sayFindings = (findings: readonly ContentFinding[]): void => {
  for (const { file, line, message } of findings) {
    out(wrap(`${file ? paint('red', `${file}${line ? `:${line}` : ''}`) : paint('red', 'content')}: ${message}`, ''));
  }
};

const sayCells = (results: readonly CellResult[]): void => {
  const columns = ['cell', 'verdict', 'rules', 'what is wrong first'].map((name) => ({
    name,
    right: name === 'rules',
  }));
  out(
    table(
      columns,
      results.map((result) => [
        result.cellId,
        paint(result.verdict === 'pass' ? 'green' : 'red', result.verdict),
        `${result.rulesLoaded ?? '-'} of ${result.rulesExpected}`,
        firstFault(result),
      ]),
    ),
  );
};

const marks = {
  ok: '.',
  'not-loaded': 'L',
  'refused-along': 'l',
  'no-alert': 'M',
  'extra-alert': 'X',
  unknown: '?',
} as const;
const legend =
  'L not loaded, l refused along with its file, M does not alert where it must, X alerts where it must not, ? no result, . fine';

/** Rules with something wrong as a table of rule and engine, then each with its place and what the engines say. */
const sayRules = (family: Family, rows: readonly RuleRow[], anyRed: boolean): void => {
  const some = (row: RuleRow, is: (verdict: RuleVerdict) => boolean) =>
    Object.values(row.cells).some((cell) => is(cell.verdict));
  const wrong = rows.filter((row) => some(row, isSaid));
  const along = rows.filter((row) => !wrong.includes(row) && some(row, (verdict) => verdict === 'refused-along'));
  if (wrong.length === 0) {
    const green = paint('green', 'fit every engine that was tested');
    out(anyRed ? '\nno rule is to blame: see the cells above' : `\nall ${plural(rows.length, 'rule')} ${green}`);
    return;
  }
  out(`\n${ruleTable(wrong)}\n${wrap(paint('dim', legend), '')}`);
  if (along.length > 0) out(`${plural(along.length, 'other rule')} were refused along with their file`);
  for (const row of wrong) {
    const rule = family.rules.find((one) => one.ruleId === row.ruleId);
    out('');
    outWords(`${paint('red', `${rule?.file}:${rule?.line}`)} rule ${row.ruleId} "${rule?.message ?? ''}"`);
    const said = new Map<string, string[]>();
    for (const [cellId, { verdict, words }] of Object.entries(row.cells)) {
      if (!isSaid(verdict)) continue;
      const line = `${verdict}: ${words}`;
      said.set(line, [...(said.get(line) ?? []), shortCell(cellId)]);
    }
    for (const [line, cells] of said) out(wrap(`${paint('red', cells.join(', '))}: ${line}`, '  '));
  }
};

/** Something that is the rule's own doing: a cell without a result says nothing about a single rule. */
const isSaid = (verdict: RuleVerdict): boolean => !['ok', 'unknown', 'refused-along'].includes(verdict);

/** `suricata-6.0.1-1f2e3d4c/ids` as people say it. */
const shortCell = (cellId: string): string => cellId.replace(/-[0-9a-f]{8}\//, ' ');

/** A row per rule, a column per cell under a number: names of cells are too long to stand side by side. */
const ruleTable = (rows: readonly RuleRow[]): string => {
  const cells = Object.keys(rows[0]?.cells ?? {});
  const columns = [{ name: 'rule' }, ...cells.map((_, index) => ({ name: String(index + 1) }))];
  const lines = rows.map((row) => [
    String(row.ruleId),
    ...cells.map((cellId) => {
      const mark = marks[row.cells[cellId]?.verdict ?? 'unknown'];
      return mark === '.' ? mark : paint('red', mark);
    }),
  ]);
  const numbers = cells.map((cellId, index) => `${index + 1} ${shortCell(cellId)}`).join(', ');
  return `${table(columns, lines)}\n${wrap(paint('dim', numbers), '')}`;
};

const withPlaces = (family: Family, rows: readonly RuleRow[]) =>
  rows.map((row) => {
    const rule = family.rules.find((one) => one.ruleId === row.ruleId);
    return { ...row, file: rule?.file, line: rule?.line, message: rule?.message };
  });
