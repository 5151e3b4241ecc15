/** One cell of the matrix: the controls and the content, each in an engine run of its own, and the gates over both. */
import { type Family, rulesText } from './content/family.ts';
import type { Rule } from './content/rules.ts';
import { type CellExpectation, gradeCell } from './gates.ts';
import type { EngineInput, EngineRun, EngineRunner } from './ports.ts';
import type { Cell, CellResult } from './release.ts';

const controlCapture = 'control';

export type TestedCell = {
  readonly result: CellResult;
  /** What the engine made of the content; null when there is no such engine. */
  readonly content: EngineRun | null;
};

/** Rejects only when `signal` aborts. */
export const testCell = async (
  ports: { readonly engines: EngineRunner; readonly now: () => number },
  family: Family,
  cell: Cell,
  signal: AbortSignal,
): Promise<TestedCell> => {
  const started = ports.now();
  const { controls } = family;
  const expectation: CellExpectation = {
    rules: family.rules.map((rule) => rule.signatureId),
    vectors: family.vectors,
    controls: {
      good: controls.good.length,
      bad: controls.bad.length,
      capture: controlCapture,
      mustMatch: controls.mustMatch,
    },
  };
  const run = (rules: readonly Rule[], captures: EngineInput['captures']): Promise<EngineRun | null> => {
    const input = { rules: new TextEncoder().encode(rulesText(rules)), captures, mode: cell.mode };
    return ports.engines.run(cell.engine, input, signal);
  };
  const control = await run([...controls.good, ...controls.bad], [{ name: controlCapture, bytes: controls.capture }]);
  const content = await run(
    family.rules,
    family.vectors.map(({ name, capture }) => ({ name, bytes: capture })),
  );
  const result = gradeCell(cell, expectation, { controls: control, content }, ports.now() - started);
  return { result, content };
};
