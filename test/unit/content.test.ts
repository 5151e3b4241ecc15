import { cp, mkdir, mkdtemp, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { limits } from '../../domain/content/family.ts';
import { SigrelError } from '../../domain/errors.ts';
import { decodeBundle, encodeBundle } from '../../infra/content/bundle.ts';
import { loadFamily, parseFamily } from '../../infra/content/load-family.ts';
import { tcpCapture } from '../../infra/engines/pcap.ts';
import { parseErrors } from '../../infra/engines/suricata-log.ts';

const head = 'alert tcp any any -> any any';
const rule = (sid: number, options = 'content:"x";') => `${head} (msg:"m"; ${options} sid:${sid}; rev:1;)`;

const pcap = (client: string, server: string): Uint8Array =>
  tcpCapture({ client, server, port: 80, exchanges: [{ from: 'client', payload: new Uint8Array(1) }] });

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
    'vectors/one.pcap': pcap('10.1.0.1', '10.1.0.2'),
    'vectors/two.pcap': pcap('10.2.0.1', '10.2.0.2'),
    'controls/known-good.rules': rule(91),
    'controls/known-bad.rules': rule(92),
    'controls/control.pcap': pcap('10.9.0.1', '10.9.0.2'),
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

  test.each<[string, Readonly<Record<string, string | Uint8Array>>, string]>([
    ['a good capture without packets', { 'goodware/a.pcap': new Uint8Array(3) }, 'goodware/a.pcap holds no IP packet'],
    [
      'a good capture with the addresses of a vector',
      { 'goodware/a.pcap': pcap('10.1.0.1', '10.7.0.2') },
      'goodware/a.pcap address 10.1.0.1 is also in one',
    ],
    [
      'a good capture with the addresses of the control',
      { 'goodware/a.pcap': pcap('10.9.0.1', '10.7.0.2') },
      'goodware/a.pcap address 10.9.0.1 is also in the control',
    ],
    [
      'good captures of one name',
      { 'goodware/a b.pcap': pcap('10.7.0.1', '10.7.0.2'), 'goodware/a_b.pcap': pcap('10.8.0.1', '10.8.0.2') },
      'is called goodware_a_b.pcap in a run',
    ],
    [
      'a budget without end',
      { 'family.yaml': 'name: ips\nengine: suricata\nmodes: [ids]\nbudgets: { load: .inf }\n' },
      'family.yaml:4 budgets.load is Infinity',
    ],
    [
      'a budget of a name that every object has',
      { 'family.yaml': 'name: ips\nengine: suricata\nmodes: [ids]\nbudgets: { toString: 2 }\n' },
      'family.yaml:4 budgets.toString is 2',
    ],
    [
      'a whole that may be cut',
      { 'family.yaml': 'name: ips\nengine: suricata\nmodes: [ids]\nbudgets: { cut: 1 }\n' },
      'family.yaml:4 budgets.cut is 1',
    ],
    [
      'an end that was announced yesterday',
      { 'support.yaml': '- { engine: suricata@6.0.1, notice: 2026-11-01, endOfLife: 2026-11-20 }\n' },
      'support.yaml:1 suricata@6.0.1 ends on 2026-11-20, told on 2026-11-01: expected a notice of at least 30 days',
    ],
    [
      'an end on a day that no calendar has',
      { 'support.yaml': '- { engine: suricata@6.0.1, notice: 2026-01-01, endOfLife: 2027-13-01 }\n' },
      'support.yaml:1 endOfLife is "2027-13-01", expected a date',
    ],
    [
      'a version with two ends',
      { 'support.yaml': '- { engine: suricata@6.0.1 }\n- { engine: suricata@6.0.1 }\n' },
      'support.yaml:2 suricata@6.0.1 is there twice',
    ],
    [
      'a vector with a name that is given by the product',
      {
        'vectors.yaml':
          '- { name: control, capture: one.pcap, mustMatch: [1, 2] }\n- { name: two, capture: two.pcap, mustMatch: [] }\n',
      },
      'vectors.yaml:1 vector 1: name is "control"',
    ],
  ])('%s is a finding', async (_name, changes, words) => {
    expect(await problems(changes)).toContain(words);
  });

  test('an exception of ClamAV needs no vector: it is never told', async () => {
    const target = join(dir, 'exception');
    await cp(join(import.meta.dirname, '..', '..', 'examples', 'families', 'av'), target, { recursive: true });
    await writeFile(join(target, 'rules', 'known.fp'), '0123456789abcdef0123456789abcdef:28:Known.Good\n');
    expect(await loadFamily(target)).toMatchObject({ ok: true });
  });

  test('is read whole', async () => {
    const loaded = await loadFamily(await folder({}));
    expect(loaded).toMatchObject({
      ok: true,
      family: { name: 'ips', configurations: [{ name: 'ids', mode: 'ids' }], misfit: 'block', policy: {} },
    });
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
      'family.yaml:2 engine is "snort", expected one of suricata, yara, clamav',
    ],
    ['broken YAML', { 'family.yaml': 'name: [' }, 'family.yaml:1 no valid YAML'],
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
    [
      'a family.yaml without fields',
      { 'family.yaml': '- ips' },
      'family.yaml:1 expected fields name, engine and modes',
    ],
    [
      'an unusable name',
      { 'family.yaml': 'name: ../ips\nengine: suricata\nmodes: [ids]\n' },
      'name is "../ips", expected lower-case letters, digits and dashes',
    ],
    [
      'an unknown mode',
      { 'family.yaml': 'name: ips\nengine: suricata\nmodes: [tap]\n' },
      'modes is ["tap"], expected a list of ids and ips',
    ],
    [
      'a base that is no path',
      { 'family.yaml': 'name: ips\nengine: suricata\nmodes: [ids]\nbase: 5\n' },
      'base is 5, expected the path of a folder',
    ],
    [
      'an absolute base',
      { 'family.yaml': 'name: ips\nengine: suricata\nmodes: [ids]\nbase: /etc\n' },
      'base is /etc, expected a path relative to this folder',
    ],
    [
      'a base that is not there',
      { 'family.yaml': 'name: ips\nengine: suricata\nmodes: [ids]\nbase: ../nowhere\n' },
      'there is no folder',
    ],
    [
      'a base that is no family',
      { 'family.yaml': 'name: ips\nengine: suricata\nmodes: [ids]\nbase: rules\n' },
      'expected the folder of a family',
    ],
    [
      'a base that is the folder itself',
      { 'family.yaml': 'name: ips\nengine: suricata\nmodes: [ids]\nbase: .\n' },
      'more than 4 bases after each other: do they name each other?',
    ],
    ['no vectors.yaml', { 'vectors.yaml': null }, 'vectors.yaml is missing'],
    ['vectors that are no list', { 'vectors.yaml': 'one: two' }, 'expected a list of vectors with name, capture'],
    ['an unnamed vector', { 'vectors.yaml': '- { capture: one.pcap }' }, 'vector 1: name is undefined'],
    [
      'a vector name that is used again',
      { 'vectors.yaml': '- { name: a, capture: one.pcap, mustMatch: [] }\n- { name: a, capture: two.pcap }' },
      'vectors.yaml:2 vector 2: name is "a", expected letters, digits, dash, dot, each once',
    ],
    [
      'an unknown field of a vector',
      { 'vectors.yaml': '- { name: a, capture: one.pcap, mustmatch: [1, 2] }' },
      'vector 1: unknown field mustmatch',
    ],
    [
      'a vector that does not say what matches',
      { 'vectors.yaml': '- { name: a, capture: one.pcap }' },
      'vector a: mustMatch is missing, expected a list of signature ids',
    ],
    [
      'a signature id that is no number',
      { 'vectors.yaml': '- { name: a, capture: one.pcap, mustMatch: ["1"] }' },
      'vector a: mustMatch is ["1"], expected a list of signature ids',
    ],
    ['a capture that is none', { 'vectors/two.pcap': 'two' }, 'vectors/two.pcap holds no IP packet'],
    ['a capture that no vector uses', { 'vectors/three.pcap': 'x' }, 'uses vectors/three.pcap, so nothing is tested'],
    ['a rule file that nothing reads', { 'rules/b.txt': rule(3) }, 'nothing reads rules/b.txt'],
    [
      'a rule in a folder of its own',
      { 'rules/sub/b.rules': rule(3) },
      'rules/sub/b.rules:1 rule 3 has no vector that it must match',
    ],
    ['a rule in another encoding', { 'rules/a.rules': Uint8Array.of(0xe9) }, 'rules/a.rules:1 is no UTF-8 text'],
    [
      'no known-good control',
      { 'controls/known-good.rules': '# none' },
      'expected at least one rule that every engine accepts',
    ],
    [
      'no known-bad control',
      { 'controls/known-bad.rules': null },
      'expected at least one rule that every engine refuses',
    ],
    [
      'no control capture',
      { 'controls/control.pcap': null },
      'the capture on which the known-good rules alert is missing',
    ],
    ['a control capture that is none', { 'controls/control.pcap': 'x' }, 'controls/control.pcap holds no IP packet'],
    [
      'a control with the id of another',
      { 'controls/known-bad.rules': rule(91) },
      'controls/known-bad.rules:1 signature id 91 is used again: first in controls/known-good.rules:1',
    ],
    [
      'a file over the limit',
      { 'rules/big.rules': new Uint8Array(limits.fileBytes + 1) },
      `rules/big.rules has ${limits.fileBytes + 1} bytes`,
    ],
  ])('%s is named with its place', async (_name, changes, message) => {
    expect(await problems(changes)).toContain(message);
  });

  test('two vectors must not share an address', async () => {
    const shared = { 'vectors/two.pcap': pcap('10.1.0.1', '10.2.0.2') };
    expect(await problems(shared)).toContain('vector two: address 10.1.0.1 is also in vector one');
  });

  test('the whole may be too large although no file is: said without reading on', async () => {
    const large = await folder({});
    for (let index = 0; index < 17; index += 1) {
      const file = join(large, 'rules', `${index}.rules`);
      await writeFile(file, '');
      await truncate(file, limits.fileBytes); // sparse: takes no room on the disk
    }
    expect(await loadFamily(large)).toMatchObject({
      ok: false,
      findings: [{ code: 'too-large', message: expect.stringContaining(`more than ${limits.totalBytes} bytes`) }],
    });
  });

  test('files that come in a bundle are under the same limits', () => {
    const part = new Uint8Array(limits.fileBytes + 1).fill(0x23);
    const parts = Array.from({ length: 16 }, (_, index) => ({ path: `rules/${index}.rules`, bytes: part }));
    const read = parseFamily(parts);
    const messages = read.ok ? [] : read.findings.map((finding) => finding.message);
    expect(messages).toContain(`${part.length} bytes, expected at most ${limits.fileBytes} in one file`);
    expect(messages).toContain(`${16 * part.length} bytes in all, expected at most ${limits.totalBytes}`);
  });

  test('an empty and a missing folder, a link', async () => {
    const empty = join(dir, 'empty');
    await mkdir(empty);
    expect(await loadFamily(empty)).toMatchObject({ ok: false, findings: [{ code: 'empty' }] });
    expect(await loadFamily(join(dir, 'nowhere'))).toMatchObject({ ok: false, findings: [{ code: 'missing-folder' }] });
    const linked = await folder({});
    await symlink(join(linked, 'rules', 'a.rules'), join(linked, 'rules', 'link.rules'));
    expect(await loadFamily(linked)).toMatchObject({ ok: false, findings: [{ code: 'no-file' }] });
    const linkedFolder = await folder({});
    await symlink(linked, join(linkedFolder, 'more'));
    expect(await loadFamily(linkedFolder)).toMatchObject({ ok: false, findings: [{ code: 'no-file', file: 'more' }] });
  });

  test('a base is there unless the folder has a file of its own; its vectors stay', async () => {
    const base = await folder({});
    const top = join(dir, 'top');
    await mkdir(join(top, 'rules'), { recursive: true });
    await mkdir(join(top, 'vectors'));
    await writeFile(
      join(top, 'family.yaml'),
      `base: ../${basename(base)}\nname: ips\nengine: suricata\nmodes: [ids]\n`,
    );
    await writeFile(join(top, 'rules', 'new.rules'), rule(3));
    await writeFile(join(top, 'vectors.yaml'), '- { name: three, capture: three.pcap, mustMatch: [3] }\n');
    await writeFile(join(top, 'vectors', 'three.pcap'), pcap('10.3.0.1', '10.3.0.2'));
    await writeFile(join(top, 'rules', 'a.rules'), `${rule(1)}\n${rule(2, 'content:"own";')}\n`);
    const loaded = await loadFamily(top);
    if (!loaded.ok) throw new Error(JSON.stringify(loaded.findings));
    expect(loaded.family.rules.map((r) => r.ruleId)).toEqual([1, 2, 3]);
    expect(loaded.family.rules[1]?.text).toContain('own');
    expect(loaded.family.vectors.map((v) => v.name)).toEqual(['one', 'two', 'three']);
  });

  test('a base whose vectors are no list is named, not hidden by the vectors above it', async () => {
    const base = await folder({ 'vectors.yaml': 'one: two' });
    const top = await folder({
      'family.yaml': `base: ../${basename(base)}\nname: ips\nengine: suricata\nmodes: [ids]\n`,
    });
    expect(await loadFamily(top)).toMatchObject({
      ok: false,
      findings: [{ file: `../${basename(base)}/vectors.yaml`, code: 'vectors', line: 1 }],
    });
  });
});

