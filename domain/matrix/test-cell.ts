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
  type Witness,
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
  const notLoaded = first.loaded === rules.length ? [] : await findNotLoaded(loading, rules, first);
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
  const observation = notLoaded && observe(cell, first, { rules, notLoaded, inputs });
  const seen = { observation, notLoaded, faults };
  if (control.verdict !== 'pass' || first.loaded === 0) return finish(base, first, seen);

  // Also of content that is red already: what two people let pass was looked at whole.
  const beside = witnessOf(content, vectors, { first, inputs });
  const good = await testGoodware(run, content, beside);
  const smoke = await testSmoke(run, cell, content, beside);
  const rest = await testReturn(run, content, { first, inputs });
  if (good === null || smoke === null || rest === null) return finish([...base, gateUntested(cell)], first, seen);
  const more = [...good.gates, ...smoke, ...rest];
  // Nothing is proven by a blind run. Content that is red already may be what blinds the engine: that voids no matrix, and is
  // nothing that anybody could let pass.
  const gates = [...base, ...(worst(base) === 'pass' ? more : more.map(errorInstead))];
  const known = new Set(content.shipped);
  const features = content.shipped === null ? [] : rules.flatMap((rule) => rule.features);
  const firstUse = [...new Set(features)].filter((feature) => !known.has(feature)).sort();
  if (content.shipped !== null) gates.push(gateFirstUse(firstUse));
  return finish(gates, first, { ...seen, faults: [...faults, ...good.hits], firstUse });
};

const errorInstead = (one: GateResult): GateResult => (one.verdict === 'void' ? { ...one, verdict: 'error' } : one);

type Beside = { readonly witness: Witness; readonly input: EngineFile; readonly rules: readonly Rule[] };

/** What must alert beside what may not: a vector that did, or where none did, the control with its rules. */
const witnessOf = (
  { family, rules }: CellContent,
  vectors: readonly VectorExpectation[],
  { first, inputs }: { readonly first: Completed; readonly inputs: readonly EngineFile[] },
): Beside => {
  const didAlert = ({ name, expected }: VectorExpectation): boolean => {
    const alerted = alertsOn(first, name);
    return expected.size > 0 && [...expected].every((rule) => alerted.has(rule));
  };
  const vector = vectors.find(didAlert);
  const input = inputs.find(({ name }) => name === vector?.name);
  if (vector && input) return { witness: { ...vector, loaded: first.loaded }, input, rules };
  const { good, input: bytes } = family.controls;
  const has = new Set(rules.map((rule) => rule.ruleId));
  const added = good.filter((rule) => !has.has(rule.ruleId));
  return {
    witness: {
      name: controlInput,
      expected: new Set(good.map((rule) => rule.ruleId)),
      // An engine that lost rules may lose others, or more, beside further ones.
      loaded: first.loaded === rules.length ? first.loaded + added.length : null,
    },
    input: { name: controlInput, bytes },
    rules: [...rules, ...added],
  };
};

/** null: there is no such engine. */
const testGoodware = async (
  run: Run,
  { family, rules, goodware }: CellContent,
  beside: Beside,
): Promise<{ readonly gates: readonly GateResult[]; readonly hits: readonly Fault[] } | null> => {
  const clean = [...family.goodware, ...goodware];
  if (clean.length === 0) return { gates: [], hits: [] };
  const scanned = await run(beside.rules, [...clean, beside.input]);
  if (scanned === null) return null;
  const has = new Set(rules.map((rule) => rule.ruleId));
  const names = clean.map(({ name }) => name);
  const hits = findGoodwareHits(names, scanned).filter((hit) => has.has(hit.rule));
  return { gates: [gateGoodware(hits, beside.witness, scanned)], hits };
};

/** In inline cells; where a family has none, in all: devices try content as if inline whatever they do with it afterwards. */
const testSmoke = async (
  run: Run,
  cell: Cell,
  { family, smoke }: CellContent,
  beside: Beside,
): Promise<readonly GateResult[] | null> => {
  const inline = family.configurations.some(({ mode }) => mode === 'ips');
  if (smoke.length === 0 || (inline && cell.mode !== 'ips')) return [];
  const runs: { failMode: FailMode; run: EngineRun }[] = [];
  for (const failMode of ['fail-open', 'fail-closed'] as const) {
    const passed = await run(beside.rules, [...smoke, beside.input], { mode: 'ips', failMode });
    if (passed === null) return null;
    runs.push({ failMode, run: passed });
  }
  return [gateSmoke(beside.witness, runs)];
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
  const restart = gateRestart(first.loaded, [first, load, again]);
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
  const { good, bad, skip } = family.controls;
  const mustMatch = good.map((rule) => rule.ruleId);
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
