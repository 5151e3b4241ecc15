import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Rule } from '../../domain/content/rules.ts';
import { closureOf, parseYara, yaraArtefact } from '../../domain/content/yara.ts';

const shared = process.env.SIGREL_SHARED ?? join(import.meta.dirname, '..', '..', '..', 'shared');
const realRules = join(shared, 'data', 'yara', 'reversinglabs', 'yara');
const matrixFile = join(shared, 'engines', 'yara-matrix.json');

const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const artefactText = (rules: readonly Rule[]) => decode(yaraArtefact(rules));
const ids = (rules: readonly Rule[]) => rules.map(({ ruleId }) => ruleId);
const rulesOf = (text: string) => {
  const { rules, findings } = parseYara('a.yar', text);
  expect(findings).toEqual([]);
  return rules;
};
const featuresOf = (text: string) => rulesOf(text)[0]?.features;
const conditionOf = (condition: string) => featuresOf(`rule r { condition: ${condition} }`);
const stringOf = (value: string) => featuresOf(`rule r { strings: $a = ${value} condition: $a }`);
const withoutPlace = (rules: readonly Rule[]) => rules.map((rule) => ({ ...rule, file: '', line: 0 }));

describe('our own reading of YARA rules', () => {
  test('names, lines and texts; a comment before a rule is not of it, one inside is', () => {
    const first = 'private global rule One : a b\r\n{\r\n  // rule No { }\r\n  condition: true\r\n}';
    const text = `/* rule None {} */\r\n// about\r\n${first} // after\r\nrule Two { meta: a = 1 b = -2 c = true description = "say \\"hi\\"\\x21 \\\\" condition: One }`;
    expect(rulesOf(text)).toEqual([
      {
        ...{ ruleId: 'One', revision: 1, message: '', features: ['global', 'private'], file: 'a.yar', line: 3 },
        ...{ text: first, needs: [] },
      },
      {
        ...{ ruleId: 'Two', revision: 1, message: 'say "hi"! \\', features: [], file: 'a.yar', line: 8 },
        ...{ text: text.slice(text.indexOf('rule Two')), needs: ['One'] },
      },
    ]);
  });

  test('braces, quotes and the word rule in strings, expressions and comments do not count', () => {
    const text = `rule a {
      strings:
        $t = "} rule b { condition: \\" /* // " ascii
        $u = "füßchen 规则 }"
        $r = /} rule c \\/ "x { [/]/i wide
        $h = { 41 [2-4] ~42 ( 43 | 4? ) /* } */ 44 // }
               45 }
        $ = {41}private
      condition:
        any of them and "}" matches /{/ /* } */
    }
    rule b { condition: false }`;
    expect(parseYara('a.yar', text.replace('[/]', '[x]'))).toMatchObject({
      rules: [{ ruleId: 'a' }, { ruleId: 'b', line: 12 }],
      findings: [],
    });
  });

  test('what strings use', () => {
    expect(stringOf('"a" xor ascii wide')).toEqual(['ascii', 'wide', 'xor']);
    expect(stringOf('"a" xor(1-5) fullword nocase private')).toEqual(
      ['fullword', 'nocase', 'private-string', 'xor', 'xor:range'].sort(),
    );
    expect(stringOf('"a" base64("abc") base64wide')).toEqual(['base64', 'base64:alphabet', 'base64wide']);
    expect(stringOf('{ 41 ~42 [2-] (43|4?) }')).toEqual(
      ['hex-alternative', 'hex-jump', 'hex-jump:open', 'hex-not', 'hex-wildcard'].sort(),
    );
    expect(stringOf('{ 41 /* [~ */ 42 }')).toEqual([]);
    expect(stringOf('/a(?:b)/is')).toEqual(['regex', 'regex:i', 'regex:noncapture', 'regex:s']);
  });

  test('what conditions use', () => {
    expect(conditionOf('50% of them')).toEqual(['of', 'percent-of']);
    expect(conditionOf('any of ($a*) in (0..100)')).toEqual(['any', 'in', 'of', 'of-in']);
    expect(conditionOf('all of them at 0')).toEqual(['all', 'at', 'of', 'of-at']);
    expect(conditionOf('#a in (0..9) == 1 and $a at 0')).toEqual(['at', 'count-in', 'in']);
    expect(conditionOf('none of them and defined uint16be(0) and 1_000 < entrypoint')).toEqual(
      ['defined', 'entrypoint', 'int-underscore', 'none', 'of', 'uint16be'].sort(),
    );
    expect(conditionOf('with x = "a" : ( x.len() == 1 or x iequals "A" )')).toEqual(['iequals', 'len', 'with']);
    expect(conditionOf('1 of (true, false)')).toEqual(['of', 'of-expressions']);
    expect(featuresOf('rule with { condition: true }')).toEqual(['name:with']);
  });

  test('modules: those that a rule uses, and what of them', () => {
    const text = `import "pe" import "math"
      rule a { condition: pe.sections[0].name == "x" and pe.rich_signature.version("y") }
      rule b { condition: for any pe2 in pe.sections : ( pe2.name == "pe.x" ) and math.entropy(0, filesize) > 7 }`;
    expect(rulesOf(text).map(({ features }) => features)).toEqual([
      ['import:pe', 'pe.rich_signature.version', 'pe.sections'],
      ['any', 'for', 'import:math', 'import:pe', 'in', 'math.entropy', 'pe.sections'],
    ]);
  });

  test('an import that no rule uses goes to the first rule', () => {
    const rules = rulesOf('import "vt" rule a { condition: true } rule b { condition: true }');
    expect(rules.map(({ features }) => features)).toEqual([['import:vt'], []]);
    expect(artefactText(rules)).toMatch(/^import "vt"\n/);
  });

  test('a rule needs what may be a rule: no keyword, function, module, string or loop variable', () => {
    const [rule] = rulesOf(`import "pe" rule r { strings: $a = "x" condition:
      Other and not (filesize > 2KB) and any of (Lib*, Net_*, Single) and pe.is_dll() and uint8(0) == 1 and
      for all i, k in (1..#a) : ( @a[i] * k > 0 ) and with v = 3 : ( v * filesize > 1 ) and them and r and $a }`);
    expect(rule?.needs).toEqual(['Lib*', 'Net_*', 'Other', 'Single']);
  });

  test.each([
    ['\uFEFFrule r { condition: true }', 1, 'byte order mark'],
    ['\nrule for { condition: true }', 2, '"for" is a keyword; expected another name'],
    ['rule 1a { condition: true }', 1, 'expected the name of the rule'],
    ['rule r : { condition: true }', 1, 'expected a tag after ":"'],
    ['rule r condition: true }', 1, 'expected "{", found "condition"'],
    ['rule r {\n}', 2, 'expected "condition:", found "}"'],
    ['rule r { strings: $a = "x" }', 1, 'expected "condition:"'],
    ['rule r { condition: }', 1, 'expected a condition'],
    ['rule r { meta: condition: true }', 1, 'expected name = value in meta'],
    ['rule r { meta: a = b condition: true }', 1, 'expected a text, a number, true or false for a'],
    ['rule r { strings: condition: true }', 1, 'expected $name = value in strings'],
    ['rule r { strings: $a = 5 condition: $a }', 1, 'expected a text in quotes'],
    ['rule r { strings: $a = "x" strange condition: $a }', 1, 'found "strange"'],
    ['rule r { strings: $a = "x" xor(1 condition: $a }', 1, 'expected ")" after the value of xor'],
    ['rule r {\n strings:\n $a = "x\n condition: $a }', 3, 'a text is not closed: "x'],
    ['rule r {\n strings:\n $a = "\\q"\n condition: $a }', 3, 'unknown escape \\q'],
    ['rule r {\n strings:\n $a = /x\n condition: $a }', 3, 'a regular expression is not closed'],
    ['rule r {\n strings:\n $a = { 41\n $b = "x" condition: $a }', 3, 'a hex string is not closed'],
    ['rule r {\n strings:\n $a = { 4G }\n condition: $a }', 3, 'found "G"'],
    ['rule r {\n /* x\n condition: true }', 2, 'a comment is not closed'],
    ['rule r\n{\n condition: true\n', 2, 'rule r: "{" is not closed'],
    ['rule r { condition: { true } }', 1, 'expected "}", found "{"'],
    ['rule r { condition: true; }', 1, 'unexpected character ";"'],
    ['rule r { condition: true strings: $a = "x" }', 1, 'found "strings"'],
    ['rule r { condition: pe.is_dll() }', 1, 'expected import "pe"'],
    ['include "b.yar"', 1, 'includes are not allowed'],
    ['import pe', 1, 'expected import "name"'],
    ['import "\\x01"', 1, 'expected import "name"'],
    ['global import "pe"', 1, 'expected it before a rule'],
    ['\n\nalert tcp any any', 3, '"alert" outside of a rule'],
    ['/* x', 1, 'a comment is not closed; expected "*/"'],
  ])('%j is a finding', (text, line, message) => {
    const { findings } = parseYara('x/a.yar', text);
    expect(findings[0]).toMatchObject({ code: 'rule-syntax', file: 'x/a.yar', line });
    expect(findings[0]?.message).toContain(message);
    expect(findings).toHaveLength(1);
  });

  test('after a fault reading goes on at the next rule', () => {
    const text = `rule a { condition: true }
      rule b { condition: true
      private rule c { strings: $a = "x
        condition: $a }
      nonsense } more
      rule d { condition: true }
      include "x"
      rule e { meta: a = rule f { condition: true }
      rule g { condition: true }`;
    const { rules, findings } = parseYara('a.yar', text);
    expect(ids(rules)).toEqual(['a', 'd', 'f', 'g']);
    expect(findings.map(({ line }) => line)).toEqual([2, 3, 7, 8]);
  });

  test('an artefact has imports first, sorted, and each rule after those it needs', () => {
    const rules = [
      ...rulesOf('import "pe" rule c { condition: any of (lib_*) and pe.is_dll() } rule lib_2 { condition: a }'),
      ...rulesOf('import "hash" rule x { condition: true } rule a { condition: hash.md5(0, 1) == "" }'),
      ...rulesOf('rule lib_1 { condition: elsewhere }'),
    ];
    const text = artefactText(rules);
    expect(text).toMatch(/^import "hash"\nimport "pe"\nrule /);
    const again = rulesOf(text);
    expect(ids(again)).toEqual(['x', 'a', 'lib_2', 'lib_1', 'c']);
    expect(artefactText(again)).toBe(text);
    expect(withoutPlace(again)).toEqual(
      withoutPlace(ids(again).flatMap((id) => rules.filter(({ ruleId }) => ruleId === id))),
    );
  });

  test('rules that need each other in a circle stay in their order', () => {
    const rules = rulesOf('rule a { condition: b } rule b { condition: a } rule c { condition: true }');
    expect(ids(rulesOf(artefactText(rules)))).toEqual(['c', 'a', 'b']);
  });

  test('a closure has what rules need, whatever is in between, and all global rules', () => {
    const rules = rulesOf(`rule z { condition: lib_1 } global rule g { condition: gg } rule gg { condition: true }
      rule lib_1 { condition: deep } rule lib_2 { condition: true } rule deep { condition: true }
      rule a { condition: any of (lib*) } rule b { condition: a }`);
    const part = (name: string) => rules.filter(({ ruleId }) => ruleId === name);
    expect(ids(closureOf(rules, part('lib_2')))).toEqual(['g', 'gg', 'lib_2']);
    expect(ids(closureOf(rules, part('z')))).toEqual(['z', 'g', 'gg', 'lib_1', 'deep']);
    expect(ids(closureOf(rules, part('b')))).toEqual(['g', 'gg', 'lib_1', 'lib_2', 'deep', 'a', 'b']);
    expect(closureOf(rules, rules)).toEqual(rules);
  });

  test('no rules are an empty artefact', () => {
    expect(parseYara('a.yar', '')).toEqual({ rules: [], findings: [] });
    expect(yaraArtefact([])).toEqual(new Uint8Array());
  });

  const name = fc.integer({ min: 0, max: 12 }).map((number) => `r${number}`);
  const condition = fc.oneof(
    fc.constantFrom(
      'true',
      'pe.is_dll()',
      'math.mean(0, 9) > 1',
      'any of (r1*)',
      '"}" == "{"',
      'for any r3 in (1,2) : (r3 == 1)',
    ),
    name,
  );
  const rule = fc
    .record({
      id: name,
      conditions: fc.array(condition, { minLength: 1 }),
      modifier: fc.constantFrom('', 'global ', 'private '),
    })
    .map(({ id, conditions, modifier }) => `${modifier}rule ${id} { condition: ${conditions.join(' and ')} }`);

  test('what an artefact holds gives the same rules and the same artefact again', () => {
    fc.assert(
      fc.property(fc.array(rule), (texts) => {
        const rules = rulesOf(`import "pe"\nimport "math"\n${texts.join('\n')}`);
        expect(rules.map(({ text }) => text)).toEqual(texts);
        const artefact = artefactText(rules);
        const again = rulesOf(artefact);
        expect(again.map(({ text }) => text).sort()).toEqual([...texts].sort());
        expect(artefactText(again)).toBe(artefact);
      }),
    );
  });

  test('never throws, and what is left of any text is read again as it was', () => {
    const part = fc.oneof(
      fc.constantFrom(
        ...[
          'rule ',
          'a ',
          'global ',
          'private ',
          '{ ',
          '} ',
          'condition: ',
          'strings: ',
          'meta: ',
          '$a = ',
          '"x" ',
          '/x/ ',
        ],
        ...[
          'import ',
          'include ',
          'true ',
          '\n',
          '/*',
          '*/',
          '//',
          '"',
          '\\',
          '= ',
          ': ',
          'pe.x ',
          'r* ',
          '(',
          ')',
          'in ',
          'of ',
        ],
        ...['rule a { condition: true } ', 'rule b { condition: a } '],
      ),
      fc.string(),
    );
    fc.assert(
      fc.property(fc.array(part, { maxLength: 30 }), (parts) => {
        const { rules } = parseYara('a.yar', parts.join(''));
        const again = rulesOf(artefactText(rules));
        expect(again.map(({ text }) => text).sort()).toEqual(rules.map(({ text }) => text).sort());
      }),
    );
  });
});

