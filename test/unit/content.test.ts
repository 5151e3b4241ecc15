import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { limits } from '../../domain/content/family.ts';
import { findDuplicateIds, parseRules } from '../../domain/content/rules.ts';
import { decodeBundle, encodeBundle } from '../../infra/content/bundle.ts';
import { loadFamily } from '../../infra/content/load-family.ts';
import { parseErrors } from '../../infra/engines/suricata.ts';

const head = 'alert tcp any any -> any any';
const rule = (sid: number, options = 'content:"x";') => `${head} (msg:"m"; ${options} sid:${sid}; rev:1;)`;

describe('our own rule parser', () => {
  test('reads what an engine reads: comments, continuations, quotes, escapes', () => {
    const text = `# comment\n\n${rule(1, 'content:"a\\;b\\"c"; pcre:"/x;y/";')}\r\n${head} (msg:"two"; \\\n  nocase; sid:2;)\n`;
    const { rules, findings } = parseRules('a.rules', text);
    expect(findings).toEqual([]);
    expect(rules).toMatchObject([
      { signatureId: 1, revision: 1, line: 3, keywords: ['content', 'pcre'] },
      { signatureId: 2, revision: 1, line: 4, keywords: ['nocase'], text: `${head} (msg:"two"; nocase; sid:2;)` },
    ]);
  });

  test.each([
    ['notify tcp any any -> any any (msg:"m"; sid:1;)', 'unknown action "notify"'],
    ['alert tcp any any any (msg:"m"; sid:1;)', 'the header has 5 fields'],
    [`${head} msg:"m"; sid:1;`, 'no "("'],
    [`${head} (msg:"m"; sid:1;`, 'no ")" at the end'],
    [`${head} (msg:"m; sid:1;)`, 'a quote is not closed'],
    [`${head} (msg:"m"; sid:1)`, '"sid:1" is not ended by a semicolon'],
    [`${head} (msg:"m"; content:"x";)`, 'sid is missing'],
    [`${head} (msg:"m"; sid:0;)`, 'sid is 0'],
    [`${head} (msg:"m"; sid:1; sid:2;)`, 'two signature ids'],
    [`${head} (sid:1;)`, 'no message'],
  ])('%s is refused with its line', (text, message) => {
    const { rules, findings } = parseRules('a.rules', `\n${text}`);
    expect(rules).toEqual([]);
    expect(findings).toMatchObject([{ file: 'a.rules', line: 2, message: expect.stringContaining(message) }]);
  });

  test('never throws and never counts a rule twice', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.oneof(
            fc.string(),
            fc.nat(50).map((n) => rule(n)),
          ),
        ),
        (lines) => {
          const { rules, findings } = parseRules('f', lines.join('\n'));
          expect(rules.length + findings.length).toBeLessThanOrEqual(lines.join('\n').split('\n').length);
        },
      ),
    );
  });

  test('a duplicate names both places', () => {
    const { rules } = parseRules('a.rules', `${rule(7)}\n${rule(8)}\n${rule(7)}`);
    expect(findDuplicateIds(rules)).toMatchObject([
      { file: 'a.rules', line: 3, message: 'signature id 7 is used again: first in a.rules:1' },
    ]);
  });
});

