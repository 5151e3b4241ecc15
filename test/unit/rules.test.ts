import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { findDuplicateIds } from '../../domain/content/rules.ts';
import { parseRules } from '../../domain/content/suricata.ts';

const head = 'alert tcp any any -> any any';
const rule = (sid: number, options = 'content:"x";') => `${head} (msg:"m"; ${options} sid:${sid}; rev:1;)`;

describe('our own rule parser', () => {
  test('reads what an engine reads: comments, continuations, escapes', () => {
    const text = `# comment\n\n  # indented\n${rule(1, 'content:"a\\;b\\"c"; pcre:"/x\\;y/";')}\r\n${head} (msg:"two"; \\\n  nocase; sid:2;)\n`;
    const { rules, findings } = parseRules('a.rules', text);
    expect(findings).toEqual([]);
    expect(rules).toMatchObject([
      { ruleId: 1, revision: 1, line: 4, features: ['alert', 'content', 'pcre', 'tcp'] },
      {
        ruleId: 2,
        revision: 1,
        line: 5,
        features: ['alert', 'nocase', 'tcp'],
        text: `${head} (msg:"two";   nocase; sid:2;)`,
      },
    ]);
  });

  test('a continuation inside quotes keeps its white space; a comment is not continued', () => {
    const text = `# comment \\\n${head} (msg:"m"; content:"ab \\  \n  cd"; sid:1;)\\`;
    expect(parseRules('a', text)).toMatchObject({
      rules: [{ line: 2, text: `${head} (msg:"m"; content:"ab   cd"; sid:1;)` }],
      findings: [],
    });
  });

  test('a rule needs no message; the message is read without its escapes', () => {
    const { rules } = parseRules('a', `${head} (sid:1;)\n${head} (msg:"a \\"b\\"\\; c"; sid:2; rev:7;)`);
    expect(rules).toMatchObject([
      { message: '', revision: 1 },
      { message: 'a "b"; c', revision: 7 },
    ]);
  });

  // Every engine accepts these (measured on 6.0.1, 7.0.10 and 8.0.7).
  test.each([
    rule(1, 'pcre:"/a"b/i";'),
    rule(1, 'content:!"a"; content:"b\\\\";'),
    'alert tcp [10.0.0.0/8, !10.1.0.0/16] [80, 443] -> any any (msg:"a(b)c"; content:"a"; sid:1; )',
    `${head} (msg:"${'x'.repeat(8191 - head.length - 17)}"; sid:1;)`,
  ])('%s is a rule', (text) => {
    expect(parseRules('a', text)).toMatchObject({ rules: [{ ruleId: 1 }], findings: [] });
  });

  // Every engine refuses these; said here, the place is known before any engine has run.
  test.each([
    ['notify tcp any any -> any any (msg:"m"; sid:1;)', 'unknown action "notify"; expected one of alert, drop'],
    ['alert tcp any any any (msg:"m"; sid:1;)', 'the header has 5 fields; expected action, protocol, source'],
    ['alert tcp any any <- any any (msg:"m"; sid:1;)', 'the header has 7 fields'],
    [`${head} msg:"m"; sid:1;`, 'no "(": expected action, header and options in parentheses'],
    [`${head} (msg:"m"; sid:1;`, 'no ")" at the end'],
    [`${head} (msg:"m; sid:1;)`, 'a quote is not closed: msg:"m'],
    [`${head} (msg:"m"; content:"a;b"; sid:1;)`, 'a quote is not closed: content:"a (inside quotes a semicolon is'],
    [`${head} (msg:"m"; content:"a\\"; sid:1;)`, 'a quote is not closed: content:"a\\"'],
    [`${head} (msg:"m"; content:"a"b"; sid:1;)`, 'content:"a"b" goes on after its closing quote'],
    [`${head} (msg:"m"; content:"a" nocase; sid:1;)`, 'content:"a" nocase goes on after its closing quote'],
    [`${head} (msg:m; sid:1;)`, 'msg is m, expected it in quotes'],
    [`${head} (msg:"m";; sid:1;)`, '"" is no option; expected name; or name:value;'],
    [`${head} (msg:"m"; sid:1)`, '"sid:1" is not ended by a semicolon'],
    [`${head} (msg:"m"; content:"x";)`, 'no usable signature id: sid is missing'],
    [`${head} (msg:"m"; sid:0;)`, 'sid is 0, expected a whole number from 1'],
    [`${head} (msg:"m"; sid:4294967296;)`, 'sid is 4294967296'],
    [`${head} (msg:"m"; sid:1; sid:2;)`, 'two signature ids in one rule'],
    [`${head} (msg:"m"; sid:1; rev:0;)`, 'rev is 0, expected a whole number from 1'],
    [`${head} (msg:"${'x'.repeat(8192 - head.length - 17)}"; sid:1;)`, 'has 8192 bytes; engines read at most 8191'],
  ])('%s is refused with its line', (text, message) => {
    const { rules, findings } = parseRules('a.rules', `\n${text}\n${rule(9)}`);
    expect(rules.map((one) => one.ruleId)).toEqual([9]);
    expect(findings).toMatchObject([
      { code: 'rule-syntax', file: 'a.rules', line: 2, message: expect.stringContaining(message) },
    ]);
  });

  test('never throws and never counts a rule twice', () => {
    const line = fc.oneof(
      fc.string(),
      fc.string({ unit: fc.constantFrom('"', '\\', ';', ':', '(', ')', 'a', ' ', '#') }).map((odd) => rule(1, odd)),
      fc.nat(50).map((n) => rule(n)),
    );
    fc.assert(
      fc.property(fc.array(line), (lines) => {
        const { rules, findings } = parseRules('f', lines.join('\n'));
        expect(rules.length + findings.length).toBeLessThanOrEqual(lines.join('\n').split('\n').length);
      }),
    );
  });

  test('what goes to the engine reads as the same rule again', () => {
    const value = fc.string({ unit: fc.constantFrom('a', ' ', '\\;', '\\"', '\\\\', ':', '(', ')', '|41|', '\\\n ') });
    fc.assert(
      fc.property(fc.array(value, { maxLength: 5 }), (values) => {
        const text = rule(1, values.map((one) => `content:"${one}";`).join(' \\\n\t'));
        const first = parseRules('f', text);
        expect(first.findings).toEqual([]);
        const again = parseRules('f', first.rules.map((one) => one.text).join('\n'));
        expect(again).toEqual({ rules: first.rules, findings: [] });
        expect(first.rules[0]?.text).not.toContain('\n');
      }),
    );
  });

  test('a duplicate names both places', () => {
    const { rules } = parseRules('a.rules', `${rule(7)}\n${rule(8)}\n${rule(7)}`);
    expect(findDuplicateIds(rules)).toMatchObject([
      { file: 'a.rules', line: 3, message: 'signature id 7 is used again: first in a.rules:1' },
    ]);
  });
});

const shared = process.env.SIGREL_SHARED ?? join(import.meta.dirname, '..', '..', '..', 'shared');
const packaged = join(shared, 'data', 'suricata-engine-rules');
const vectors = join(shared, 'data', 'ips-vectors');

// Skipped, and said so by name, where the shared data is not there (SIGREL_SHARED).
describe.skipIf(!existsSync(packaged) || !existsSync(vectors))('real rule sets of the shared data', () => {
  const count = (folder: string) => {
    const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.rules'));
    const parsed = files.map((file) => parseRules(file, readFileSync(join(folder, file), 'utf8')));
    return {
      rules: parsed.flatMap((one) => one.rules).length,
      findings: parsed.flatMap((one) => one.findings),
    };
  };

  // Counts as published beside the data.
  test.each([
    ['6.0.1', 309],
    ['7.0.10', 383],
    ['8.0.7', 433],
  ])('the rules packaged with %s are %i', (version, rules) => {
    expect(count(join(packaged, version))).toEqual({ rules, findings: [] });
  });

  test('the rules of all 45 upstream vectors are read', () => {
    expect(count(vectors)).toEqual({ rules: 100, findings: [] });
  });
});
