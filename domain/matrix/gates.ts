/**
 * The gates of one matrix cell. Exit codes decide nothing: the gate is "rules the engine loaded" equal to "rules our own
 * parser expects", alerts as the vectors say, and controls that prove in the same run that this engine still accepts
 * known-good and refuses known-bad content.
 */
import type { Difference, Vector } from '../content/family.ts';
import type { EngineRun } from '../ports.ts';
import type { Cell, CellResult, EngineBuild, FailMode, GateResult, RuleId } from '../release.ts';
import { appliesTo } from './divergence.ts';
import type { NotLoaded } from './not-loaded.ts';

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
  limit,
  details: details
    .slice(0, detailLimit)
    // Cut in the middle of a character, words could not be hashed.
    .map((detail) => ({ ...detail, words: detail.words.slice(0, wordsLimit).toWellFormed() })),
});

/** Keep an event far below a record's size limit; the count in `observed` stays true. */
export const detailLimit = 20;
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
  // An engine that takes nothing at all is told from one that cannot tell good from bad: it is red, and devices have it so.
  const wrong = run.loaded === 0 && missing.length === mustMatch.length ? 'fail' : 'void';
  return gate('controls', right ? 'pass' : wrong, observed, '==', limit, details);
};

/** `notLoaded`: by id, what the engine did not take, with its words; null: not known. */
export const gateLoaded = (expected: number, run: Completed, notLoaded: readonly NotLoaded[] | null): GateResult => {
  const right = run.loaded === expected;
  const named = (notLoaded ?? [])
    .filter(({ withFile }) => !withFile)
    .map(({ id, words }): Detail => ({ rule: id, words }));
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

/**
 * An artefact may go without rules that its engine does not load, but not without most of them: a faulty rule that takes
 * all others along would leave an engine that loads nothing, and everything that it is asked about nothing is true.
 */
export const gateCoverage = (inFamily: number, inArtefact: number, cut: number): GateResult => {
  const least = Math.max(1, Math.ceil(inFamily * (1 - cut)));
  const right = inArtefact >= least;
  const words = `${inFamily - inArtefact} of ${inFamily} rules do not fit this engine; family.yaml lets it go without ${Math.floor(inFamily * cut)} (budgets.cut)`;
  return gate('coverage', right ? 'pass' : 'fail', inArtefact, '>=', least, right ? [] : [{ words }]);
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

/** A rule that did not do on an input what it must. */
export type Fault = {
  readonly rule: RuleId;
  readonly input: string;
  readonly kind: 'no-alert' | 'extra-alert';
  readonly words: string;
};

/** All of them, input by input: those that must alert and did not before those that alerted and should not. */
export const findFaults = (vectors: readonly VectorExpectation[], run: Completed): readonly Fault[] =>
  vectors.flatMap(({ name: input, expected }) => {
    const alerted = alertsOn(run, input);
    const missing = [...expected].filter((rule) => !alerted.has(rule));
    const extra = [...alerted].filter((rule) => !expected.has(rule));
    return [
      ...missing.map((rule): Fault => ({ rule, input, kind: 'no-alert', words: 'did not alert' })),
      ...extra.map((rule): Fault => ({ rule, input, kind: 'extra-alert', words: 'alerted, and should not' })),
    ];
  });

const detailOf = ({ rule, input, words }: Fault): Detail => ({ rule, vector: input, words });

/**
 * Every rule alerts where it must and nowhere else. A rule that is not loaded is silent everywhere, which proves nothing:
 * its silence is named vacuous, and passes nothing.
 */
export const gateVectors = (
  vectors: readonly VectorExpectation[],
  faults: readonly Fault[],
  notLoaded: readonly NotLoaded[] | null,
): readonly GateResult[] => {
  const missing = faults.filter(({ kind }) => kind === 'no-alert').map(detailOf);
  const surplus = faults.filter(({ kind }) => kind === 'extra-alert').map(detailOf);
  const wanted = vectors.reduce((sum, { expected }) => sum + expected.size, 0);
  const silentSomewhere = ({ id }: NotLoaded) => vectors.some((vector) => !vector.expected.has(id));
  const vacuous: readonly Detail[] = notLoaded
    ? notLoaded
        .filter(silentSomewhere)
        .map(({ id }) => ({ rule: id, words: 'vacuous: it is not loaded, so that its silence proves nothing' }))
    : [{ words: 'vacuous: it is not known which rules are not loaded, so that no silence proves anything' }];
  const silence = surplus.length > 0 || vacuous.length > 0 ? 'fail' : 'pass';
  const count = notLoaded ? vacuous.length : 'unknown';
  const observed = vacuous.length > 0 ? `${surplus.length}, ${count} vacuous` : surplus.length;
  return [
    gate('must-match', missing.length === 0 ? 'pass' : 'fail', wanted - missing.length, '==', wanted, missing),
    gate('must-not-match', silence, observed, '==', 0, [...surplus, ...vacuous]),
  ];
};

/** Rules that alerted on what is known to be good. */
export const findGoodwareHits = (inputs: readonly string[], run: EngineRun): readonly Fault[] => {
  const known = new Set(inputs);
  const hits = run.kind === 'completed' ? run.alerts.filter(({ input }) => known.has(input)) : [];
  return hits.map(
    ({ ruleId, input }): Fault => ({ rule: ruleId, input, kind: 'extra-alert', words: 'alerted on a good file' }),
  );
};

/** What is looked at beside inputs on which nothing may alert: something must alert on it, with so many rules loaded (null: any). */
export type Witness = VectorExpectation & { readonly loaded: number | null };

/** Why a run in which nothing was found proves nothing; empty when it does. */
const blindness = (witness: Witness, run: Completed): readonly Detail[] => {
  const alerted = alertsOn(run, witness.name);
  const dark = [...witness.expected].filter((rule) => !alerted.has(rule));
  const words = `beside what is good it did not alert on ${witness.name}: nothing is proven`;
  return [
    ...dark.map((rule) => ({ rule, vector: witness.name, words })),
    ...(witness.loaded === null || run.loaded === witness.loaded
      ? []
      : [{ words: `${run.loaded} rules were loaded, ${witness.loaded} in the run before: nothing is proven` }]),
  ];
};

/**
 * Nothing alerts on what is known to be good. `witness` is looked at in the same run and must alert: a run in which nothing at
 * all is detected may mean that nothing was looked for.
 */
export const gateGoodware = (hits: readonly Fault[], witness: Witness, run: EngineRun): GateResult => {
  if (run.kind === 'no-result') return gate('goodware', 'fail', run.reason, '==', 0, [{ words: run.words }]);
  // What was found is found, however little the engine saw: a rule that drops all there is leaves no witness either.
  if (hits.length > 0) return gate('goodware', 'fail', hits.length, '==', 0, hits.map(detailOf));
  const blind = blindness(witness, run);
  return gate('goodware', blind.length === 0 ? 'pass' : 'void', blind.length === 0 ? 0 : 'blind', '==', 0, blind);
};

/** The same number of rules after every start. */
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

/**
 * New, previous, new: after the release the previous content is taken again as it was taken before, and the new one then
 * does what it did at first. Content that the engine never loaded whole is no worse for this release, and is named.
 */
export const gateRevert = (
  previous: { readonly expected: number; readonly before: EngineRun; readonly after: EngineRun },
  first: Completed,
  again: EngineRun,
): GateResult => {
  const { expected, before, after } = previous;
  const loaded = before.kind === 'completed' ? before.loaded : null;
  const details: Detail[] = [];
  const notes: Detail[] = [];
  for (const run of [before, after]) {
    if (run.kind === 'no-result')
      details.push({ words: `the previous release gave no result (${run.reason}): ${run.words}` });
  }
  if (after.kind === 'completed' && loaded !== null && after.loaded !== loaded)
    details.push({ words: `taken again, ${after.loaded} rules of the previous release loaded, ${loaded} before` });
  if (loaded !== null && loaded !== expected && before.kind === 'completed') {
    const words = before.errors[0]?.words ?? 'the engine does not say why';
    notes.push({ words: `of the previous release this engine loads ${loaded} of ${expected} rules: ${words}` });
  }
  if (again.kind === 'no-result') {
    details.push({ words: `taken again, the release gave no result (${again.reason}): ${again.words}` });
  } else if (said(again) !== said(first)) {
    details.push({ words: `taken again, ${again.loaded} rules loaded and other alerts than at first` });
  }
  const observed = after.kind === 'completed' ? `${after.loaded} rules` : after.reason;
  const limit = `${loaded ?? expected} rules of the previous release, then as before`;
  return gate('revert', details.length === 0 ? 'pass' : 'fail', observed, '==', limit, [...details, ...notes]);
};

/** Everything that a run said about the content, for comparing two runs. */
const said = (run: Completed): string =>
  JSON.stringify([run.loaded, ...run.alerts.map(({ input, ruleId }) => `${input} ${ruleId}`).sort()]);

/**
 * Ordinary traffic and the update server's own pass through, whether the device lets pass or stops what it cannot judge.
 * `witness` as for goodware.
 */
export const gateSmoke = (
  witness: Witness,
  runs: readonly { readonly failMode: FailMode; readonly run: EngineRun }[],
): GateResult => {
  const details = runs.flatMap(({ failMode, run }): Detail[] => {
    if (run.kind === 'no-result') return [{ words: `${failMode}: no result (${run.reason}): ${run.words}` }];
    const blocked = blockedIn(run).filter(({ input }) => input !== witness.name);
    return blocked.map(({ rule, input }) => ({
      ...(rule === null ? {} : { rule }),
      vector: input,
      words: `${failMode}: ${rule === null ? 'the engine dropped' : 'blocked'} what devices need`,
    }));
  });
  if (details.length > 0) return gate('traffic-smoke', 'fail', details.length, '==', 0, details);
  const blind = runs.flatMap(({ failMode, run }) =>
    run.kind === 'no-result'
      ? []
      : blindness(witness, run).map((detail) => ({ ...detail, words: `${failMode}: ${detail.words}` })),
  );
  return gate('traffic-smoke', blind.length === 0 ? 'pass' : 'void', blind.length === 0 ? 0 : 'blind', '==', 0, blind);
};

/** What a run stopped, by rule (null: by no rule) and input: by its alerts, and what it dropped without any. */
export const blockedIn = (run: Completed): readonly { readonly rule: RuleId | null; readonly input: string }[] => {
  const alerts = run.alerts.filter(({ action }) => action === 'blocked');
  const alerted = alerts.map(({ ruleId, input }) => ({ rule: ruleId, input }));
  const silent = (run.blockedFlows ?? [])
    .filter(({ ruleId, capture }) => !alerted.some((one) => one.input === capture && one.rule === ruleId))
    .map(({ ruleId, capture }) => ({ rule: ruleId, input: capture }));
  return [...alerted, ...silent];
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
