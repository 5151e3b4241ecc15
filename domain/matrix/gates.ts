/**
 * The gates of one matrix cell. Exit codes decide nothing: the gate is "rules the engine loaded" equal to "rules our own
 * parser expects", alerts as the vectors say, and controls that prove in the same run that this engine still accepts
 * known-good and refuses known-bad content.
 */
import type { Budgets, Difference, Vector } from '../content/family.ts';
import type { EngineRun } from '../ports.ts';
import type { Cell, CellResult, EngineBuild, FailMode, GateResult, RuleId } from '../release.ts';
import { appliesTo } from './divergence.ts';
import type { NotLoaded } from './not-loaded.ts';

/** A change of what a gate means or of how it measures: results of another version are not used again. */
export const gateVersion = 1;

type Completed = Extract<EngineRun, { kind: 'completed' }>;
type Details = GateResult['details'];
type Detail = Details[number];

export const gate = (
  name: string,
  verdict: GateResult['verdict'],
  observed: number | string,
  operator: string,
  limit: number | string,
  details: Details = [],
): GateResult => ({
  gate: name,
  verdict,
  observed,
  operator,
  limit, // Cut in the middle of a character, words could not be hashed.
  details: details
    .slice(0, detailLimit)
    .map((detail) => ({ ...detail, words: detail.words.slice(0, wordsLimit).toWellFormed() })),
});

/** Keep an event far below a record's size limit; the count in `observed` stays true. */
const detailLimit = 20;
const wordsLimit = 500;

const order = ['pass', 'fail', 'error', 'void'] as const;

export const worst = (gates: readonly GateResult[]): CellResult['verdict'] =>
  order[Math.max(...gates.map((one) => order.indexOf(one.verdict)))] ?? 'error';

/** There is no pack of the engine: an untested cell. */
export const gateUntested = ({ engine }: Cell): GateResult => {
  const words = `no pack of ${engine.name} ${engine.version} (${engine.packageVersion}) is here: devices run an engine that cannot be tested`;
  return gate('result', 'error', 'none', '==', 'an engine', [{ words }]);
};

/**
 * The engine died or said nothing. On the content that is a red cell; when the controls did not pass either, it says
 * nothing about the content.
 */
export const gateNoResult = (run: Exclude<EngineRun, Completed>, controls: GateResult): GateResult =>
  gate('result', controls.verdict === 'pass' ? 'fail' : 'error', run.reason, '==', 'statistics', [
    { words: run.words },
  ]);

export type ControlRuns = {
  /** Known-good rules over the control input, with those to be passed over; without `refused` also the known-bad ones. */
  readonly good: EngineRun;
  /** One run for each known-bad rule beside the good ones, where one faulty rule refuses the whole file. */
  readonly refused: readonly EngineRun[] | null;
};

export type ControlCounts = {
  readonly good: number;
  readonly bad: number;
  readonly skip: number;
  readonly input: string;
  readonly mustMatch: readonly RuleId[];
};

export const gateControls = (expected: ControlCounts, runs: ControlRuns): GateResult => {
  const { good, bad, skip, input, mustMatch } = expected;
  const passed = skip > 0 ? `, ${skip} passed over` : '';
  const limit = `${good} accepted, ${bad} refused${passed}, alerts on the control`;
  const dead = [runs.good, ...(runs.refused ?? [])].find((run) => run.kind === 'no-result');
  if (dead?.kind === 'no-result') return gate('controls', 'void', dead.reason, '==', limit, [{ words: dead.words }]);
  const run = runs.good as Completed;
  const alerted = alertsOn(run, input);
  const missing = mustMatch.filter((rule) => !alerted.has(rule));
  const refused = runs.refused
    ? runs.refused.filter((one) => one.kind === 'completed' && one.loaded === 0 && one.failed > 0).length
    : Math.min(run.failed, bad);
  // An engine that does not know a rule's condition refuses the rule that it should pass over: not loaded is not loaded.
  const over = run.skipped + run.failed - (runs.refused ? 0 : refused);
  const right = run.loaded === good && refused === bad && over === skip && missing.length === 0;
  const observed = `${run.loaded} accepted, ${refused} refused${skip > 0 || over > 0 ? `, ${over} passed over` : ''}, ${mustMatch.length - missing.length} of ${mustMatch.length} alerts`;
  const details: Detail[] = [
    ...missing.map((rule) => ({ rule, vector: input, words: 'the control did not alert' })),
    ...(refused === bad ? [] : [{ words: `the engine refused ${refused} of ${bad} known-bad rules` }]),
    ...(run.loaded === good ? [] : [{ words: `the engine accepted ${run.loaded} of ${good} known-good rules` }]),
    ...(over === skip ? [] : [{ words: `the engine passed over ${over} of ${skip} rules that it must not load` }]),
  ];
  return gate('controls', right ? 'pass' : 'void', observed, '==', limit, details);
};

