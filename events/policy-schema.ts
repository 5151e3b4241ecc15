/** A rollout policy as people write it: defaults filled in, durations as `250ms`, `1s`, `5m`, `2h` or plain milliseconds. */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import { defaultPolicy, type RolloutPolicy } from '../domain/policy.ts';
import type { Finding } from '../domain/release.ts';
import { canonicalJson } from './canonical-json.ts';

const units = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

const duration = z.union([z.number().int().min(1), z.string()]).transform((value, context) => {
  if (typeof value === 'number') return value;
  const match = /^(\d+(?:\.\d+)?) ?(ms|s|m|h|d)$/.exec(value.trim());
  const ms = match ? Number(match[1]) * units[match[2] as keyof typeof units] : Number.NaN;
  if (Number.isInteger(ms) && ms >= 1) return ms;
  context.addIssue({ code: 'custom', message: `"${value}" is no duration; expected e.g. 250ms, 30s, 5m or 2h` });
  return z.NEVER;
});
const alpha = z.number().gt(0).lt(1);

const stage = z.strictObject({
  name: z.string().min(1).max(40),
  kind: z.enum(['canary', 'share', 'all']),
  size: z.number().gt(0),
  minMs: duration,
  minDevices: z.number().int().min(0),
  promote: z.boolean().exactOptional(),
});

const written = z.strictObject({
  tickMs: duration.optional(),
  heartbeatMs: duration.optional(),
  firstSilenceMs: duration.optional(),
  silenceMs: duration.optional(),
  leaseMs: duration.optional(),
  freshTicks: z.number().int().min(1).max(100).optional(),
  approvals: z.number().int().min(0).max(20).optional(),
  stages: z.array(stage).min(1).max(20).optional(),
  judge: z
    .strictObject({
      alphaA: alpha.exactOptional(),
      alphaB: alpha.exactOptional(),
      alphaHold: alpha.exactOptional(),
    })
    .optional(),
  unit: z.enum(['device', 'site']).optional(),
});

export type ParsedPolicy =
  | { readonly ok: true; readonly policy: RolloutPolicy }
  | { readonly ok: false; readonly findings: readonly Finding[] };

/** What a policy file says, over the defaults. Every finding names the field, what it is and what it should be. */
export const parsePolicy = (value: unknown): ParsedPolicy => {
  const parsed = written.safeParse(value ?? {});
  if (!parsed.success) {
    return {
      ok: false,
      findings: parsed.error.issues.map((issue) => ({
        code: 'policy',
        message:
          issue.code === 'unrecognized_keys'
            ? `${at(issue.path)}unknown field ${issue.keys.join(', ')}; known are ${Object.keys(knownFields(issue.path)).join(', ')}`
            : `${at(issue.path)}${issue.message}`,
      })),
    };
  }
  const given = Object.fromEntries(Object.entries(parsed.data).filter(([, field]) => field !== undefined));
  const policy: RolloutPolicy = { ...defaultPolicy, ...given, judge: { ...defaultPolicy.judge, ...parsed.data.judge } };
  const findings = contradictions(policy);
  return findings.length === 0 ? { ok: true, policy } : { ok: false, findings };
};

/** SHA-256 (hex) of the canonical form: names the exact policy that a release ran under. */
export const policyDigest = (policy: RolloutPolicy): string =>
  createHash('sha256').update(canonicalJson(policy)).digest('hex');

const at = (path: readonly PropertyKey[]): string => (path.length === 0 ? '' : `${path.map(String).join('.')}: `);
const knownFields = (path: readonly PropertyKey[]): object =>
  path[0] === 'stages' ? stage.shape : path[0] === 'judge' ? defaultPolicy.judge : written.shape;

/** What no single field shows: relations without which the rules of stages, lease or silence could not work. */
const contradictions = (policy: RolloutPolicy): Finding[] => {
  const found: Finding[] = [];
  const needs = (right: boolean, code: string, message: string) => {
    if (!right) found.push({ code, message });
  };
  const { heartbeatMs, firstSilenceMs, silenceMs, tickMs, leaseMs, freshTicks, stages } = policy;
  for (const [name, value] of Object.entries({ firstSilenceMs, silenceMs })) {
    const message = `${name} is ${value} ms, expected at least two heartbeats (${2 * heartbeatMs} ms): one lost poll is no silence`;
    needs(value >= 2 * heartbeatMs, 'silence', message);
  }
  const freshMs = freshTicks * tickMs;
  needs(
    firstSilenceMs >= tickMs,
    'silence',
    `firstSilenceMs is ${firstSilenceMs} ms, expected at least one tick (${tickMs} ms)`,
  );
  needs(
    leaseMs >= 3_000,
    'lease',
    `leaseMs is ${leaseMs}, expected at least 3000: signed expiry has whole seconds and is renewed at a third`,
  );
  needs(freshMs <= 3_600_000, 'fresh', `freshTicks * tickMs is ${freshMs} ms, expected at most an hour`);
  stages.forEach((one, index) => {
    const where = `stages.${index} (${one.name})`;
    const previous = stages[index - 1];
    needs((one.kind === 'canary') === (index === 0), 'stages', `${where}: the first stage is the canary, and only it`);
    needs(
      (one.kind === 'all') === (index === stages.length - 1),
      'stages',
      `${where}: the last stage is of kind all, and only it`,
    );
    if (one.kind === 'canary')
      needs(Number.isInteger(one.size), 'stages', `${where}: size ${one.size}, expected whole devices per segment`);
    else needs(one.size <= 1, 'stages', `${where}: size ${one.size}, expected a share of at most 1`);
    if (one.kind === 'all') needs(one.size === 1, 'stages', `${where}: size ${one.size}, expected 1`);
    if (previous?.kind === 'share') {
      needs(one.size > previous.size, 'stages', `${where}: size ${one.size} does not grow after ${previous.size}`);
    }
  });
  needs(new Set(stages.map((one) => one.name)).size === stages.length, 'stages', 'two stages have the same name');
  return found;
};
