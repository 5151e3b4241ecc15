/**
 * Our own reading of YARA rules. It is strict about where a rule begins and ends and what it is called, since that is
 * what is counted; whether the rule makes sense (undefined strings, types, regular expressions) is left to the engines.
 */
import type { ContentFinding, ParsedRules, Rule } from './rules.ts';

/** Words that no engine takes as a rule's name. */
const keywords = new Set(
  `all and any ascii at base64 base64wide condition contains entrypoint false filesize for fullword global import in
  include int16 int16be int32 int32be int8 int8be matches meta nocase not of or private rule strings them true uint16
  uint16be uint32 uint32be uint8 uint8be wide xor`.split(/\s+/),
);

/** Keywords of newer engines only: an older one takes them as names. */
const newerKeywords = new Set(
  'defined endswith icontains iendswith iequals istartswith none startswith with'.split(' '),
);

/** Words of a condition that are worth knowing when an engine refuses the rule or means something else by it. */
const conditionFeatures = new Set(
  `all any at contains defined endswith entrypoint for icontains iendswith iequals in istartswith matches none of
  startswith with`.split(/\s+/),
);

const stringModifiers = new Set(['ascii', 'wide', 'nocase', 'fullword', 'private', 'xor', 'base64', 'base64wide']);

const sections = ['meta', 'strings', 'condition'];

type Token = {
  /** `bad`: what the lexer could not read; `message` says why. `end`: after the last one. */
  readonly kind: 'word' | 'string-id' | 'text' | 'regex' | 'hex' | 'number' | 'sign' | 'bad' | 'end';
  readonly text: string;
  readonly start: number;
  readonly line: number;
  readonly message?: string;
};

type Fault = { readonly line: number; readonly message: string };

/**
 * Every rule of a file in order. A rule with a fault is left out and reading goes on at the next one. Never throws.
 *
 * A module that no rule uses is put down to the file's first rule, so that the import still reaches the engine, which
 * may refuse it.
 */
export const parseYara = (file: string, text: string): ParsedRules => {
  const findings: ContentFinding[] = [];
  const add = ({ line, message }: Fault) => findings.push({ code: 'rule-syntax', message, file, line });
  const hasMark = text.startsWith('\uFEFF');
  if (hasMark) add({ line: 1, message: 'the file begins with a byte order mark; expected plain UTF-8 without it' });
  const tokens = tokensOf(text, hasMark ? 1 : 0);
  const imports = new Set<string>();
  const parsed: ParsedRule[] = [];
  let at = 0;
  for (;;) {
    const token = tokenAt(tokens, at);
    const next = tokenAt(tokens, at + 1);
    if (token.kind === 'end') break;
    if (isWord(token, 'import') && next.kind === 'text' && /^\w+$/.test(plainText(next.text))) {
      imports.add(plainText(next.text));
      at += 2;
    } else if (ruleKeyword(tokens, at) >= 0) {
      const result = parseRule(text, tokens, at);
      if ('message' in result) {
        add(result);
        at = nextStart(tokens, ruleKeyword(tokens, at) + 1);
      } else {
        parsed.push(result);
        at = result.after;
      }
    } else {
      add(outsideRules(token, next));
      at = nextStart(tokens, at + (isWord(token, 'include') && next.kind === 'text' ? 2 : 1));
    }
  }
  const used = new Set(parsed.flatMap(({ modules }) => [...modules]));
  const unused = [...imports].filter((name) => !used.has(name));
  const rules: Rule[] = [];
  for (const { rule, modules } of parsed) {
    const missing = [...modules].find((name) => !imports.has(name));
    if (missing !== undefined) {
      const message = `rule ${rule.ruleId} uses "${missing}.", which the file does not import; expected import "${missing}"`;
      add({ line: rule.line, message });
      continue;
    }
    const modulesOfRule = rules.length === 0 ? [...modules, ...unused] : [...modules];
    rules.push({
      ...rule,
      file,
      features: sorted([...rule.features, ...modulesOfRule.map((name) => `import:${name}`)]),
    });
  }
  return { rules, findings };
};