/** `notLoaded`: by id, what the engine did not take, with its words. */
export const gateLoaded = (expected: number, run: Completed, notLoaded: readonly NotLoaded[]): GateResult => {
  const right = run.loaded === expected;
  const named = notLoaded.filter(({ withFile }) => !withFile).map(({ id, words }): Detail => ({ rule: id, words }));
  const said = run.errors.map(
    ({ ruleId, file, line, words }): Detail => ({
      ...(ruleId === undefined ? {} : { rule: ruleId }),
      ...(file === undefined ? {} : { file }),
      ...(line === undefined ? {} : { line }),
      words,
    }),
  );
  const silent = { words: `${expected - run.loaded} rules are missing and the engine did not say why` };
  const details = right ? [] : named.length > 0 ? named : said.length > 0 ? said : [silent];
  return gate('rules-loaded', right ? 'pass' : 'fail', run.loaded, '==', expected, details);
};

/** What a vector must come to on one engine: the family's expectation with the declared differences of that engine. */
export const expectedOn = (
  vector: Pick<Vector, 'name' | 'mustMatch'>,
  differences: readonly Difference[],
  engine: Pick<EngineBuild, 'name' | 'version'>,
): ReadonlySet<RuleId> => {
  const expected = new Set(vector.mustMatch);
  for (const difference of differences) {
    if (difference.vector !== vector.name || !appliesTo(difference, engine)) continue;
    if (difference.expect === 'match') expected.add(difference.rule);
    else expected.delete(difference.rule);
  }
  return expected;
};

export type VectorExpectation = { readonly name: string; readonly expected: ReadonlySet<RuleId> };

/**
 * Every rule alerts where it must and nowhere else. A rule that is not loaded is silent everywhere, which proves nothing:
 * its silence is named vacuous, and passes nothing.
 */
export const gateVectors = (
  vectors: readonly VectorExpectation[],
  run: Completed,
  notLoaded: readonly NotLoaded[],
): readonly GateResult[] => {
  const missing: Detail[] = [];
  const surplus: Detail[] = [];
  let wanted = 0;
  let found = 0;
  for (const vector of vectors) {
    const alerted = alertsOn(run, vector.name);
    wanted += vector.expected.size;
    for (const rule of vector.expected) {
      if (alerted.has(rule)) found += 1;
      else missing.push({ rule, vector: vector.name, words: 'did not alert' });
    }
    for (const rule of alerted) {
      if (!vector.expected.has(rule)) surplus.push({ rule, vector: vector.name, words: 'alerted, and should not' });
    }
  }
  const silentSomewhere = ({ id }: NotLoaded) => vectors.some((vector) => !vector.expected.has(id));
  const vacuous = notLoaded
    .filter(silentSomewhere)
    .map(({ id }): Detail => ({ rule: id, words: 'vacuous: it is not loaded, so that its silence proves nothing' }));
  const silence = surplus.length > 0 || vacuous.length > 0 ? 'fail' : 'pass';
  const observed = vacuous.length > 0 ? `${surplus.length}, ${vacuous.length} vacuous` : surplus.length;
  return [
    gate('must-match', missing.length === 0 ? 'pass' : 'fail', found, '==', wanted, missing),
    gate('must-not-match', silence, observed, '==', 0, [...surplus, ...vacuous]),
  ];
};

/**
 * Nothing alerts on what is known to be good; `inputs` names it. `witness` is looked at in the same run and must alert: a
 * run in which nothing at all is detected may mean that nothing was looked for.
 */
export const gateGoodware = (
  inputs: readonly string[],
  witness: VectorExpectation | undefined,
  run: EngineRun,
): GateResult => {
  if (run.kind === 'no-result') {
    return gate('goodware', 'fail', run.reason, '==', 0, [{ words: run.words }]);
  }
  if (witness && alertsOn(run, witness.name).size === 0) {
    const words = `beside ${inputs.length} good files not even ${witness.name} alerted`;
    return gate('goodware', 'void', 'blind', '==', 0, [{ vector: witness.name, words }]);
  }
  const known = new Set(inputs);
  const hits = run.alerts.filter(({ input }) => known.has(input));
  const details = hits.map(({ ruleId, input }) => ({ rule: ruleId, vector: input, words: 'alerted on a good file' }));
  return gate('goodware', hits.length === 0 ? 'pass' : 'fail', hits.length, '==', 0, details);
};

