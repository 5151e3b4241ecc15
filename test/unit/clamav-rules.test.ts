import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  clamavArtefact,
  clamavSections,
  parseClamavArtefact,
  parseClamavFile,
  wrapClamavFile,
} from '../../domain/content/clamav.ts';
import { findLanguage } from '../../domain/content/language.ts';

const shared = process.env.SIGREL_SHARED ?? join(import.meta.dirname, '..', '..', '..', 'shared');
const matrixFile = join(shared, 'engines', 'clamav-matrix.json');

const hex = '6576696c2d6d61726b65722d31323334';
const md5 = '57c8baf35ecebfe46463bed4708d05a2';
const sha256 = 'f4b6861fc164d0c23a72ec3f993873ceb3924deba27c6d2a3f49554605381eaa';
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const bytes = (written: string) => new TextEncoder().encode(written);
const parseOne = (kind: string, line: string) => parseClamavFile(`a.${kind}`, `${line}\n`);
const features = (kind: string, line: string) => {
  const { rules, findings } = parseOne(kind, line);
  expect(findings).toEqual([]);
  return rules[0]?.features;
};
const findings = (kind: string, line: string) => {
  const parsed = parseOne(kind, line);
  expect(parsed.rules).toEqual([]);
  return parsed.findings.map(({ message }) => message).join();
};
const logical = (subsignatures: string, expression = '0') =>
  `T.L;Engine:51-255,Target:0;${expression};${subsignatures}`;