const outsideRules = (token: Token, next: Token): Fault => {
  const { line } = token;
  if (token.kind === 'bad') return { line, message: token.message ?? '' };
  if (isWord(token, 'include')) {
    return { line, message: `include ${next.text}: includes are not allowed; expected the rules in the folder itself` };
  }
  if (isWord(token, 'import')) return { line, message: `import ${shown(next)}; expected import "name"` };
  if (isModifier(token)) {
    return { line, message: `"${token.text}" before ${shown(next)}; expected it before a rule` };
  }
  return { line, message: `${shown(token)} outside of a rule; expected import or rule` };
};

type ParsedRule = {
  readonly rule: Omit<Rule, 'file'>;
  /** Names before a dot: modules. */
  readonly modules: ReadonlySet<string>;
  /** Index of the token after the rule. */
  readonly after: number;
};

const parseRule = (text: string, tokens: readonly Token[], first: number): ParsedRule | Fault => {
  const features = new Set<string>();
  let at = first;
  for (; !isWord(tokenAt(tokens, at), 'rule'); at++) features.add(tokenAt(tokens, at).text);
  const start = tokenAt(tokens, first);
  const name = tokenAt(tokens, ++at);
  if (name.kind !== 'word') return fault(name, 'the name of the rule');
  if (keywords.has(name.text)) {
    return { line: name.line, message: `"${name.text}" is a keyword; expected another name for the rule` };
  }
  if (newerKeywords.has(name.text)) features.add(`name:${name.text}`);
  const within = (token: Token, expected: string): Fault => fault(token, expected, `rule ${name.text}: `);
  at++;
  if (isSign(tokenAt(tokens, at), ':')) {
    at++;
    if (tokenAt(tokens, at).kind !== 'word') return within(tokenAt(tokens, at), 'a tag after ":"');
    while (tokenAt(tokens, at).kind === 'word') at++;
  }
  const open = tokenAt(tokens, at++);
  if (!isSign(open, '{')) return within(open, '"{"');

  let message: string | null = null;
  if (startsSection(tokens, at, 'meta')) {
    at += 2;
    do {
      const key = tokenAt(tokens, at);
      if (key.kind !== 'word' || !isSign(tokenAt(tokens, at + 1), '=')) return within(key, 'name = value in meta');
      at += 2;
      if (isSign(tokenAt(tokens, at), '-')) at++;
      const value = tokenAt(tokens, at++);
      const isValue =
        value.kind === 'text' || value.kind === 'number' || isWord(value, 'true') || isWord(value, 'false');
      if (!isValue) return within(value, `a text, a number, true or false for ${key.text}`);
      if (key.text === 'description' && value.kind === 'text') message ??= plainText(value.text);
    } while (!isSection(tokens, at) && !isSign(tokenAt(tokens, at), '}') && !startsAnew(tokens, at));
  }

  if (startsSection(tokens, at, 'strings')) {
    at += 2;
    do {
      const id = tokenAt(tokens, at);
      if (!id.text.startsWith('$') || id.kind !== 'string-id' || !isSign(tokenAt(tokens, at + 1), '=')) {
        return within(id, '$name = value in strings');
      }
      const value = tokenAt(tokens, at + 2);
      if (value.kind !== 'text' && value.kind !== 'regex' && value.kind !== 'hex') {
        return within(value, `a text in quotes, a regular expression or a hex string in braces for ${id.text}`);
      }
      for (const feature of valueFeatures(value)) features.add(feature);
      at += 3;
      while (tokenAt(tokens, at).kind === 'word' && stringModifiers.has(tokenAt(tokens, at).text)) {
        const modifier = tokenAt(tokens, at++).text;
        features.add(modifier === 'private' ? 'private-string' : modifier);
        if (!isSign(tokenAt(tokens, at), '(')) continue;
        features.add(modifier === 'xor' ? 'xor:range' : `${modifier}:alphabet`);
        at++;
        while (['number', 'text'].includes(tokenAt(tokens, at).kind) || isSign(tokenAt(tokens, at), '-')) at++;
        const close = tokenAt(tokens, at++);
        if (!isSign(close, ')')) return within(close, `")" after the value of ${modifier}`);
      }
    } while (!isSection(tokens, at) && !isSign(tokenAt(tokens, at), '}') && !startsAnew(tokens, at));
  }

  if (!startsSection(tokens, at, 'condition')) {
    return startsAnew(tokens, at) ? notClosed(name, open) : within(tokenAt(tokens, at), '"condition:"');
  }
  at += 2;
  const from = at;
  for (; !isSign(tokenAt(tokens, at), '}'); at++) {
    const token = tokenAt(tokens, at);
    if (token.kind === 'bad') return within(token, '');
    if (startsAnew(tokens, at)) return notClosed(name, open);
    if (token.kind === 'hex' || isSign(token, '{') || isSection(tokens, at)) return within(token, '"}"');
  }
  if (at === from) return within(tokenAt(tokens, at), 'a condition');
  const condition = readCondition(tokens.slice(from, at));
  for (const feature of condition.features) features.add(feature);
  return {
    rule: {
      ...{ ruleId: name.text, revision: 1, message: message ?? '', features: sorted(features), line: start.line },
      text: text.slice(start.start, tokenAt(tokens, at).start + 1),
      needs: sorted(condition.names.filter((other) => other !== name.text)),
    },
    modules: condition.modules,
    after: at + 1,
  };
};