/** The same number of rules after every start, and all of them. */
export const gateRestart = (expected: number, starts: readonly EngineRun[]): GateResult => {
  const loaded = starts.map((run) => (run.kind === 'completed' ? run.loaded : run.reason));
  const wrong = loaded.flatMap((one, index) =>
    one === expected ? [] : [{ words: `start ${index + 1}: ${one} of ${expected} rules loaded` }],
  );
  const good = `${loaded.length - wrong.length} of ${loaded.length}`;
  return gate(
    'restart',
    wrong.length === 0 ? 'pass' : 'fail',
    good,
    '==',
    `${loaded.length} of ${loaded.length}`,
    wrong,
  );
};

/** New, previous, new: the previous content still loads whole, and the new one then does what it did before. */
export const gateRevert = (
  previous: { readonly expected: number; readonly run: EngineRun },
  first: Completed,
  again: EngineRun,
): GateResult => {
  const limit = `${previous.expected} rules of the previous release, then as before`;
  const details: Detail[] = [];
  if (previous.run.kind === 'no-result') {
    details.push({ words: `the previous release gave no result (${previous.run.reason}): ${previous.run.words}` });
  } else if (previous.run.loaded !== previous.expected) {
    const { loaded, errors } = previous.run;
    const words = errors[0]?.words ?? 'the engine does not say why';
    details.push({ words: `${loaded} of ${previous.expected} rules of the previous release loaded: ${words}` });
  }
  if (again.kind === 'no-result') {
    details.push({ words: `taken again, the release gave no result (${again.reason}): ${again.words}` });
  } else if (said(again) !== said(first)) {
    details.push({ words: `taken again, ${again.loaded} rules loaded and other alerts than at first` });
  }
  const observed = previous.run.kind === 'completed' ? `${previous.run.loaded} rules` : previous.run.reason;
  return gate('revert', details.length === 0 ? 'pass' : 'fail', observed, '==', limit, details);
};

/** Everything that a run said about the content, for comparing two runs. */
const said = (run: Completed): string =>
  JSON.stringify([run.loaded, ...run.alerts.map(({ input, ruleId }) => `${input} ${ruleId}`).sort()]);

/** Ordinary traffic and the update server's own pass through, whether the device lets pass or stops what it cannot judge. */
export const gateSmoke = (runs: readonly { readonly failMode: FailMode; readonly run: EngineRun }[]): GateResult => {
  const details = runs.flatMap(({ failMode, run }): Detail[] => {
    if (run.kind === 'no-result') return [{ words: `${failMode}: no result (${run.reason}): ${run.words}` }];
    const blocked = run.alerts.filter(({ action }) => action === 'blocked');
    return blocked.map(({ ruleId, input }) => ({
      ...{ rule: ruleId, vector: input },
      words: `${failMode}: blocked what devices need`,
    }));
  });
  return gate('traffic-smoke', details.length === 0 ? 'pass' : 'fail', details.length, '==', 0, details);
};

/** What was measured of one release in a cell: the least of its runs, since whatever disturbs a run only adds. */
export type Measured = {
  readonly loadMs: number;
  readonly scanMs: number;
  readonly peakBytes: number | null;
};

/** Below these a difference is noise on a busy machine, whatever the ratio. */
const slack = { loadMs: 500, scanMs: 500, peakBytes: 32 * 2 ** 20 };

/** Load time, scan time over all vectors and peak memory against the previous release, measured in the same run. */
export const gateBudgets = (now: Measured, before: Measured, budgets: Budgets): readonly GateResult[] => {
  const compare = (name: string, unit: string, observed: number, base: number, ratio: number, spare: number) => {
    const limit = Math.round(Math.max(base * ratio, base + spare));
    const words = `${Math.round(observed)} ${unit}, the previous release ${Math.round(base)} ${unit}`;
    const right = observed <= limit;
    return gate(name, right ? 'pass' : 'fail', Math.round(observed), '<=', limit, right ? [] : [{ words }]);
  };
  const mib = 2 ** 20;
  return [
    compare('budget-load', 'ms', now.loadMs, before.loadMs, budgets.load, slack.loadMs),
    compare('budget-scan', 'ms', now.scanMs, before.scanMs, budgets.scan, slack.scanMs),
    ...(now.peakBytes === null || before.peakBytes === null
      ? []
      : [
          compare(
            ...(['budget-memory', 'MB', now.peakBytes / mib, before.peakBytes / mib, budgets.memory] as const),
            slack.peakBytes / mib,
          ),
        ]),
  ];
};

/**
 * Features that no release shipped to this engine before. They pass, and make the release bake longer: what an engine
 * meets for the first time is what its version line was never tested with in the field.
 */
export const gateFirstUse = (features: readonly string[]): GateResult => {
  const details = features.map((feature) => ({ words: feature }));
  return gate('first-use', 'pass', features.length, '>=', 0, details);
};

export const alertsOn = (run: Completed, input: string): ReadonlySet<RuleId> =>
  new Set(run.alerts.filter((alert) => alert.input === input).map((alert) => alert.ruleId));