describe('our own reading of ClamAV databases', () => {
  test('reads names, lines and comments; line ends of any kind', () => {
    const { rules, findings } = parseClamavFile(
      'x/a.ndb',
      `# about\r\nT.A:0:*:${hex}\r\n#T.B\nT.C-2:1:EP+0:${hex}:130`,
    );
    expect(findings).toEqual([]);
    expect(rules).toEqual([
      {
        ...{ ruleId: 'T.A', revision: 1, message: '', features: ['ndb', 'target:0'], file: 'x/a.ndb', line: 2 },
        ...{ text: `T.A:0:*:${hex}`, needs: [] },
      },
      {
        ...{ ruleId: 'T.C-2', revision: 1, message: '', file: 'x/a.ndb', line: 4 },
        ...{ features: ['flevel:130-', 'ndb', 'offset:EP', 'target:1'], text: `T.C-2:1:EP+0:${hex}:130`, needs: [] },
      },
    ]);
  });

  test('an empty line is a finding with its line, and what is around it is kept', () => {
    const { rules, findings } = parseClamavFile('a.ndb', `T.A:0:*:${hex}\n\nT.B:0:*:${hex}\n  \n`);
    expect(rules.map(({ ruleId, line }) => [ruleId, line])).toEqual([
      ['T.A', 1],
      ['T.B', 3],
    ]);
    expect(findings).toMatchObject([
      { code: 'rule-syntax', file: 'a.ndb', line: 2 },
      { code: 'rule-syntax', file: 'a.ndb', line: 4 },
    ]);
    expect(findings[0]?.message).toContain('expected a signature or a comment');
  });

  test('kinds go by the ending; any other is a finding', () => {
    expect(features('hdb', `${md5}:28:T.H`)).toEqual(['hash:md5', 'hdb']);
    expect(features('hdb', `${md5}:*:T.H:73`)).toEqual(['flevel:73-', 'hash:md5', 'hdb', 'size:*']);
    expect(features('hsb', `${sha256}:28:T.S:73:255`)).toEqual(['flevel:73-255', 'hash:sha256', 'hsb']);
    expect(features('mdb', `28:${md5}:T.M`)).toEqual(['hash:md5', 'mdb']);
    expect(features('fp', `${md5}:28:T.F`)).toEqual(['fp', 'hash:md5']);
    expect(parseClamavFile('a.cdb', 'x').findings[0]?.message).toContain('expected a name that ends with .ndb, .ldb');
  });

  test('what a body signature uses', () => {
    expect(features('ndb', `T:3:EOF-10,5:${hex}*4142{1-3}4344:51:255`)).toEqual(
      ['flevel:51-255', 'ndb', 'offset:EOF', 'offset:shift', 'target:3', 'wildcard:*', 'wildcard:{}'].sort(),
    );
    expect(features('ndb', 'T:0:*:41[1-2]4142??!(41|42)(B)4?[0-32]44')).toEqual(
      ['alternation', 'anchored-byte', 'boundary', 'ndb', 'negation', 'target:0', 'wildcard:?'].sort(),
    );
  });

  test('what a logical signature uses', () => {
    expect(features('ldb', logical(`${hex};0/evil;-[a-z]+\\/x/i;0(>>0#be1#>0)`, '0&(1|2)>1,2'))).toEqual(
      ['byte_compare', 'flevel:51-255', 'ldb', 'pcre', 'target:0'].sort(),
    );
    expect(features('ldb', logical('4a::w'))).toContain('wide');
    const line = `T;Engine:51-255,Target:1,FileSize:1-9,New:1;0|1|2;EP+1:${hex}::iw;\${6-7}12$;fuzzy_img#af2ad01ed42993c7`;
    expect(features('ldb', line)).toEqual(
      [
        ...['attribute:FileSize', 'attribute:New', 'flevel:51-255', 'fuzzy_img', 'ldb', 'macro', 'nocase'],
        ...['offset:EP', 'target:1', 'wide'],
      ].sort(),
    );
  });

  test.each([
    ['ndb', 'T:0:*', 'expected name:target:offset:signature'],
    ['ndb', `T:0:*:${hex}:51:255:9`, '7 fields'],
    ['ndb', `T:x:*:${hex}`, 'target is "x"'],
    ['ndb', `T:0:zz:${hex}`, '"zz" is no offset'],
    ['ndb', `T:0:EP+1:${hex}`, 'expected target 1, 6, 9'],
    ['ndb', `T:0:*:${hex}:x`, 'functional level is "x"'],
    ['ndb', `:0:*:${hex}`, 'the name is empty'],
    ['ndb', `T A:0:*:${hex}`, 'no usable name'],
    ['ndb', `\uFEFFT:0:*:${hex}`, 'no usable name'],
    ['ndb', `T:0:*:${hex} `, '" " in the signature'],
    ['ndb', 'T:0:*:zz', '"z" in the signature'],
    ['ndb', 'T:0:*:414', 'expected pairs'],
    ['ndb', 'T:0:*:4142', 'at least 3 bytes'],
    ['ndb', 'T:1:*:41??42', 'too short'],
    ['ndb', 'T:0:*:414243*44', 'too short'],
    ['ndb', 'T:0:*:414243*', 'too short'],
    ['ndb', 'T:0:*:414243(44', 'expected pairs'],
    ['ndb', 'T:0:*:414243()', 'empty parentheses'],
    ['ndb', 'T:0:*:414243{x}', '"x" in the signature'],
    ['ndb', 'T:0:*:4142[5-2]43', 'with n <= m <= 32'],
    ['ndb', 'T:0:*:4142[2-5]4344', 'before its last byte'],
    ['ndb', 'T:0:*:4142[2-5]', 'before its last byte'],
    ['ndb', 'T:0:*:41[2-5]42', 'too short'],
    ['ndb', `T:0:*:${'41'.repeat(4100)}`, 'engines read at most 8190'],
    ['hdb', `${md5}:28`, 'expected hash:size:name'],
    ['hdb', `${md5}x:28:T`, 'is no hash'],
    ['hdb', `${md5}:0:T`, 'size is "0"'],
    ['hdb', `${md5}:*:T`, 'at least 73'],
    ['hdb', `${md5}:28:T:51:`, 'functional level is ""'],
    ['mdb', `${md5}:28:T`, 'is no hash'],
    ['ldb', 'T;Target:0;0', 'too few fields'],
    ['ldb', `T;Engine:51-255;0;${hex}`, 'no Target'],
    ['ldb', `T;Target:0,Engine:51-255;0;${hex}`, 'not the first'],
    ['ldb', `T;Engine:51,Target:0;0;${hex}`, 'expected two functional levels'],
    ['ldb', `T;Target:0,FileSize:1-2;0;${hex}`, 'without Engine'],
    ['ldb', `T;Engine:51-255,Target:0,EntryPoint:1-2;0;${hex}`, 'expected target 1, 6, 9'],
    ['ldb', `T;Target:0,Foo;0;${hex}`, '"Foo" is no attribute'],
    ['ldb', logical(hex, '0&&('), 'is no expression'],
    ['ldb', logical(hex, '(0'), 'is no expression'],
    ['ldb', logical(hex, '_'), 'is no expression'],
    ['ldb', logical(`${hex};_/evil/`, '0&1'), 'is no trigger'],
    ['ldb', logical(hex, '0&1'), 'goes up to subsignature 1, but the last one is 0'],
    ['ldb', logical(`${hex};`), 'goes up to subsignature 0, but the last one is 1'],
    ['ldb', logical(`${hex}::z`), 'is no subsignature'],
    ['ldb', logical(''), 'is no subsignature'],
    ['ldb', logical(`${hex};/evil/`, '0&1'), 'subsignature 1: expected a regular expression'],
    ['ldb', logical(`${hex};0/evil`, '0&1'), 'expected a regular expression'],
    ['ldb', logical(`${hex};0/evil/q`, '0&1'), 'options "q"'],
    ['ldb', logical(`${hex};1/evil/`, '0&1'), 'expected one before this'],
    ['ldb', logical('fuzzy_img#af2'), '16 hex digits'],
    ['ldb', logical(`${hex};\${6-7}40$`, '0&1'), 'a group below 32'],
    ['ldb', logical(`${hex};0(>>a#be1#>0)`, '0&1'), 'expected a byte comparison'],
  ])('%s %s is a finding: %s', (kind, line, expected) => {
    expect(findings(kind, line)).toContain(expected);
  });

  test('an artefact has a section for each kind in the order of the endings and is read back', () => {
    const files = [
      parseClamavFile('z.ldb', `${logical(hex)}\n`),
      parseClamavFile('b.ndb', `T.B:0:*:${hex}\nT.A:0:*:${hex}\n`),
      parseClamavFile('c.fp', `${md5}:28:T.F\n`),
      parseClamavFile('a.ndb', `T.C:0:*:${hex}\n`),
    ];
    const rules = files.flatMap((file) => file.rules);
    const artefact = clamavArtefact(rules);
    expect(text(artefact)).toBe(
      `[content.ndb]\nT.B:0:*:${hex}\nT.A:0:*:${hex}\nT.C:0:*:${hex}\n[content.ldb]\n${logical(hex)}\n[content.fp]\n${md5}:28:T.F\n`,
    );
    const again = parseClamavArtefact(artefact);
    expect(again.findings).toEqual([]);
    expect(again.rules.map(({ ruleId, file, line }) => [ruleId, file, line])).toEqual([
      ['T.B', 'content.ndb', 1],
      ['T.A', 'content.ndb', 2],
      ['T.C', 'content.ndb', 3],
      ['T.L', 'content.ldb', 1],
      ['T.F', 'content.fp', 1],
    ]);
    expect(clamavSections(artefact).map(({ name, bytes }) => [name, text(bytes)])).toEqual([
      ['content.ndb', `T.B:0:*:${hex}\nT.A:0:*:${hex}\nT.C:0:*:${hex}\n`],
      ['content.ldb', `${logical(hex)}\n`],
      ['content.fp', `${md5}:28:T.F\n`],
    ]);
  });

  test('the sections are those of the language', () => {
    const endings = findLanguage('clamav')?.endings ?? [];
    const [rule] = parseOne('ndb', `T.A:0:*:${hex}`).rules;
    if (rule === undefined) throw new Error('no rule');
    const all = endings.map((ending) => ({ ...rule, file: `a.${ending}` }));
    expect(clamavSections(clamavArtefact(all)).map(({ name }) => name)).toEqual(
      endings.map((ending) => `content.${ending}`),
    );
  });

  test('bytes without a section are no artefact; no rules are an empty one', () => {
    expect(clamavSections(bytes(`T.A:0:*:${hex}\n`))).toEqual([]);
    expect(parseClamavArtefact(bytes(`T.A:0:*:${hex}\n`)).findings).toMatchObject([{ code: 'rule-syntax', line: 1 }]);
    expect(clamavArtefact([])).toEqual(new Uint8Array());
    expect(parseClamavArtefact(new Uint8Array())).toEqual({ rules: [], findings: [] });
  });

  test('a header out of order is a line of the database, and so a finding', () => {
    const written = `[content.ldb]\n${logical(hex)}\n[content.ndb]\nT.A:0:*:${hex}\n`;
    expect(clamavSections(bytes(written)).map(({ name }) => name)).toEqual(['content.ldb']);
    expect(parseClamavArtefact(bytes(written)).findings).toHaveLength(2);
  });

  test('a file of any bytes can be wrapped', () => {
    const written = new Uint8Array([0xff, 10, 10, 0xfe]);
    expect(clamavSections(wrapClamavFile('x/a.hdb', written))).toEqual([{ name: 'content.hdb', bytes: written }]);
    expect(wrapClamavFile('a.txt', written)).toEqual(written);
  });

  const name = fc.stringMatching(/^[A-Za-z][\w.-]{0,12}$/);
  const plain = fc.integer({ min: 3, max: 20 }).map((length) => '4f'.repeat(length));
  const line = fc.oneof(
    fc.tuple(name, plain).map(([id, body]) => ({ file: 'a.ndb', text: `${id}:0:*:${body}` })),
    fc.tuple(name, plain).map(([id, body]) => ({ file: 'b.ldb', text: `${id};Target:0;0;${body}` })),
    fc.tuple(name, fc.integer({ min: 1 })).map(([id, size]) => ({ file: 'c.hdb', text: `${md5}:${size}:${id}` })),
    fc.tuple(name, fc.integer({ min: 1 })).map(([id, size]) => ({ file: 'd.mdb', text: `${size}:${md5}:${id}` })),
  );

  test('what an artefact holds gives the same artefact again', () => {
    fc.assert(
      fc.property(fc.array(line), (lines) => {
        const rules = lines.flatMap(({ file, text }) => parseClamavFile(file, text).rules);
        expect(rules).toHaveLength(lines.length);
        const artefact = clamavArtefact(rules);
        const again = parseClamavArtefact(artefact);
        expect(again.findings).toEqual([]);
        expect(again.rules.map(({ ruleId }) => ruleId).sort()).toEqual(rules.map(({ ruleId }) => ruleId).sort());
        expect(clamavArtefact(again.rules)).toEqual(artefact);
      }),
    );
  });

  test('never throws, and every line is a comment, a signature or a finding', () => {
    const kinds = fc.constantFrom('ndb', 'ldb', 'hdb', 'hsb', 'mdb', 'fp');
    const part = fc.oneof(
      fc.constantFrom(':', ';', '#', '/', '\n', '*', '(', ')', '|', '{', '$', '0', '4142', 'Target:0', ','),
      fc.string(),
    );
    fc.assert(
      fc.property(kinds, fc.array(part), (kind, parts) => {
        const written = parts.join('');
        const { rules, findings } = parseClamavFile(`a.${kind}`, written);
        const lines = written.split('\n').filter((each, at, all) => at < all.length - 1 || each !== '');
        expect(rules.length + findings.length).toBe(lines.filter((each) => !each.startsWith('#')).length);
      }),
    );
  });
});

type Outcome = { readonly exitCode: number; readonly loaded: number };
type Probe = { readonly name: string; readonly file: string; readonly content: string | null };

describe.skipIf(!existsSync(matrixFile))(`the probes of ${matrixFile} (skipped when it is not there)`, () => {
  test('a finding exactly where every engine refuses the file', () => {
    const { probes } = JSON.parse(readFileSync(matrixFile, 'utf8')) as {
      probes: readonly (Probe & { outcomes: Readonly<Record<string, Outcome>> })[];
    };
    const ours = probes.filter(({ file, content }) => content !== null && /\.(ndb|ldb|hdb|hsb|mdb|fp)$/.test(file));
    expect(ours.length).toBeGreaterThan(30);
    for (const { name, file, content, outcomes } of ours) {
      const isRefused = Object.values(outcomes).every(({ exitCode }) => exitCode === 2);
      expect([name, parseClamavFile(file, content ?? '').findings.length > 0]).toEqual([name, isRefused]);
    }
  });
});