/**
 * What a condition refers to. `names` are all identifiers that may be rules, and `Prefix*` for all rules with that
 * prefix: which of them are rules is known only where all files are (yaraArtefact, closureOf).
 *
 * A loop variable is taken as one in the whole condition.
 */
const readCondition = (tokens: readonly Token[]) => {
  const features = new Set<string>();
  const names = new Set<string>();
  const modules = new Set<string>();
  const variables = new Set<string>();
  tokens.forEach((token, index) => {
    if (isSign(token, '=')) variables.add(tokenAt(tokens, index - 1).text);
    if (!isWord(token, 'in')) return;
    for (let at = index - 1; isName(tokenAt(tokens, at)); at -= 2) {
      variables.add(tokenAt(tokens, at).text);
      if (!isSign(tokenAt(tokens, at - 1), ',')) break;
    }
  });
  tokens.forEach((token, index) => {
    const before = tokenAt(tokens, index - 1);
    const next = tokenAt(tokens, index + 1);
    if (token.kind === 'regex') for (const feature of valueFeatures(token)) features.add(feature);
    if (token.kind === 'number' && token.text.includes('_')) features.add('int-underscore');
    if (token.kind !== 'word') return;
    if (isSign(before, '.')) {
      if (token.text === 'len' && isSign(next, '(')) features.add('len');
      return;
    }
    if (conditionFeatures.has(token.text)) features.add(token.text);
    if (/^u?int(8|16|32)(be)?$/.test(token.text)) features.add(token.text);
    if (token.text === 'of') {
      if (isSign(before, '%')) features.add('percent-of');
      const item = tokenAt(tokens, index + 2);
      if (isSign(next, '(') && item.kind !== 'string-id') features.add(isName(item) ? 'of-rules' : 'of-expressions');
    }
    if (token.text === 'in' || token.text === 'at') {
      if (isWord(before, 'them') || isSign(before, ')')) features.add(`of-${token.text}`);
      if (token.text === 'in' && before.text.startsWith('#')) features.add('count-in');
    }
    if (!isName(token) || variables.has(token.text)) return;
    if (isSign(next, '.')) {
      modules.add(token.text);
      features.add(memberPath(tokens, index));
    } else if (isSign(next, '*') && /^[),]$/.test(tokenAt(tokens, index + 2).text)) names.add(`${token.text}*`);
    else if (!isSign(next, '(') && !isSign(next, '[')) names.add(token.text);
  });
  return { features, names: [...names], modules };
};

