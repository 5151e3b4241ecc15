import { describe, expect, test } from 'vitest';
import { gradeCell } from '../../domain/gates.ts';
import type { EngineRun } from '../../domain/ports.ts';
import type { Cell } from '../../domain/release.ts';

const cell: Cell = {
  cellId: 'suricata-6.0.1-00000000/ids',
  engine: { name: 'suricata', version: '6.0.1', packageVersion: '1:6.0.1-3', digest: '0'.repeat(64) },
  mode: 'ids',
  devices: 10,
};
const expected = {
  rules: [1, 2, 3],
  vectors: [
    { name: 'one', mustMatch: [1] },
    { name: 'two', mustMatch: [2, 3] },
    { name: 'clean', mustMatch: [] },
  ],
  controls: { good: 1, bad: 2, capture: 'control', mustMatch: [900] },
};
const alert = (capture: string, signatureId: number) => ({ capture, signatureId, action: 'allowed' as const });
const completed = (values: Partial<Extract<EngineRun, { kind: 'completed' }>>): EngineRun => ({
  ...{ kind: 'completed', loaded: 3, failed: 0, skipped: 0, errors: [], wallMs: 5 },
  alerts: [alert('one', 1), alert('two', 2), alert('two', 3)],
  ...values,
});
const controls = completed({ loaded: 1, failed: 2, alerts: [alert('control', 900)] });
const grade = (runs: { controls?: EngineRun | null; content?: EngineRun | null }) =>
  gradeCell(cell, expected, { controls, content: completed({}), ...runs }, 12);
const gateOf = (result: ReturnType<typeof grade>, name: string) => result.gates.find((gate) => gate.gate === name);

describe('the gates of a cell', () => {
  test('pass when everything loads, alerts and stays quiet as expected', () => {
    const result = grade({});
    expect(result.verdict).toBe('pass');
    expect(result.gates.map((gate) => gate.verdict)).toEqual(['pass', 'pass', 'pass', 'pass']);
    expect(result).toMatchObject({ rulesExpected: 3, rulesLoaded: 3, wallMs: 12 });
  });

  test('a refused rule fails the cell and is named in the words of the engine', () => {
    const errors = [{ signatureId: 3, line: 7, words: 'unknown rule keyword "entropy"' }];
    const result = grade({ content: completed({ loaded: 2, failed: 1, errors }) });
    expect(result.verdict).toBe('fail');
    expect(gateOf(result, 'rules-loaded')).toMatchObject({
      observed: 2,
      operator: '==',
      limit: 3,
      details: [{ rule: 3, line: 7, words: 'unknown rule keyword "entropy"' }],
    });
  });

  test('a rule that vanished without a word fails the cell', () => {
    const gate = gateOf(grade({ content: completed({ loaded: 2 }) }), 'rules-loaded');
    expect(gate?.verdict).toBe('fail');
    expect(gate?.details[0]?.words).toMatch(/1 rules are missing/);
  });

  test('a missing and a surplus alert are different gates', () => {
    const result = grade({ content: completed({ alerts: [alert('one', 1), alert('two', 2), alert('clean', 3)] }) });
    expect(gateOf(result, 'must-match')).toMatchObject({ verdict: 'fail', observed: 2, limit: 3 });
    expect(gateOf(result, 'must-not-match')?.details).toEqual([
      { rule: 3, vector: 'clean', words: 'alerted, and should not' },
    ]);
  });

  test.each([
    ['a known-bad rule is accepted', completed({ loaded: 2, failed: 1, alerts: [alert('control', 900)] })],
    ['a known-good rule is refused', completed({ loaded: 0, failed: 3, alerts: [] })],
    ['the control does not alert', completed({ loaded: 1, failed: 2, alerts: [] })],
    ['the engine dies on the controls', { kind: 'no-result', reason: 'signal', words: 'SIGSEGV', wallMs: 1 } as const],
  ])('%s: the cell is void even when the content looks good', (_name, run) => {
    const result = grade({ controls: run });
    expect(result.verdict).toBe('void');
  });

  test('an engine that dies on the content is a failed cell', () => {
    const result = grade({
      content: { kind: 'no-result', reason: 'timeout', words: 'killed after 30 s', wallMs: 30_000 },
    });
    expect(result).toMatchObject({ verdict: 'fail', rulesLoaded: null });
  });

  test('an engine without a pack is an error that says how many devices run it', () => {
    const result = grade({ controls: null, content: null });
    expect(result.verdict).toBe('error');
    expect(result.gates[0]?.details[0]?.words).toMatch(/no pack of suricata 6.0.1/);
  });
});
