import { expect, test } from 'vitest';
import { parseRules } from '../../domain/content/suricata.ts';

const ruleOf = (option: string) =>
  `# first line\nalert http any any -> any any (msg:"m"; http.uri; ${option}; sid:1; rev:1;)`;

test.each([
  'dataset:set,seen,type string,state /var/lib/x.lst',
  'dataset:set,seen, type string, save  ../x.lst',
  'dataset:isset,seen,load a/../../x,type md5',
  'datarep:seen, >, 50, type sha256, load /etc/x',
  'lua:/tmp/x.lua',
  'lua:!../x.lua',
  'luajit:"/tmp/x.lua"',
  'filesha256:/etc/x',
])('a rule that reads or writes outside of its folder is refused with its line: %s', (option) => {
  const { rules, findings } = parseRules('a.rules', ruleOf(option));
  expect(rules).toEqual([]);
  expect(findings).toMatchObject([
    { code: 'rule-syntax', file: 'a.rules', line: 2, message: expect.stringMatching(/^\w+ names .*; expected a path/) },
  ]);
});

test.each(['dataset:set,seen,type string,state x.lst', 'lua:x.lua', 'pcre:"/load \\/etc/"', 'content:"state /etc"'])(
  '%s stays a rule',
  (option) => expect(parseRules('a.rules', ruleOf(option)).rules).toHaveLength(1),
);
