/** One cell of the matrix: controls, content, and everything that has to hold before a device sees it, run by run. */
import type { Budgets, Family } from '../content/family.ts';
import type { Rule } from '../content/rules.ts';
import type { EngineFile, EngineInput, EngineRun, EngineRunner } from '../ports.ts';
import type { Cell, CellResult, GateResult, RuleId } from '../release.ts';
import type { Observation } from './divergence.ts';
import {
  alertsOn,
  type ControlRuns,
  expectedOn,
  gateBudgets,
  gateControls,
  gateFirstUse,
  gateGoodware,
  gateLoaded,
  gateNoResult,
  gateRestart,
  gateRevert,
  gateSmoke,
  gateUntested,
  gateVectors,
  type Measured,
  worst,
} from './gates.ts';
import { findNotLoaded, type NotLoaded } from './not-loaded.ts';
import { probesOf } from './probes.ts';

/** What a cell is tested with. */
export type CellContent = {
  readonly family: Family;
  /** The rules of this engine's artefact: all of the family's, or those that fit. */
  readonly rules: readonly Rule[];
  /** What the fleet runs on this engine now; null: nothing yet. */
  readonly previous: readonly Rule[] | null;
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
  const { family, rules, previous } = content;
  const { language } = family;
  const run = (list: readonly Rule[], inputs: EngineInput['inputs'], more: Partial<EngineInput> = {}) => {
    const { mode, protocols } = cell;
    const input = { rules: language.artefact(list), inputs, mode, ...(protocols ? { protocols } : {}), ...more };
    return ports.engines.run(cell.engine, input, signal);
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
    observation: null,
    notLoaded: null,
    firstUse: [],
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
  const base = [control, gateLoaded(rules.length, first, notLoaded), ...gateVectors(vectors, first, notLoaded)];
  const observation = observe(cell, first, { rules, notLoaded, inputs });
  // The rest asks what content does that loads; content that does not is red already.
  if (worst(base) !== 'pass') return finish(base, first, { observation, notLoaded });

  const gates = [...base];
  const clean = [...family.goodware, ...content.goodware];
  if (clean.length > 0) {
    const witness = vectors.find(({ expected }) => expected.size > 0);
    const beside = inputs.filter(({ name }) => name === witness?.name);
    const scanned = await run(rules, [...clean, ...beside]);
    if (scanned !== null) {
      const names = clean.map(({ name }) => name);
      gates.push(gateGoodware(names, witness, scanned));
    }
  }
  if (cell.mode === 'ips' && content.smoke.length > 0) {
    const smoke: { failMode: 'fail-open' | 'fail-closed'; run: EngineRun }[] = [];
    for (const failMode of ['fail-open', 'fail-closed'] as const) {
      const passed = await run(rules, content.smoke, { failMode });
      if (passed !== null) smoke.push({ failMode, run: passed });
    }
    gates.push(gateSmoke(smoke));
  }
  const load = await run(rules, []);
  const before = previous && { load: await run(previous, []), scan: await run(previous, inputs) };
  const again = await run(rules, inputs);
  if (load === null || again === null) return finish([...gates, gateUntested(cell)], first);
  gates.push(gateRestart(rules.length, [first, load, again]));
  let firstUse: readonly string[] = [];
  if (previous && before?.load && before.scan) {
    gates.push(gateRevert({ expected: previous.length, run: before.scan }, first, again));
    const measured = { loads: [load], scans: [first, again], loadsBefore: [before.load], scansBefore: [before.scan] };
    gates.push(...(await judgeBudgets(run, { rules, previous, inputs, budgets: family.budgets }, measured)));
    firstUse = newFeatures(rules, previous);
    gates.push(gateFirstUse(firstUse));
  }
  return finish(gates, first, { observation, notLoaded, firstUse });
};

/** Runs one engine over rules and inputs; null: there is no such engine. */
export type Run = (rules: readonly Rule[], inputs: EngineInput['inputs']) => Promise<EngineRun | null>;

type Measurements = {
  readonly loads: readonly EngineRun[];
  readonly scans: readonly EngineRun[];
  readonly loadsBefore: readonly EngineRun[];
  readonly scansBefore: readonly EngineRun[];
};

/**
 * Budgets; what is over is measured once more, since a busy machine is no slow rule, and a scan that stays over is looked for
 * input by input.
 */
const judgeBudgets = async (
  run: Run,
  content: {
    readonly rules: readonly Rule[];
    readonly previous: readonly Rule[];
    readonly inputs: readonly EngineFile[];
    readonly budgets: Budgets;
  },
  first: Measurements,
): Promise<readonly GateResult[]> => {
  const { rules, previous, inputs, budgets } = content;
  const grade = (of: Measurements): readonly GateResult[] => {
    const now = measure(of.loads, of.scans);
    const before = measure(of.loadsBefore, of.scansBefore);
    return now && before ? gateBudgets(now, before, budgets) : [];
  };
  const gates = grade(first);
  if (worst(gates) === 'pass') return gates;
  const again = async (known: readonly EngineRun[], list: readonly Rule[], of: readonly EngineFile[]) => {
    const more = await run(list, of);
    return more ? [...known, more] : known;
  };
  const second = grade({
    loads: await again(first.loads, rules, []),
    scans: await again(first.scans, rules, inputs),
    loadsBefore: await again(first.loadsBefore, previous, []),
    scansBefore: await again(first.scansBefore, previous, inputs),
  });
  const over = second.find(({ gate, verdict }) => gate === 'budget-scan' && verdict !== 'pass');
  if (!over) return second;
  const slowest = { name: '', ms: 0, words: '' };
  for (const input of inputs.slice(0, singleInputs)) {
    const now = await run(rules, [input]);
    const then = await run(previous, [input]);
    const ms = (now?.wallMs ?? 0) - (then?.wallMs ?? 0);
    if (ms <= slowest.ms) continue;
    Object.assign(slowest, { name: input.name, ms, words: `alone ${now?.wallMs} ms, before ${then?.wallMs} ms` });
  }
  const named = slowest.name === '' ? [] : [{ vector: slowest.name, words: slowest.words }];
  return second.map((one) => (one === over ? { ...one, details: [...named, ...one.details] } : one));
};

/** Beyond these the search for the slow input would take longer than what it explains. */
const singleInputs = 60;

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
  const configuration = cellId.slice(cellId.indexOf('/') + 1);
  return { cellId, engine, configuration, rules: loaded, alerts: Object.fromEntries(alerts) };
};

/** The least of several runs; null when one gave no result. */
const measure = (loads: readonly EngineRun[], scans: readonly EngineRun[]): Measured | null => {
  const all = [...loads, ...scans];
  if (!all.every((run) => run.kind === 'completed')) return null;
  const least = (runs: readonly EngineRun[]) => Math.min(...runs.map((run) => run.wallMs));
  const loadMs = least(loads);
  const peaks = scans.flatMap((run) => (run.kind === 'completed' && run.peakBytes !== null ? [run.peakBytes] : []));
  return {
    loadMs,
    scanMs: Math.max(0, least(scans) - loadMs),
    peakBytes: peaks.length === 0 ? null : Math.min(...peaks),
  };
};

const newFeatures = (rules: readonly Rule[], previous: readonly Rule[]): readonly string[] => {
  const known = new Set(previous.flatMap((rule) => rule.features));
  return [...new Set(rules.flatMap((rule) => rule.features))].filter((feature) => !known.has(feature)).sort();
};