describe('the source bundle', () => {
  const path = fc
    .array(fc.stringMatching(/^[a-z][a-z0-9._-]{0,8}$/), { minLength: 1, maxLength: 3 })
    .map((parts) => parts.join('/'));
  const files = fc.uniqueArray(fc.record({ path, bytes: fc.uint8Array() }), { selector: (file) => file.path });

  test('is the same bytes for the same files in any order, and gives them back', () => {
    fc.assert(
      fc.property(files, (some) => {
        const bundle = encodeBundle(some);
        expect(encodeBundle(some.toReversed())).toEqual(bundle);
        const expected = some.toSorted((a, b) => (a.path < b.path ? -1 : 1));
        expect(decodeBundle(bundle)).toEqual(expected);
      }),
    );
  });

  test.each([
    ['no JSON', '{', 'is no list of files'],
    ['another shape', '{"files":[{}]}', 'is no list of files'],
    [
      'a path that leads out',
      '{"files":[{"base64":"","path":"../x"}]}',
      'names "../x", which is no path inside a family',
    ],
    ['an absolute path', '{"files":[{"base64":"","path":"/x"}]}', 'names "/x"'],
    ['a path twice', '{"files":[{"base64":"","path":"a"},{"base64":"","path":"a"}]}', 'has a twice'],
    ['another order', '{"files":[{"base64":"","path":"b"},{"base64":"","path":"a"}]}', 'is not in its canonical form'],
    ['another spelling', '{"files": [{"base64":"YQ","path":"a"}]}', 'is not in its canonical form'],
  ])('%s is refused', (_name, text, message) => {
    const decode = () => decodeBundle(new TextEncoder().encode(text));
    expect(decode).toThrow(SigrelError);
    expect(decode).toThrow(
      expect.objectContaining({ code: 'SRP_INTEGRITY_BUNDLE', message: expect.stringContaining(message) }),
    );
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
      expect(parseErrors(output, new Map([[3, 3]]))).toEqual([
        { line: 3, ruleId: 3, words: "unknown rule keyword 'entropy'." },
      ]);
    }
  });
});