describe('a family folder', () => {
  let dir: string;
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'sigrel-family-'));
  });
  afterAll(() => rm(dir, { recursive: true, force: true }));

  const good: Readonly<Record<string, string | Uint8Array>> = {
    'family.yaml': 'name: ips\nengine: suricata\nmodes: [ids]\n',
    'rules/a.rules': `${rule(1)}\n${rule(2)}\n`,
    'vectors.yaml':
      '- { name: one, capture: one.pcap, mustMatch: [1, 2] }\n- { name: two, capture: two.pcap, mustMatch: [] }\n',
    'vectors/one.pcap': 'one',
    'vectors/two.pcap': 'two',
    'controls/known-good.rules': rule(91),
    'controls/known-bad.rules': rule(92),
    'controls/control.pcap': 'control',
  };
  let made = 0;
  const folder = async (changes: Readonly<Record<string, string | Uint8Array | null>>): Promise<string> => {
    made += 1;
    const target = join(dir, `f${made}`);
    await mkdir(target);
    for (const [path, content] of Object.entries({ ...good, ...changes })) {
      if (content === null) continue;
      await mkdir(dirname(join(target, path)), { recursive: true });
      await writeFile(join(target, path), content);
    }
    return target;
  };
  const problems = async (changes: Parameters<typeof folder>[0]): Promise<string> => {
    const loaded = await loadFamily(await folder(changes));
    return loaded.ok
      ? ''
      : loaded.findings.map((f) => `${f.file}${f.line ? `:${f.line}` : ''} ${f.message}`).join('\n');
  };

  test('is read whole', async () => {
    const loaded = await loadFamily(await folder({}));
    expect(loaded).toMatchObject({ ok: true, family: { name: 'ips', modes: ['ids'], policy: {} } });
  });

  test.each<[string, Parameters<typeof folder>[0], string]>([
    ['a syntax error', { 'rules/a.rules': `${rule(1)}\nalert tcp (` }, 'rules/a.rules:2 '],
    [
      'a duplicate id',
      { 'rules/b.rules': rule(1) },
      'rules/b.rules:1 signature id 1 is used again: first in rules/a.rules:1',
    ],
    ['no rules', { 'rules/a.rules': '# none\n' }, 'there is no rule in rules/*.rules'],
    [
      'an unknown field',
      { 'family.yaml': 'name: ips\nengine: suricata\nmodes: [ids]\ncolour: red\n' },
      'unknown field colour',
    ],
    [
      'an unknown engine',
      { 'family.yaml': 'name: ips\nengine: snort\nmodes: [ids]\n' },
      'engine is "snort", expected suricata',
    ],
    ['broken YAML', { 'family.yaml': 'name: [' }, 'family.yaml no valid YAML'],
    ['no family.yaml', { 'family.yaml': null }, 'family.yaml is missing'],
    [
      'a vector of an unknown rule',
      { 'vectors.yaml': '- { name: a, capture: one.pcap, mustMatch: [1, 2, 3] }' },
      'no rule has signature id 3',
    ],
    ['a missing capture', { 'vectors/one.pcap': null }, 'capture vectors/one.pcap is missing'],
    [
      'a rule without a vector',
      { 'vectors.yaml': '- { name: a, capture: one.pcap, mustMatch: [1] }' },
      'rules/a.rules:2 rule 2 has no vector',
    ],
    ['no controls', { 'controls/known-bad.rules': null }, 'expected at least one rule that every engine refuses'],
    [
      'a file over the limit',
      { 'rules/big.rules': new Uint8Array(limits.fileBytes + 1) },
      `rules/big.rules has ${limits.fileBytes + 1} bytes`,
    ],
  ])('%s is named with its place', async (_name, changes, message) => {
    expect(await problems(changes)).toContain(message);
  });

  test('two vectors must not share an address', async () => {
    const { capture, tcpPackets } = await import('../../examples/pcap.ts');
    const pcap = (peer: string) =>
      capture(tcpPackets({ address: '10.1.1.1', port: 1 }, { address: peer, port: 2 }, []));
    const shared = { 'vectors/one.pcap': pcap('10.1.1.2'), 'vectors/two.pcap': pcap('10.1.1.3') };
    expect(await problems(shared)).toContain('vector two: address 10.1.1.1 is also in vector one');
  });

  test('an empty and a missing folder, a link', async () => {
    const empty = join(dir, 'empty');
    await mkdir(empty);
    expect(await loadFamily(empty)).toMatchObject({ ok: false, findings: [{ code: 'empty' }] });
    expect(await loadFamily(join(dir, 'nowhere'))).toMatchObject({ ok: false, findings: [{ code: 'missing-folder' }] });
    const linked = await folder({});
    await symlink('/etc/hostname', join(linked, 'rules', 'link.rules'));
    expect(await loadFamily(linked)).toMatchObject({ ok: false, findings: [{ code: 'no-file' }] });
  });

  test('a base is there unless the folder has a file of its own; its vectors stay', async () => {
    const base = await folder({});
    const top = join(dir, 'top');
    await mkdir(join(top, 'rules'), { recursive: true });
    await mkdir(join(top, 'vectors'));
    await writeFile(join(top, 'family.yaml'), `base: ${base}\nname: ips\nengine: suricata\nmodes: [ids]\n`);
    await writeFile(join(top, 'rules', 'new.rules'), rule(3));
    await writeFile(join(top, 'vectors.yaml'), '- { name: three, capture: three.pcap, mustMatch: [3] }\n');
    await writeFile(join(top, 'vectors', 'three.pcap'), 'three');
    const loaded = await loadFamily(top);
    if (!loaded.ok) throw new Error(JSON.stringify(loaded.findings));
    expect(loaded.family.rules.map((r) => r.signatureId)).toEqual([1, 2, 3]);
    expect(loaded.family.vectors.map((v) => v.name)).toEqual(['one', 'two', 'three']);
    const bundle = encodeBundle(loaded.files);
    expect(encodeBundle(decodeBundle(bundle).reverse())).toEqual(bundle);
  });

  test('bytes that are no bundle are refused', () => {
    expect(() => decodeBundle(new TextEncoder().encode('{"files":[{}]}'))).toThrow(/no list of files/);
  });
});

describe("the engine's words", () => {
  test('of version 6 and of later versions', () => {
    const signature = 'alert tcp any any -> any any (msg:"e"; entropy: value >= 1; sid:3; rev:1;)';
    const six = `23/11/2026 -- 12:00:00 - <Error> - [ERRCODE: SC_ERR_RULE_KEYWORD_UNKNOWN(102)] - unknown rule keyword 'entropy'.
23/11/2026 -- 12:00:00 - <Error> - [ERRCODE: SC_ERR_INVALID_SIGNATURE(39)] - error parsing signature "${signature}" from file /tmp/x.rules at line 3`;
    const eight = `Error: detect-parse: unknown rule keyword 'entropy'.
Error: detect: error parsing signature "${signature}" from file /tmp/x.rules at line 3`;
    for (const output of [six, eight]) {
      expect(parseErrors(output)).toEqual([{ line: 3, signatureId: 3, words: "unknown rule keyword 'entropy'." }]);
    }
  });
});