/** `pe.rich_signature.version`, up to the first thing that is no name. */
const memberPath = (tokens: readonly Token[], index: number): string => {
  let path = tokenAt(tokens, index).text;
  for (let at = index + 1; isSign(tokenAt(tokens, at), '.') && tokenAt(tokens, at + 1).kind === 'word'; at += 2) {
    path += `.${tokenAt(tokens, at + 1).text}`;
  }
  return path;
};

const valueFeatures = ({ kind, text }: Token): readonly string[] => {
  if (kind === 'regex') {
    const flags = text.slice(text.lastIndexOf('/') + 1);
    return [
      'regex',
      ...[...flags].map((flag) => `regex:${flag}`),
      ...(text.includes('(?:') ? ['regex:noncapture'] : []),
    ];
  }
  if (kind !== 'hex') return [];
  const bare = text.replace(hexComment, ' ');
  return [
    ...(bare.includes('~') ? ['hex-not'] : []),
    ...(bare.includes('[') ? ['hex-jump'] : []),
    ...(/-\s*\]/.test(bare) ? ['hex-jump:open'] : []),
    ...(bare.includes('(') ? ['hex-alternative'] : []),
    ...(bare.includes('?') ? ['hex-wildcard'] : []),
  ];
};

const sorted = (values: Iterable<string>): readonly string[] => [...new Set(values)].sort();

const endToken: Token = { kind: 'end', text: '', start: 0, line: 0 };

const tokenAt = (tokens: readonly Token[], index: number): Token => tokens[index] ?? endToken;

const isWord = (token: Token, word: string): boolean => token.kind === 'word' && token.text === word;

const isSign = (token: Token, sign: string): boolean => token.kind === 'sign' && token.text === sign;

const isModifier = (token: Token): boolean => isWord(token, 'global') || isWord(token, 'private');

const isName = (token: Token): boolean =>
  token.kind === 'word' && !keywords.has(token.text) && !newerKeywords.has(token.text);

const startsSection = (tokens: readonly Token[], at: number, name: string): boolean =>
  isWord(tokenAt(tokens, at), name) && isSign(tokenAt(tokens, at + 1), ':');

const isSection = (tokens: readonly Token[], at: number): boolean =>
  sections.some((name) => startsSection(tokens, at, name));

/** Index of the word `rule` after any modifiers, or -1 when no rule begins here. */
const ruleKeyword = (tokens: readonly Token[], at: number): number => {
  let found = at;
  while (isModifier(tokenAt(tokens, found))) found++;
  return isWord(tokenAt(tokens, found), 'rule') ? found : -1;
};

/** None of these can stand inside a rule, so the rule before it is not closed. */
const startsAnew = (tokens: readonly Token[], at: number): boolean => {
  const token = tokenAt(tokens, at);
  return token.kind === 'end' || isWord(token, 'import') || isWord(token, 'include') || ruleKeyword(tokens, at) >= 0;
};

/** Index of the next token from which reading can go on after a fault. */
const nextStart = (tokens: readonly Token[], from: number): number => {
  let at = from;
  while (!startsAnew(tokens, at)) at++;
  return at;
};

const shown = ({ kind, text }: Token): string =>
  kind === 'end' ? 'the end of the file' : text.length > 40 ? `"${text.slice(0, 40)}..."` : `"${text}"`;

const fault = (token: Token, expected: string, prefix = ''): Fault => ({
  line: token.line,
  message: prefix + (token.message ?? `expected ${expected}, found ${shown(token)}`),
});

