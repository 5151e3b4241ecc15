/**
 * Our own reading of ClamAV databases. An engine refuses a whole file for one bad line, so that this is strict about
 * everything that all versions refuse; lines that an engine would skip without a word (functional levels, unknown
 * targets and attributes) count as signatures, since what is skipped must show as not loaded.
 *
 * A name is the one in the file: an engine adds `.UNOFFICIAL` to it where it reports a match.
 */
import type { ContentFinding, ParsedRules, Rule } from './rules.ts';

/** Endings of databases, in the order of an artefact's sections. */
const kinds = ['ndb', 'ldb', 'hdb', 'hsb', 'mdb', 'fp'] as const;

type Kind = (typeof kinds)[number];

/** An engine reads lines into a buffer of fixed size; the rest of a longer one counts as a second, broken line. */
const longestLineBytes = (kind: Kind): number => (kind === 'ldb' ? 32_766 : 8190);

/** Programs, of which the engine knows sections and entry point: PE, ELF, Mach-O. */
const programs = ['1', '6', '9'];

type Signature = { readonly name: string; readonly features: readonly string[] };

const kindOf = (file: string): Kind | undefined => kinds.find((kind) => file.endsWith(`.${kind}`));

/** Every signature of a file in order; a line that is none is a finding, but for comments. Never throws. */
export const parseClamavFile = (file: string, text: string): ParsedRules => {
  const rules: Rule[] = [];
  const findings: ContentFinding[] = [];
  const add = (line: number, message: string) => findings.push({ code: 'rule-syntax', message, file, line });
  const kind = kindOf(file);
  if (kind === undefined) {
    add(1, `unknown kind of database; expected a name that ends with ${kinds.map((known) => `.${known}`).join(', ')}`);
    return { rules, findings };
  }
  const lines = text.split('\n');
  if (lines.at(-1) === '') lines.pop();
  lines.forEach((written, index) => {
    const line = index + 1;
    if (written.startsWith('#')) return;
    const signature = written.replace(/\r+$/, '');
    const parsed = parseLine(kind, signature);
    if (typeof parsed === 'string') add(line, parsed);
    else {
      const features = [...new Set([kind, ...parsed.features])].sort();
      rules.push({
        ...{ ruleId: parsed.name, revision: 1, message: '', features, file, line },
        text: signature,
        needs: [],
      });
    }
  });
  return { rules, findings };
};

/** The signature, or what is wrong with it. */
const parseLine = (kind: Kind, text: string): Signature | string => {
  if (text.trim() === '') return 'an empty line: the engine refuses the whole file; expected a signature or a comment';
  const size = new TextEncoder().encode(text).length;
  const limit = longestLineBytes(kind);
  if (size > limit) return `the line has ${size} bytes; engines read at most ${limit}`;
  const parsed = kind === 'ndb' ? parseBody(text) : kind === 'ldb' ? parseLogical(text) : parseHash(kind, text);
  if (typeof parsed === 'string') return parsed;
  if (parsed.name === '') return 'the name is empty';
  if (/[\s\p{Cc}\p{Cf}]/u.test(parsed.name)) {
    return `${JSON.stringify(parsed.name)} is no usable name; expected it without white space and control characters`;
  }
  return parsed;
};

/** `Name:Target:Offset:HexSignature[:MinLevel[:MaxLevel]]` */
const parseBody = (text: string): Signature | string => {
  const fields = text.split(':');
  const [name = '', target = '', offset = '', hex = '', ...levels] = fields;
  if (fields.length < 4 || fields.length > 6) {
    return `${fields.length} fields; expected name:target:offset:signature with up to two functional levels`;
  }
  if (!/^\d+$/.test(target)) return `target is "${target}"; expected a number`;
  const level = levelFeature(levels);
  const fault = levelFault(levels) ?? offsetFault(offset, target) ?? hexFault(hex);
  if (fault !== null) return fault;
  if (target === '0' && /^[0-9a-fA-F]{4}$/.test(hex))
    return `${hex} is too short; expected at least 3 bytes for target 0`;
  return { name, features: [`target:${target}`, ...level, ...offsetFeatures(offset), ...hexFeatures(hex)] };
};

