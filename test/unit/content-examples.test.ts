/** The example content as far as it can be checked without an engine; test/services/content.test.ts asks the engines. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { captureAddresses } from '../../domain/content/addresses.ts';
import { defaultPolicy } from '../../domain/policy.ts';
import { parsePolicy } from '../../events/policy-schema.ts';
import { exampleFiles } from '../../examples/make-captures.ts';
import { loadFamily } from '../../infra/content/load-family.ts';

const examples = join(import.meta.dirname, '..', '..', 'examples');
const load = async (folder: string) => {
  const loaded = await loadFamily(join(examples, folder));
  if (!loaded.ok) throw new Error(JSON.stringify(loaded.findings, null, 1));
  return loaded.family;
};

test('making the captures again gives the files that are there, and no other is there', () => {
  const made = exampleFiles();
  for (const [path, bytes] of made)
    expect([path, readFileSync(join(examples, path)).equals(bytes)]).toEqual([path, true]);
  const there = readdirSync(examples, { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith('.pcap'));
  expect(there.filter((path) => !made.has(path))).toEqual([]);
});

test('no two captures share an address: also the field and the control have their own', () => {
  const owners = new Map<string, string>();
  for (const [path, bytes] of exampleFiles()) {
    if (!path.endsWith('.pcap')) continue;
    const addresses = captureAddresses(bytes);
    expect(addresses.size).toBe(2);
    for (const address of addresses) {
      expect([path, owners.get(address)]).toEqual([path, undefined]);
      owners.set(address, path);
    }
  }
});

test('the family has rules of many kinds in both modes and near misses beside its matches', async () => {
  const family = await load('families/ips');
  expect(family.configurations.map(({ mode }) => mode)).toEqual(['ids', 'ips']);
  expect(family.rules.length).toBeGreaterThanOrEqual(25);
  const keywords = new Set(family.rules.flatMap((rule) => rule.features));
  const kinds = [
    ...['http.uri', 'http.user_agent', 'http.header', 'http.cookie', 'http.method', 'http.request_body', 'http.host'],
    ...['pcre', 'dns.query', 'tls.sni', 'ssh.software', 'flowbits', 'threshold', 'byte_test', 'dsize', 'bsize'],
    ...['offset', 'depth', 'distance', 'within', 'dotprefix', 'endswith', 'itype', 'base64_decode', 'file_data'],
  ];
  expect(kinds.filter((kind) => !keywords.has(kind))).toEqual([]);
  expect(new Set(family.rules.map((rule) => rule.text.split(' ')[0]))).toEqual(new Set(['alert', 'drop']));
  expect(family.vectors.filter((vector) => vector.mustMatch.length === 0).length).toBeGreaterThanOrEqual(5);
});

test('its written policy is the default one', async () => {
  const text = readFileSync(join(examples, 'families/ips/policy.yaml'), 'utf8');
  expect(parsePolicy(parse(text))).toEqual({ ok: true, policy: defaultPolicy });
});

test.each([
  ['good', [1000030, 1000031]],
  ['astaro', [1000032, 1000033]],
  ['blocks-field', [1000034]],
])('the release %s is the family and the rules %j', async (name, added) => {
  const family = await load('families/ips');
  const release = await load(`releases/${name}`);
  const ids = (rules: typeof family.rules) => rules.map((rule) => rule.ruleId).sort();
  expect(ids(release.rules)).toEqual([...ids(family.rules), ...added]);
  expect(release.vectors.length).toBeGreaterThan(family.vectors.length);
});