describe.skipIf(!existsSync(realRules))(`the rules in ${realRules} (skipped when they are not there)`, () => {
  test('all are read, and the artefact of all gives the same ones', () => {
    const files = readdirSync(realRules, { recursive: true, encoding: 'utf8' }).filter((file) =>
      file.endsWith('.yara'),
    );
    const parsed = files.sort().map((file) => parseYara(file, readFileSync(join(realRules, file), 'utf8')));
    expect(parsed.flatMap(({ findings }) => findings)).toEqual([]);
    const rules = parsed.flatMap((file) => file.rules);
    expect([rules.length, new Set(ids(rules)).size]).toEqual([1204, 1204]);
    const artefact = artefactText(rules);
    const again = rulesOf(artefact);
    expect(withoutPlace(again)).toEqual(withoutPlace(rules));
    expect(artefactText(again)).toBe(artefact);
  });
});

type Probe = { readonly id: string; readonly rule: string; readonly outcomes: Readonly<Record<string, string>> };

describe.skipIf(!existsSync(matrixFile))(`the probes of ${matrixFile} (skipped when it is not there)`, () => {
  test('each is read without a finding', () => {
    const { probes } = JSON.parse(readFileSync(matrixFile, 'utf8')) as { probes: readonly Probe[] };
    expect(probes.length).toBeGreaterThan(90);
    for (const { id, rule: text } of probes) {
      const { rules, findings } = parseYara('probe.yar', text);
      expect([id, findings, rules.length]).toEqual([id, [], text.match(/\brule \w/g)?.length]);
    }
  });
});