/** `hash:size:name[:MinLevel[:MaxLevel]]`, size first for sections of programs. */
const parseHash = (kind: Kind, text: string): Signature | string => {
  const fields = text.split(':');
  const order = kind === 'mdb' ? 'size:hash:name' : 'hash:size:name';
  if (fields.length < 3 || fields.length > 5) {
    return `${fields.length} fields; expected ${order} with up to two functional levels`;
  }
  const [first = '', second = '', name = '', ...levels] = fields;
  const [hash, size] = kind === 'mdb' ? [second, first] : [first, second];
  const algorithm = { 32: 'md5', 40: 'sha1', 64: 'sha256' }[hash.length];
  if (algorithm === undefined || !/^[0-9a-fA-F]+$/.test(hash)) {
    return `"${hash}" is no hash; expected 32, 40 or 64 hex digits (${order})`;
  }
  const fault = levelFault(levels);
  if (fault !== null) return fault;
  if (size === '*') {
    if (Number(levels[0] ?? 0) < 73) return 'size * without a minimum functional level of at least 73';
  } else if (!/^\d+$/.test(size) || Number(size) < 1 || Number(size) >= 0xffff_ffff) {
    return `size is "${size}"; expected a number from 1 or * (${order})`;
  }
  return { name, features: [`hash:${algorithm}`, ...(size === '*' ? ['size:*'] : []), ...levelFeature(levels)] };
};

/** `Name;Attributes;Expression;Subsignature0;...` */
const parseLogical = (text: string): Signature | string => {
  const [name = '', attributes = '', expression = '', ...subsignatures] = logicalFields(text);
  if (subsignatures.length === 0) return 'too few fields; expected name;attributes;expression;subsignature';
  const described = parseAttributes(attributes);
  if (typeof described === 'string') return described;
  const used = parseExpression(expression);
  if (used === null) return `"${expression}" is no expression; expected numbers of subsignatures with &, |, = and ()`;
  if (subsignatures.length > 64) return `${subsignatures.length} subsignatures; engines read at most 64`;
  if (used !== subsignatures.length - 1) {
    return `the expression goes up to subsignature ${used}, but the last one is ${subsignatures.length - 1}`;
  }
  const features: string[] = [...described.features];
  for (const [index, subsignature] of subsignatures.entries()) {
    const parsed = parseSubsignature(subsignature, index, described.target);
    if (typeof parsed === 'string') return `subsignature ${index}: ${parsed}`;
    features.push(...parsed);
  }
  return { name, features };
};

/** Fields between semicolons, but for those inside a regular expression, as the engine splits them. */
const logicalFields = (text: string): readonly string[] => {
  const fields = [''];
  let inside = false;
  for (let at = 0; at < text.length; at++) {
    const character = text.charAt(at);
    if (character === ';' && !inside) fields.push('');
    else {
      if (character === '/' && fields.length > 2 && text[at - 1] !== '\\') inside = !inside;
      fields[fields.length - 1] += character;
    }
  }
  return fields;
};

/** Attributes that engines take only from signatures that say for which functional levels they are, from 51 on. */
const laterAttributes = /^(?:FileSize|EntryPoint|NumberOfSections|IconGroup[12]|HandlerType|Container|Intermediates)$/;

/** `Engine:51-255,Target:0,...` */
const parseAttributes = (text: string): { readonly target: string; readonly features: readonly string[] } | string => {
  const features: string[] = [];
  const values = new Map<string, string>();
  for (const [index, attribute] of text.split(',').entries()) {
    const [, name, value = ''] = /^([^:]+):(.*)$/.exec(attribute) ?? [];
    if (name === undefined) return `"${attribute}" is no attribute; expected name:value`;
    if (name === 'Engine' && index > 0) return 'Engine is not the first attribute, as engines expect';
    if (name === 'Engine') features.push(`flevel:${value}`);
    else features.push(name === 'Target' ? `target:${value}` : `attribute:${name}`);
    values.set(name, value);
  }
  const engine = values.get('Engine');
  const target = values.get('Target');
  if (engine !== undefined && !/^\d+-\d+$/.test(engine)) {
    return `Engine is "${engine}"; expected two functional levels such as 51-255`;
  }
  if (target === undefined) return 'no Target among the attributes';
  if (!/^\d+$/.test(target)) return `Target is "${target}"; expected a number`;
  const later = [...values.keys()].find((name) => laterAttributes.test(name));
  if (later !== undefined && Number.parseInt(engine ?? '0', 10) < 51) {
    return `attribute ${later} without Engine:51-255 or higher before it`;
  }
  const sections = ['EntryPoint', 'NumberOfSections'].find((name) => values.has(name));
  if (sections !== undefined && !programs.includes(target)) {
    return `attribute ${sections} for target ${target}; expected target ${programs.join(', ')}`;
  }
  return { target, features };
};

