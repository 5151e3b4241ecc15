import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { defaultPolicy } from '../../domain/policy.ts';
import { parsePolicy, policyDigest } from '../../events/policy-schema.ts';

const findings = (value: unknown): string => {
  const parsed = parsePolicy(value);
  return parsed.ok ? '' : parsed.findings.map((finding) => finding.message).join('\n');
};

describe('the policy file', () => {
  test('an empty file means the defaults', () => {
    expect(parsePolicy(null)).toEqual({ ok: true, policy: defaultPolicy });
    expect(findings(defaultPolicy)).toBe('');
  });

  test("the demo's plan is valid", () => {
    const text = readFileSync(join(import.meta.dirname, '..', '..', 'examples', 'demo', 'policy.yaml'), 'utf8');
    const parsed = parsePolicy(parse(text));
    expect(parsed).toMatchObject({ ok: true, policy: { tickMs: 1_000, leaseMs: 6_000, judge: { alphaA: 0.01 } } });
  });

  test('durations are written for people', () => {
    const parsed = parsePolicy({
      tickMs: '250ms',
      heartbeatMs: '1.5s',
      firstSilenceMs: '1m',
      silenceMs: 60_000,
      leaseMs: '1h',
    });
    expect(parsed).toMatchObject({
      policy: { tickMs: 250, heartbeatMs: 1_500, firstSilenceMs: 60_000, silenceMs: 60_000, leaseMs: 3_600_000 },
    });
  });

  test.each([
    [{ tickMs: 'soon' }, 'tickMs: "soon" is no duration'],
    [{ colour: 'red' }, 'unknown field colour; known are tickMs'],
    [{ stages: [{ ...defaultPolicy.stages[0], speed: 1 }] }, 'unknown field speed; known are name'],
    [{ judge: { alphaA: 2 } }, 'judge.alphaA'],
    [{ silenceMs: '6m' }, 'silenceMs is 360000 ms, expected at least two heartbeats'],
    [{ stages: defaultPolicy.stages.slice(1) }, 'the first stage is the canary'],
    [{ stages: defaultPolicy.stages.slice(0, -1) }, 'the last stage is of kind all'],
    [
      { stages: defaultPolicy.stages.with(2, { name: 'x', kind: 'share', size: 0.005, minMs: 1, minDevices: 0 }) },
      'does not grow after 0.01',
    ],
    [{ leaseMs: 10 }, 'leaseMs is 10'],
  ])('%j is refused with its place', (value, message) => {
    expect(findings(value)).toContain(message);
  });

  test('the digest names the exact policy', () => {
    expect(policyDigest(defaultPolicy)).toMatch(/^[0-9a-f]{64}$/);
    expect(policyDigest({ ...defaultPolicy, approvals: 1 })).not.toBe(policyDigest(defaultPolicy));
  });
});