const notClosed = (name: Token, open: Token): Fault => ({
  line: open.line,
  message: `rule ${name.text}: "{" is not closed; expected "}" before the next rule or the end of the file`,
});

// The byte order mark counts as white space in JavaScript only.
const whiteSpace = /[^\S\uFEFF]+/y;
const comment = /\/\/[^\n]*|\/\*[\s\S]*?\*\//y;
const hexComment = /\/\/[^\n]*|\/\*[\s\S]*?\*\//g;
const hexBody = /\{(?:[0-9a-fA-F?~()|[\]\-\s]|\/\/[^\n]*|\/\*[\s\S]*?\*\/)*/y;
const textBody = /"(?:[^"\\\n]|\\[^\n])*/y;
const knownEscapes = /^(?:[^\\]|\\["\\tnr]|\\x[0-9a-fA-F]{2})*/;
const regexBody = /\/(?:[^/\\\n]|\\[^\n])*/y;
const regexFlags = /\/[A-Za-z]*/y;
const plainTokens: readonly (readonly [Token['kind'], RegExp])[] = [
  ['word', /[A-Za-z_]\w*/y],
  ['number', /0x[0-9a-fA-F_]+|0o[0-7_]+|\d[\d_]*(?:\.\d+)?(?:KB|MB)?/y],
  ['sign', /==|!=|<=|>=|<<|>>|\.\.|[{}()[\]:=.,+\-*\\%&|^~<>]/y],
  ['string-id', /[$#@!]\w*/y],
];

const matchAt = (pattern: RegExp, text: string, at: number): string => {
  pattern.lastIndex = at;
  return pattern.exec(text)?.[0] ?? '';
};

const tokensOf = (text: string, from: number): readonly Token[] => {
  const tokens: Token[] = [];
  let line = 1;
  let at = from;
  while (at < text.length) {
    const skipped = matchAt(whiteSpace, text, at) || matchAt(comment, text, at);
    const token = skipped === '' ? readToken(text, at, line, tokens.at(-1)) : null;
    if (token !== null) tokens.push(token);
    const read = token?.text ?? skipped;
    line += read.split('\n').length - 1;
    at += read.length;
  }
  return [...tokens, { kind: 'end', text: '', start: at, line }];
};

const readToken = (text: string, start: number, line: number, before: Token | undefined): Token => {
  const token = (kind: Token['kind'], read: string): Token => ({ kind, text: read, start, line });
  const bad = (read: string, message: string): Token => ({ ...token('bad', read), message });
  const sign = text[start];
  if (text.startsWith('/*', start)) return bad(text.slice(start), 'a comment is not closed; expected "*/"');
  if (sign === '"') {
    const body = matchAt(textBody, text, start);
    if (text[start + body.length] !== '"') return bad(body, `a text is not closed: ${body.trim()}; expected a quote`);
    const known = knownEscapes.exec(body)?.[0].length ?? 0;
    if (known < body.length) {
      const unknown = body.slice(known, known + 2);
      return bad(
        `${body}"`,
        `unknown escape ${unknown} in ${body}"; expected \\", \\\\, \\t, \\n, \\r or \\x and two digits`,
      );
    }
    return token('text', `${body}"`);
  }
  if (sign === '/') {
    const body = matchAt(regexBody, text, start);
    if (text[start + body.length] === '/') return token('regex', body + matchAt(regexFlags, text, start + body.length));
    return bad(body, `a regular expression is not closed: ${body.trim()}; expected "/"`);
  }
  // Only a string's value can stand here: a comparison has two equals signs.
  if (sign === '{' && before !== undefined && isSign(before, '=')) {
    const body = matchAt(hexBody, text, start);
    const next = text[start + body.length];
    if (next === '}') return token('hex', `${body}}`);
    const found = next === undefined ? 'the end of the file' : `"${next}"`;
    return bad(
      body,
      `a hex string is not closed: expected hex digits, ?, ~, jumps, alternatives or "}", found ${found}`,
    );
  }
  for (const [kind, pattern] of plainTokens) {
    const read = matchAt(pattern, text, start);
    if (read !== '') return token(kind, read);
  }
  const [character = ''] = text.slice(start, start + 2);
  return bad(character, `unexpected character "${character}"`);
};

/** What a text in quotes stands for. */
const plainText = (quoted: string): string =>
  quoted.slice(1, -1).replace(/\\(x[0-9a-fA-F]{2}|.)/g, (_, code: string) => {
    if (code.startsWith('x')) return String.fromCharCode(Number.parseInt(code.slice(1), 16));
    return { t: '\t', n: '\n', r: '\r' }[code] ?? code;
  });

/** Indexes of the rules of the set that each one refers to; what its condition names besides is no rule. */
const needsOf = (rules: readonly Rule[]): readonly (readonly number[])[] => {
  const byName = new Map<string, number[]>();
  rules.forEach(({ ruleId }, index) => {
    byName.set(String(ruleId), [...(byName.get(String(ruleId)) ?? []), index]);
  });
  const named = (name: string): readonly number[] =>
    name.endsWith('*')
      ? [...byName].filter(([known]) => known.startsWith(name.slice(0, -1))).flatMap(([, indexes]) => indexes)
      : (byName.get(name) ?? []);
  return rules.map(({ needs }, index) => [
    ...new Set(needs.flatMap((name) => named(String(name))).filter((other) => other !== index)),
  ]);
};

/**
 * Rules in the given order, except that one comes after all that it needs. Rules that need each other in a circle stay
 * as they are, for the engine to refuse.
 */
const inLoadingOrder = (rules: readonly Rule[]): readonly Rule[] => {
  const needs = needsOf(rules);
  const placed = new Set<number>();
  let waiting: number[] = [];
  const isReady = (index: number) => (needs[index] ?? []).every((other) => placed.has(other));
  const placeWaiting = () => {
    for (let ready = waiting.find(isReady); ready !== undefined; ready = waiting.find(isReady)) {
      placed.add(ready);
      waiting = waiting.filter((other) => other !== ready);
    }
  };
  rules.forEach((_, index) => {
    waiting.push(index);
    placeWaiting();
  });
  for (let first = waiting.shift(); first !== undefined; first = waiting.shift()) {
    placed.add(first);
    placeWaiting();
  }
  return [...placed].flatMap((index) => rules[index] ?? []);
};

/**
 * The imports of all rules, then the rules, each after those it needs. Parsed again it gives the same rules; only a
 * module that no rule uses may then be put down to another one.
 */
export const yaraArtefact = (rules: readonly Rule[]): Uint8Array => {
  const modules = sorted(
    rules.flatMap(({ features }) => features.filter((name) => name.startsWith('import:')).map((name) => name.slice(7))),
  );
  const imports = modules.map((name) => `import "${name}"\n`);
  return new TextEncoder().encode([...imports, ...inLoadingOrder(rules).map(({ text }) => `${text}\n`)].join(''));
};

/**
 * The rules of `part`, everything of `rules` that they refer to, and all global rules, since those change what others
 * match; in the order of `rules`.
 */
export const closureOf = (rules: readonly Rule[], part: readonly Rule[]): readonly Rule[] => {
  const needs = needsOf(rules);
  const wanted = new Set(part.map(({ ruleId }) => ruleId));
  const taken = new Set<number>();
  const open = rules.flatMap(({ ruleId, features }, index) =>
    wanted.has(ruleId) || features.includes('global') ? [index] : [],
  );
  for (let index = open.pop(); index !== undefined; index = open.pop()) {
    if (taken.has(index)) continue;
    taken.add(index);
    open.push(...(needs[index] ?? []));
  }
  return rules.filter((_, index) => taken.has(index));
};