/** The highest number of a subsignature in it; null: it is no expression. Parentheses are taken away from the inside out. */
const parseExpression = (text: string): number | null => {
  const written = text.replaceAll(' ', '');
  if (written.includes('_')) return null; // stands for a group below
  const plain = replaceAll(written, parentheses, '_');
  if (!onlyTerms.test(plain)) return null;
  return Math.max(...(written.match(/(?<![=<>,\d])\d+/g) ?? []).map(Number));
};

const term = String.raw`(?:\d+|_)(?:[=<>]\d+(?:,\d*)?)?`;
const terms = `${term}(?:[&|]${term})*`;
// An engine compares a group only when it has more than one term.
const parentheses = new RegExp(String.raw`\((?:${term}(?:[&|]${term})+\)|${term}\)(?![=<>]))`, 'g');
const onlyTerms = new RegExp(`^${terms}$`);

const replaceAll = (text: string, pattern: RegExp, by: string): string => {
  let before = text;
  for (;;) {
    const after = before.replace(pattern, by);
    if (after === before) return after;
    before = after;
  }
};

/** Its features, or what is wrong with it. */
const parseSubsignature = (text: string, index: number, target: string): readonly string[] | string => {
  if (text.startsWith('fuzzy_img#')) {
    return /^fuzzy_img#[0-9a-fA-F]{16}(#\d+)?$/.test(text) ? ['fuzzy_img'] : 'expected fuzzy_img# and 16 hex digits';
  }
  if (text.includes('/')) return parsePattern(text, index, target);
  if (text.includes('#')) {
    const number = '-?(?:0x)?[0-9a-fA-F]+';
    const form = String.raw`^\d+\((?:(?:>>|<<)-?\d+|0)#[abdehil]+\d+#[<>=]${number}(?:,[<>=]${number})?\)$`;
    return new RegExp(form).test(text) ? ['byte_compare'] : 'expected a byte comparison such as 0(>>4#be2#=10)';
  }
  if (text.startsWith('$')) {
    const [, group] = /^\$\{\d+-\d+\}(\d+)\$$/.exec(text) ?? [];
    return Number(group) < 32 ? ['macro'] : `expected a macro such as \${6-7}12$ with a group below 32`;
  }
  const [, offset, hex = '', options] = /^(?:([^:]*):(?!:))?([^:]*)(?:::([aifw]*))?$/.exec(text) ?? [];
  if (hex === '') return `"${text}" is no subsignature; expected [offset:]signature[::options], options of aifw`;
  const fault = (offset === undefined ? null : offsetFault(offset, target)) ?? hexFault(hex, options?.includes('w'));
  if (fault !== null) return fault;
  const names: Readonly<Record<string, string>> = { a: 'ascii', i: 'nocase', f: 'fullword', w: 'wide' };
  return [
    ...offsetFeatures(offset ?? '*'),
    ...hexFeatures(hex),
    ...[...(options ?? '')].flatMap((o) => names[o] ?? []),
  ];
};

