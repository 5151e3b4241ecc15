/**
 * The gates of one matrix cell. Exit codes decide nothing: the gate is "rules the engine loaded" equal to "rules our own
 * parser expects", alerts as the vectors say, and controls that prove in the same run that this engine still accepts
 * known-good and refuses known-bad content.
 */
import type { EngineRun } from './ports.ts';
import type { Cell, CellResult, GateResult } from './release.ts';

export type CellExpectation = {
  /** Signature ids of the content, as our own parser reads it. */
  readonly rules: readonly number[];
  /** Exactly these signatures alert on the vector, no other. */
  readonly vectors: readonly { readonly name: string; readonly mustMatch: readonly number[] }[];
  readonly controls: {
    readonly good: number;
    readonly bad: number;
    readonly capture: string;
    readonly mustMatch: readonly number[];
  };
};

/** Grades the two runs of a cell; null runs: there is no such engine. */
export const gradeCell = (
  cell: Cell,
  expected: CellExpectation,
  runs: { readonly controls: EngineRun | null; readonly content: EngineRun | null },
  wallMs: number,
): CellResult => {
  const { controls, content } = runs;
  const result = (gates: readonly GateResult[]): CellResult => ({
    cellId: cell.cellId,
    verdict: worst(gates),
    rulesExpected: expected.rules.length,
    rulesLoaded: content?.kind === 'completed' ? content.loaded : null,
    gates,
    wallMs,
  });
  if (controls === null || content === null) {
    const words = `no pack of ${cell.engine.name} ${cell.engine.version} (${cell.engine.packageVersion}) is here: devices run an engine that cannot be tested`;
    return result([gate('result', 'error', 'none', '==', 'an engine', [{ words }])]);
  }
  const control = gradeControls(expected, controls);
  if (content.kind === 'no-result') {
    // An engine that dies on the content is a red cell; one that dies on the controls says nothing about the content.
    const verdict = control.verdict === 'pass' ? 'fail' : 'error';
    return result([control, gate('result', verdict, content.reason, '==', 'statistics', [{ words: content.words }])]);
  }
  return result([control, gradeLoaded(expected, content), ...gradeVectors(expected, content)]);
};

type Completed = Extract<EngineRun, { kind: 'completed' }>;
type Details = GateResult['details'];

const gradeControls = (expected: CellExpectation, run: EngineRun): GateResult => {
  const { good, bad, capture, mustMatch } = expected.controls;
  const limit = `${good} accepted, ${bad} refused, alerts on the control`;
  if (run.kind === 'no-result') {
    return gate('controls', 'void', run.reason, '==', limit, [{ words: run.words }]);
  }
  const alerted = alertsOn(run, capture);
  const missing = mustMatch.filter((rule) => !alerted.has(rule));
  const right = run.loaded === good && run.failed === bad && missing.length === 0;
  const observed = `${run.loaded} accepted, ${run.failed} refused, ${mustMatch.length - missing.length} of ${mustMatch.length} alerts`;
  const details = [
    ...missing.map((rule) => ({ rule, vector: capture, words: 'the control did not alert' })),
    ...(run.failed === bad ? [] : [{ words: `the engine refused ${run.failed} of ${bad} known-bad rules` }]),
    ...(run.loaded === good ? [] : [{ words: `the engine accepted ${run.loaded} of ${good} known-good rules` }]),
  ];
  return gate('controls', right ? 'pass' : 'void', observed, '==', limit, details);
};

const gradeLoaded = (expected: CellExpectation, run: Completed): GateResult => {
  const details: Details = run.errors.map(({ signatureId, file, line, words }) => ({
    ...(signatureId === undefined ? {} : { rule: signatureId }),
    ...(file === undefined ? {} : { file }),
    ...(line === undefined ? {} : { line }),
    words,
  }));
  const right = run.loaded === expected.rules.length;
  const silent = { words: `${expected.rules.length - run.loaded} rules are missing and the engine did not say why` };
  return gate(
    'rules-loaded',
    right ? 'pass' : 'fail',
    run.loaded,
    '==',
    expected.rules.length,
    right || details.length > 0 ? details : [silent],
  );
};

const gradeVectors = (expected: CellExpectation, run: Completed): GateResult[] => {
  const missing: Details[number][] = [];
  const surplus: Details[number][] = [];
  let wanted = 0;
  let found = 0;
  for (const vector of expected.vectors) {
    const alerted = alertsOn(run, vector.name);
    wanted += vector.mustMatch.length;
    for (const rule of vector.mustMatch) {
      if (alerted.has(rule)) found += 1;
      else missing.push({ rule, vector: vector.name, words: 'did not alert' });
    }
    for (const rule of alerted) {
      if (!vector.mustMatch.includes(rule))
        surplus.push({ rule, vector: vector.name, words: 'alerted, and should not' });
    }
  }
  return [
    gate('must-match', missing.length === 0 ? 'pass' : 'fail', found, '==', wanted, missing),
    gate('must-not-match', surplus.length === 0 ? 'pass' : 'fail', surplus.length, '==', 0, surplus),
  ];
};

const alertsOn = (run: Completed, capture: string): ReadonlySet<number> =>
  new Set(run.alerts.filter((alert) => alert.capture === capture).map((alert) => alert.signatureId));

const gate = (
  name: string,
  verdict: GateResult['verdict'],
  observed: number | string,
  operator: string,
  limit: number | string,
  details: Details,
): GateResult => ({
  gate: name,
  verdict,
  observed,
  operator,
  limit, // Cut in the middle of a character, words could not be hashed.
  details: details.slice(0, detailLimit).map((detail) => ({ ...detail, words: detail.words.toWellFormed() })),
});

/** Keeps an event far below a record's size limit; the count in `observed` stays true. */
const detailLimit = 20;

const order = ['pass', 'fail', 'error', 'void'] as const;

const worst = (gates: readonly GateResult[]): CellResult['verdict'] =>
  order[Math.max(...gates.map((one) => order.indexOf(one.verdict)))] ?? 'error';
