/**
 * Malformed reports, made from valid ones by a seeded generator: the same seed gives the same reports, so that a count that is
 * wrong once is wrong again. Every mutation leaves something that must not count.
 */
import type { DeviceReport } from '../../domain/telemetry.ts';
import { below, pick, type Random } from './random.ts';

const engine = { name: 'suricata', version: '8.0.7', packageVersion: '1:8.0.7-1', digest: 'ab'.repeat(32) };

/** A report of each kind, as a device says it. */
export const validReport = (random: Random, deviceId: string, sequence: number): DeviceReport => {
  const contentVersion = 1 + below(random, 1_000);
  const kinds = [
    'poll',
    'installed',
    'healthy',
    'reverted',
    'crash',
    'load-failure',
    'blocked-traffic',
    'update-failure',
  ] as const;
  const kind = pick(random, kinds);
  switch (kind) {
    case 'poll': {
      const failMode = deviceId.endsWith('7') ? 'fail-closed' : 'fail-open';
      const offer = random() < 0.3 ? { releaseId: 'ips-1', contentVersion } : null;
      return { deviceId, sequence, body: { kind, engine, failMode, contentVersion, directorVersion: 7, offer } };
    }
    case 'installed':
    case 'healthy':
    case 'reverted':
      return { deviceId, sequence, body: { kind, contentVersion } };
    default:
      return { deviceId, sequence, body: { kind, contentVersion, words: 'signal 11 in ünïcode' } };
  }
};

type Node = Record<string, unknown>;

/** The object that has a random field of the tree, and that field. */
const randomField = (random: Random, root: Node): [Node, string] => {
  let node = root;
  for (;;) {
    const field = pick(random, Object.keys(node));
    const value = node[field];
    if (typeof value !== 'object' || value === null || Array.isArray(value) || random() < 0.4) return [node, field];
    node = value as Node;
  }
};

/** Of another type, range or length than any field has. */
const strange = (random: Random): unknown =>
  pick<() => unknown>(random, [
    () => null,
    () => random() < 0.5,
    () => -1 - below(random, 1e6),
    () => random() + 0.25,
    () => 2 ** 53 * (1 + random()),
    () => 1e308,
    () => '',
    () => '\u0000\u001b[2J',
    () => '\ud800',
    () => '../../../etc/passwd',
    () => "'; drop table devices; --",
    () => 'x'.repeat(501 + below(random, 500)),
    () => [],
    () => [[[[{}]]]],
    () => ({}),
    () => ({ kind: 'poll' }),
    () => ({ toString: 'x', valueOf: 1, constructor: { prototype: { deviceId: 'x' } } }),
  ])();

/** A signed report (as JSON) that is no report of its device any more: what JSON.parse makes of what came instead. */
export const malform = (random: Random, signed: string): unknown => {
  const copy = JSON.parse(signed) as Node;
  const mutate = pick<() => unknown>(random, [
    () => {
      const [node, field] = randomField(random, copy);
      node[field] = strange(random);
      return copy;
    },
    () => {
      const [node, field] = randomField(random, copy);
      delete node[field];
      return copy;
    },
    () => {
      const [node, field] = randomField(random, copy);
      node[pick(random, ['__proto__x', 'surplus', 'Kind', 'mac ', '', 'constructor'])] = node[field];
      return copy;
    },
    // Well-formed, and not what was signed.
    () => ({ ...copy, sequence: Number(copy.sequence) + 1 + below(random, 1_000) }),
    () => ({ ...copy, deviceId: `${copy.deviceId}${below(random, 10)}` }),
    () => ({ ...copy, body: { kind: 'crash', contentVersion: 1 + below(random, 9), words: String(random()) } }),
    () => {
      const mac = String(copy.mac);
      const at = below(random, mac.length);
      const digit = (Number.parseInt(mac.charAt(at), 16) ^ (1 + below(random, 15))).toString(16);
      return { ...copy, mac: `${mac.slice(0, at)}${digit}${mac.slice(at + 1)}` };
    },
    () => ({ ...copy, keyEpoch: 2 + below(random, 1e6) }),
    () => strange(random),
    () => [copy],
    () => Object.entries(copy),
    () => signed.slice(0, below(random, signed.length)),
  ]);
  const made = mutate();
  if (made !== copy) return made;
  // A field may have been replaced by what it was, or a key epoch left out, which means the first: that is the same report.
  const textOf = (report: Readonly<Node>) =>
    JSON.stringify(Object.entries({ keyEpoch: 1, ...report }).sort(([a], [b]) => (a < b ? -1 : 1)));
  return textOf(copy) === textOf(JSON.parse(signed)) ? { ...copy, surplus: true } : copy;
};