/** `[offset:]trigger/regular expression/options`; the expression itself is for the engine to judge. */
const parsePattern = (text: string, index: number, target: string): readonly string[] | string => {
  const form = 'expected a regular expression such as 0&1/pattern/i with its trigger before it';
  const [, offset, trigger = '', rest = ''] = /^(?:([^/:]*):)?([^/:]*)\/(.*)$/.exec(text) ?? [];
  const options = /^(?:.*[^\\])?\/([^/]*)$/.exec(rest)?.[1];
  if (options === undefined || trigger === '') return form;
  if (!/^[greismxAEU]*$/.test(options)) return `options "${options}"; expected some of greismxAEU`;
  const used = parseExpression(trigger);
  if (used === null) return `"${trigger}" is no trigger; ${form}`;
  if (used >= index) return `the trigger refers to subsignature ${used}; expected one before this`;
  const fault = offset === undefined ? null : offsetFault(offset, target);
  return fault ?? ['pcre', ...offsetFeatures(offset ?? '*')];
};

const levelFault = (levels: readonly string[]): string | null => {
  const wrong = levels.find((level) => !/^\d{1,9}$/.test(level));
  return wrong === undefined ? null : `functional level is "${wrong}"; expected a number`;
};

/** A maximum left out leaves the end of the range open. */
const levelFeature = ([lowest, highest = '']: readonly string[]): readonly string[] =>
  lowest === undefined ? [] : [`flevel:${lowest}-${highest}`];

const offsetFault = (offset: string, target: string): string | null => {
  if (!/^(?:\*|VI|(?:\d+|\$\d+|EOF-\d+|EP[+-]\d+|S\d+\+\d+|SE\d+|SL\+\d+)(?:,\d+)?)$/.test(offset)) {
    return `"${offset}" is no offset; expected *, n, EOF-n, EP+n, EP-n, Sx+n, SEx, SL+n or VI, also with ,shift`;
  }
  const needsProgram = /^(?:EP|S|VI)/.test(offset) && !programs.includes(target);
  return needsProgram ? `offset ${offset} for target ${target}; expected target ${programs.join(', ')}` : null;
};

const offsetFeatures = (offset: string): readonly string[] => {
  if (offset === '*') return [];
  const place = /^(?:\$|EOF|EP|SE|SL|S|VI)/.exec(offset)?.[0] ?? 'fixed';
  return [`offset:${place}`, ...(offset.includes(',') ? ['offset:shift'] : [])];
};

const byte = '[0-9a-fA-F?]{2}';
const alternatives = new RegExp(String.raw`!?\((?:[BLW]|(?:${byte}|_|\{\d+\})*(?:\|(?:${byte}|_|\{\d+\})*)*)\)`, 'g');
/** Gaps of up to this size do not split a signature into parts. */
const longestFixedGap = 127;
const longestAnchor = 32;

/**
 * What is wrong with a hex signature, or null. Every part between gaps needs two plain bytes side by side; one is enough
 * where the engine puts a zero after each.
 */
const hexFault = (hex: string, isWide = false): string | null => {
  const strange = /[^0-9a-fA-F?*{}()|![\]\-BLW]/u.exec(hex);
  if (strange !== null) return `"${strange[0]}" in the signature; expected pairs of hex digits and wildcards`;
  if (hex.includes('()')) return 'empty parentheses in the signature; expected alternatives such as (aa|bb)';
  const flat = replaceAll(hex, alternatives, '_').replace(/\{(\d+)\}/g, (gap, size: string) =>
    Number(size) > longestFixedGap ? gap : '_',
  );
  for (const part of flat.split(/\*|\{(?:\d+|\d+-|-\d+|\d+-\d+)\}/)) {
    const shown = `"${part.replaceAll('_', '(..)')}" in the signature`;
    const anchors = part.match(/\[\d+-\d+\]/g) ?? [];
    if (!new RegExp(`^(?:${byte}|_)*$`).test(anchors.reduce((rest, anchor) => rest.replace(anchor, ''), part))) {
      return `${shown}; expected pairs of hex digits, ??, *, {n-m}, (aa|bb) or [n-m]`;
    }
    const body = anchored.exec(part)?.[1];
    if (body === undefined || !anchors.every(isRange)) {
      return `${shown}; expected [n-m] only after its first and before its last byte, with n <= m <= ${longestAnchor}`;
    }
    const pieces = body.match(new RegExp(`${byte}|.`, 'g')) ?? [];
    const isPlain = (piece: string | undefined) => /^[0-9a-fA-F]{2}$/.test(piece ?? '');
    if (!pieces.some((piece, index) => isPlain(piece) && (isWide || isPlain(pieces[index + 1])))) {
      return `${shown} is too short; expected two plain bytes side by side in each part`;
    }
  }
  return null;
};

