/** One cell of the matrix: controls, content, and everything that has to hold before a device sees it, run by run. */
import type { Family } from '../content/family.ts';
import type { Rule } from '../content/rules.ts';
import type { EngineFile, EngineRun, EngineRunner } from '../ports.ts';
import {
  type Cell,
  type CellResult,
  configurationOf,
  type FailMode,
  type GateResult,
  type RuleId,
} from '../release.ts';
import { judgeBudgets, type Run } from './budgets.ts';
import type { Observation } from './divergence.ts';
import {
  alertsOn,
  type ControlRuns,
  expectedOn,
  type Fault,
  findFaults,
  findGoodwareHits,
  gateControls,
  gateCoverage,
  gateFirstUse,
  gateGoodware,
  gateLoaded,
  gateNoResult,
  gateRestart,
  gateRevert,
  gateSmoke,
  gateUntested,
  gateVectors,
  type VectorExpectation,
  worst,
} from './gates.ts';
import { findNotLoaded, type NotLoaded } from './not-loaded.ts';
import { probesOf } from './probes.ts';

/** What a cell is tested with. */
export type CellContent = {
  readonly family: Family;
  /** The rules of this engine's artefact: all of the family's, or those that fit. */
  readonly rules: readonly Rule[];
  /** What the engine goes back to from this release; null: nothing that could be compared with. */
  readonly previous: readonly Rule[] | null;
  /** Features of everything that was shipped to the engine so far: none when it is new to the fleet; null: not known. */
  readonly shipped: readonly string[] | null;
  /** Good files of this machine and of the product itself, beside the family's own. */
  readonly goodware: readonly EngineFile[];
  /** Traffic that has to pass: the update server's and ordinary. Only for languages that look at captures. */
  readonly smoke: readonly EngineFile[];
};

export type TestedCell = {
  readonly result: CellResult;
  /** null: the engine gave no result. */
  readonly observation: Observation | null;
  /** Rules that the engine did not load; null: it gave no result. */
  readonly notLoaded: readonly NotLoaded[] | null;
  /** Rules that did otherwise than they must, all of them: a gate names only the first. */
  readonly faults: readonly Fault[];
  /** Every run gave a result, so that the same would be found again. */
  readonly repeatable: boolean;
  /** Features that this release ships to the engine for the first time. */
  readonly firstUse: readonly string[];
};

type Completed = Extract<EngineRun, { kind: 'completed' }>;

const controlInput = 'control';

/** Rejects only when `signal` aborts. */
export const testCell = async (
  ports: { readonly engines: EngineRunner; readonly now: () => number },
  cell: Cell,
  content: CellContent,
  signal: AbortSignal,
): Promise<TestedCell> => {
  const started = ports.now();
  const { family, rules } = content;
  const { language } = family;
  let repeatable = true;
  const run: Run = async (list, inputs, more = {}) => {
    const { mode, protocols } = cell;
    const input = { rules: language.artefact(list), inputs, mode, ...(protocols ? { protocols } : {}), ...more };
    const found = await ports.engines.run(cell.engine, input, signal);
    repeatable &&= found !== null && found.kind === 'completed';
    return found;
  };
  const finish = (gates: readonly GateResult[], of: Completed | null, more: Partial<TestedCell> = {}): TestedCell => ({
    result: {
      cellId: cell.cellId,
      verdict: worst(gates),
      rulesExpected: rules.length,
      rulesLoaded: of?.loaded ?? null,
      gates,
      wallMs: ports.now() - started,
      ...(of ? { usage: { wallMs: of.wallMs, peakBytes: of.peakBytes } } : {}),
    },
    ...{ observation: null, notLoaded: null, faults: [], repeatable, firstUse: [] },
    ...more,
  });

  const control = await testControls(run, family);
  if (control === null) return finish([gateUntested(cell)], null);
  const inputs = [...family.vectors.map(({ name, bytes }) => ({ name, bytes })), ...probesOf(family)];
  const first = await run(rules, inputs);
  if (first === null) return finish([gateUntested(cell)], null);
  if (first.kind === 'no-result') return finish([control, gateNoResult(first, control)], null);

  const loading = { engines: ports.engines, engine: cell.engine, language, configuration: cell, signal };
  const notLoaded = first.loaded === rules.length ? [] : ((await findNotLoaded(loading, rules, first)) ?? []);
  const has = new Set(rules.map((rule) => rule.ruleId));
  const vectors = family.vectors.map((vector) => {
    const expected = [...expectedOn(vector, family.differences, cell.engine)].filter((rule) => has.has(rule));
    return { name: vector.name, expected: new Set(expected) };
  });
  const faults = findFaults(vectors, first);
  const base = [
    control,
    ...(family.misfit === 'cut' ? [gateCoverage(family.rules.length, rules.length, family.budgets.cut)] : []),
    gateLoaded(rules.length, first, notLoaded),
    ...gateVectors(vectors, faults, notLoaded),
  ];
  const seen = { observation: observe(cell, first, { rules, notLoaded, inputs }), notLoaded, faults };
  // The rest asks what content does that loads; content that does not is red already.
  if (worst(base) !== 'pass') return finish(base, first, seen);

  const good = await testGoodware(run, content, vectors, inputs);
  const smoke = await testSmoke(run, cell, content);
  const rest = await testReturn(run, content, { first, inputs });
  if (good === null || smoke === null || rest === null) return finish([...base, gateUntested(cell)], first, seen);
  const gates = [...base, ...good.gates, ...smoke, ...rest];
  const known = new Set(content.shipped);
  const features = content.shipped === null ? [] : rules.flatMap((rule) => rule.features);
  const firstUse = [...new Set(features)].filter((feature) => !known.has(feature)).sort();
  if (content.shipped !== null) gates.push(gateFirstUse(firstUse));
  return finish(gates, first, { ...seen, faults: [...faults, ...good.hits], firstUse });
};

