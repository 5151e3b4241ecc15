/** `sigrel lint`: the gates of the matrix on a folder, here and now, without servers. */
import { writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import type { Command } from 'commander';
import type { Family } from '../../../domain/content/family.ts';
import type { ContentFinding } from '../../../domain/content/rules.ts';
import { SigrelError } from '../../../domain/errors.ts';
import { type Cell, engineId } from '../../../domain/release.ts';
import { type LoadedRules, type RuleRow, ruleRows } from '../../../domain/rule-matrix.ts';
import { testCell } from '../../../domain/test-cell.ts';
import { firstFault, plural } from '../../../domain/timeline.ts';
import { parsePolicy } from '../../../events/policy-schema.ts';
import { loadFamily } from '../../../infra/content/load-family.ts';
import { findNotLoaded } from '../../../infra/engines/not-loaded.ts';
import { acquirePacks, type Pack } from '../../../infra/engines/packs.ts';
import { createEngineRunner } from '../../../infra/engines/runner.ts';
import { type Progress, stderrProgress, step } from '../../../infra/servers/progress.ts';
import type { Global } from '../global.ts';
import { renderHeatMap } from '../heat-map.ts';
import { note, out, outJson, paint, table, wrap } from '../output.ts';

type LintOptions = { readonly engine?: string[]; readonly html?: string; readonly json?: boolean };

export const addLintCommand = (program: Command, global: Global): void => {
  program
    .command('lint')
    .argument('<folder>', 'the content, as for "release start"')
    .option('--engine <name...>', 'on these engines only, e.g. suricata@6.0.1')
    .option('--html <file>', 'a heat map of rules and engines as one HTML file')
    .option('--json', 'for programs')
    .description('test content on every engine, without servers; exit code 3 when there are findings')
    .addHelpText('after', '\nExample:\n  $ sigrel lint examples/releases/astaro --html astaro.html')
    .action(async (folder: string, options: LintOptions) => {
      const progress = stderrProgress();
      const loaded = await loadFamily(folder);
      const findings = loaded.ok ? policyFindings(loaded.family) : loaded.findings;
      if (!loaded.ok) {
        if (options.json) outJson({ folder, findings, cells: [], rules: [] });
        else sayFindings(findings);
        return global.exitWith(3);
      }
      const { family } = loaded;
      const packs = await acquirePacks(progress, options.engine);
      const cells = await testAll(family, packs, progress);
      const ids = family.rules.map((rule) => rule.signatureId);
      const rows = ruleRows(ids, cells);
      const results = cells.map(({ result }) => result);
      const red = results.filter((result) => result.verdict !== 'pass');
      if (options.html !== undefined) {
        const label = (id: number) => family.rules.find((rule) => rule.signatureId === id)?.message ?? '';
        const html = renderHeatMap({ title: `${family.name}: ${folder}`, results, rows, label });
        await writeFile(options.html, html).catch((cause: Error) => {
          throw new SigrelError('SRP_INPUT_OUTPUT', `${options.html} cannot be written: ${cause.message}`, { cause });
        });
        note(`heat map written to ${options.html}`);
      }
      if (options.json)
        outJson({ folder, family: family.name, findings, cells: results, rules: withPlaces(family, rows) });
      else {
        sayFindings(findings);
        sayCells(cells);
        sayRules(family, rows, red.length > 0);
      }
      if (findings.length > 0 || red.length > 0) global.exitWith(3);
    });
};

const policyFindings = (family: Family): readonly ContentFinding[] => {
  const parsed = parsePolicy(family.policy);
  return parsed.ok ? [] : parsed.findings.map((finding) => ({ ...finding, file: 'policy.yaml' }));
};

/** As many cells at once as there are cores. */
const testAll = async (family: Family, packs: readonly Pack[], progress: Progress): Promise<readonly LoadedRules[]> => {
  const engines = createEngineRunner(packs);
  const { signal } = new AbortController();
  const waiting = packs.flatMap(({ build }) =>
    family.modes.map((mode): Cell => ({ cellId: `${engineId(build)}/${mode}`, engine: build, mode, devices: 0 })),
  );
  const found = new Map<string, LoadedRules>();
  const order = waiting.map((cell) => cell.cellId);
  const test = async (cell: Cell): Promise<LoadedRules> => {
    const { result, content } = await testCell({ engines, now: Date.now }, family, cell, signal);
    if (content?.kind !== 'completed') return { result, notLoaded: null };
    return { result, notLoaded: await findNotLoaded(engines, cell.engine, family.rules, content, signal) };
  };
  const work = async (): Promise<void> => {
    for (let cell = waiting.shift(); cell !== undefined; cell = waiting.shift())
      found.set(cell.cellId, await test(cell));
  };
  await step(progress, `${plural(order.length, 'cell')}, ${plural(family.rules.length, 'rule')}`, () =>
    Promise.all(Array.from({ length: availableParallelism() }, work)),
  );
  return order.flatMap((cellId) => found.get(cellId) ?? []);
};

const sayFindings = (findings: readonly ContentFinding[]): void => {
  for (const { file, line, message } of findings) {
    out(wrap(`${file ? paint('red', `${file}${line ? `:${line}` : ''}`) : paint('red', 'content')}: ${message}`, ''));
  }
};

const sayCells = (cells: readonly LoadedRules[]): void => {
  const columns = ['cell', 'verdict', 'rules', 'what is wrong first'].map((name) => ({
    name,
    right: name === 'rules',
  }));
  out(
    table(
      columns,
      cells.map(({ result }) => [
        result.cellId,
        paint(result.verdict === 'pass' ? 'green' : 'red', result.verdict),
        `${result.rulesLoaded ?? '-'} of ${result.rulesExpected}`,
        firstFault(result),
      ]),
    ),
  );
};

/** Rules with something wrong, each with its place and what each engine makes of it. */
const sayRules = (family: Family, rows: readonly RuleRow[], anyRed: boolean): void => {
  const wrong = rows.filter((row) => Object.values(row.cells).some((cell) => cell.verdict !== 'ok'));
  if (wrong.length === 0) {
    const green = paint('green', 'fit every engine');
    out(anyRed ? '\nno rule is to blame: see the cells above' : `\nall ${plural(rows.length, 'rule')} ${green}`);
    return;
  }
  for (const row of wrong) {
    const rule = family.rules.find((one) => one.signatureId === row.signatureId);
    out(`\n${paint('red', `${rule?.file}:${rule?.line}`)} rule ${row.signatureId} "${rule?.message ?? ''}"`);
    for (const [cellId, { verdict, words }] of Object.entries(row.cells)) {
      const said = verdict === 'ok' ? paint('green', 'ok') : `${paint('red', verdict)} ${words}`;
      out(wrap(`${cellId}: ${said}`, '  '));
    }
  }
};

const withPlaces = (family: Family, rows: readonly RuleRow[]) =>
  rows.map((row) => {
    const rule = family.rules.find((one) => one.signatureId === row.signatureId);
    return { ...row, file: rule?.file, line: rule?.line, message: rule?.message };
  });