/** A single byte may stand apart at either end. */
const anchored = new RegExp(String.raw`^(?:${byte}\[\d+-\d+\])?([^[\]]*)(?:\[\d+-\d+\]${byte})?$`);

const isRange = (anchor: string): boolean => {
  const [from = 0, to = 0] = (anchor.match(/\d+/g) ?? []).map(Number);
  return from <= to && to <= longestAnchor;
};

const hexFeatures = (hex: string): readonly string[] => [
  ...(hex.includes('*') ? ['wildcard:*'] : []),
  ...(hex.includes('?') ? ['wildcard:?'] : []),
  ...(hex.includes('{') ? ['wildcard:{}'] : []),
  ...(hex.includes('[') ? ['anchored-byte'] : []),
  ...(hex.includes('|') ? ['alternation'] : []),
  ...(hex.includes('!') ? ['negation'] : []),
  ...(/\([BLW]\)/.test(hex) ? ['boundary'] : []),
];

const header = (kind: Kind): string => `[content.${kind}]`;

/** One section for each kind of database that has signatures; a file's ending says to which one a signature belongs. */
export const clamavArtefact = (rules: readonly Rule[]): Uint8Array => {
  const sections = kinds.map((kind) => {
    const lines = rules.filter(({ file }) => kindOf(file) === kind).map(({ text }) => `${text}\n`);
    return lines.length === 0 ? '' : `${header(kind)}\n${lines.join('')}`;
  });
  return new TextEncoder().encode(sections.join(''));
};

/** A database as somebody wrote it, readable or not, as an artefact of one section; without one for an unknown ending. */
export const wrapClamavFile = (file: string, bytes: Uint8Array): Uint8Array => {
  const kind = kindOf(file);
  if (kind === undefined) return bytes;
  const head = new TextEncoder().encode(`${header(kind)}\n`);
  const wrapped = new Uint8Array(head.length + bytes.length);
  wrapped.set(head);
  wrapped.set(bytes, head.length);
  return wrapped;
};

/**
 * The database files of an artefact for the engine. Bytes that do not begin with a section have none: the list is empty.
 * A header out of order is no header but a line of the database, which engines refuse.
 */
export const clamavSections = (bytes: Uint8Array): readonly { readonly name: string; readonly bytes: Uint8Array }[] => {
  const found: { kind: Kind; start: number; end: number }[] = [];
  for (let start = 0; start < bytes.length; ) {
    const newline = bytes.indexOf(10, start);
    const next = newline < 0 ? bytes.length : newline + 1;
    const last = found.at(-1);
    const kind = kinds.find((known) => isHeader(bytes.subarray(start, next), known));
    if (kind !== undefined && (last === undefined || kinds.indexOf(kind) > kinds.indexOf(last.kind))) {
      found.push({ kind, start: next, end: next });
    } else if (last === undefined) return [];
    else last.end = next;
    start = next;
  }
  return found.map(({ kind, start, end }) => ({ name: `content.${kind}`, bytes: bytes.subarray(start, end) }));
};

const isHeader = (line: Uint8Array, kind: Kind): boolean => {
  const expected = `${header(kind)}\n`;
  return line.length === expected.length && [...line].every((code, index) => code === expected.charCodeAt(index));
};

/** The signatures of an artefact; `file` and `line` of each are those of the section. */
export const parseClamavArtefact = (bytes: Uint8Array): ParsedRules => {
  const sections = clamavSections(bytes);
  if (sections.length === 0 && bytes.length > 0) {
    const message = `no artefact of ClamAV databases; expected a section such as ${header('ndb')} on the first line`;
    return { rules: [], findings: [{ code: 'rule-syntax', message, file: 'content', line: 1 }] };
  }
  // The default would leave out a byte order mark, which an engine sees.
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  const parsed = sections.map((section) => parseClamavFile(section.name, decoder.decode(section.bytes)));
  return {
    rules: parsed.flatMap(({ rules }) => rules),
    findings: parsed.flatMap(({ findings }) => findings),
  };
};