/**
 * Good files beside an input on which something must alert: a vector, or where no vector has to, the control with its rules.
 * null: there is no such engine.
 */
const testGoodware = async (
  run: Run,
  { family, rules, goodware }: CellContent,
  vectors: readonly VectorExpectation[],
  inputs: readonly EngineFile[],
): Promise<{ readonly gates: readonly GateResult[]; readonly hits: readonly Fault[] } | null> => {
  const clean = [...family.goodware, ...goodware];
  if (clean.length === 0) return { gates: [], hits: [] };
  const names = clean.map(({ name }) => name);
  const vector = vectors.find(({ expected }) => expected.size > 0);
  const beside = inputs.find(({ name }) => name === vector?.name);
  const { good, input, mustMatch } = family.controls;
  const has = new Set(rules.map((rule) => rule.ruleId));
  const [witness, witnessInput, looking] =
    vector && beside
      ? [vector, beside, rules]
      : [
          { name: controlInput, expected: new Set(mustMatch) },
          { name: controlInput, bytes: input },
          [...rules, ...good.filter((rule) => !has.has(rule.ruleId))],
        ];
  const scanned = await run(looking, [...clean, witnessInput]);
  if (scanned === null) return null;
  const hits = findGoodwareHits(names, scanned).filter((hit) => has.has(hit.rule));
  return { gates: [gateGoodware(clean.length, hits, witness, scanned)], hits };
};

const testSmoke = async (
  run: Run,
  cell: Cell,
  { smoke, rules }: CellContent,
): Promise<readonly GateResult[] | null> => {
  if (cell.mode !== 'ips' || smoke.length === 0) return [];
  const runs: { failMode: FailMode; run: EngineRun }[] = [];
  for (const failMode of ['fail-open', 'fail-closed'] as const) {
    const passed = await run(rules, smoke, { failMode });
    if (passed === null) return null;
    runs.push({ failMode, run: passed });
  }
  return [gateSmoke(runs)];
};

/** Starts again, goes back to the previous content and comes back: restart, revert, and budgets measured on the way. */
const testReturn = async (
  run: Run,
  { family, rules, previous }: CellContent,
  { first, inputs }: { readonly first: Completed; readonly inputs: readonly EngineFile[] },
): Promise<readonly GateResult[] | null> => {
  const load = await run(rules, []);
  const before = previous && { load: await run(previous, []), scan: await run(previous, inputs) };
  const again = await run(rules, inputs);
  if (load === null || again === null) return null;
  const restart = gateRestart(rules.length, [first, load, again]);
  if (!previous || !before) return [restart];
  if (before.load === null || before.scan === null) return null;
  const revert = { expected: previous.length, before: before.load, after: before.scan };
  const runs = {
    now: { loads: [load], scans: [first, again] },
    before: { loads: [before.load], scans: [before.scan] },
  };
  const budgets = await judgeBudgets(run, { rules, previous, inputs, budgets: family.budgets }, runs);
  return [restart, gateRevert(revert, first, again), ...budgets];
};

/** Whether the engine tells good from bad; null: there is no such engine. */
export const testControls = async (
  run: Run,
  family: Pick<Family, 'language' | 'controls'>,
): Promise<GateResult | null> => {
  const runs = await runControls(run, family);
  const { good, bad, skip, mustMatch } = family.controls;
  const counts = { good: good.length, bad: bad.length, skip: skip.length, input: controlInput, mustMatch };
  return runs && gateControls(counts, runs);
};

const runControls = async (
  run: Run,
  { language, controls }: Pick<Family, 'language' | 'controls'>,
): Promise<ControlRuns | null> => {
  const inputs = [{ name: controlInput, bytes: controls.input }];
  const { good, bad, skip } = controls;
  if (!language.allOrNothing) {
    const all = await run([...good, ...bad, ...skip], inputs);
    return all && { good: all, refused: null };
  }
  const accepted = await run([...good, ...skip], inputs);
  if (accepted === null) return null;
  const refused: EngineRun[] = [];
  for (const rule of bad) {
    const found = await run([...good, rule], inputs);
    if (found === null) return null;
    refused.push(found);
  }
  return { good: accepted, refused };
};

const observe = (
  cell: Cell,
  run: Completed,
  content: {
    readonly rules: readonly Rule[];
    readonly notLoaded: readonly NotLoaded[];
    readonly inputs: readonly EngineFile[];
  },
): Observation => {
  const missing = new Set(content.notLoaded.map(({ id }) => id));
  const loaded = content.rules.map((rule) => rule.ruleId).filter((id) => !missing.has(id));
  const alerts = content.inputs.map(({ name }): [string, RuleId[]] => [name, [...alertsOn(run, name)]]);
  const { cellId, engine } = cell;
  return { cellId, engine, configuration: configurationOf(cell), rules: loaded, alerts: Object.fromEntries(alerts) };
};
