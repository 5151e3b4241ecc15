/**
 * Our own reading of Suricata rules: how many there are, what they are called, where they stand. It is the "expected" that
 * the engine's "loaded" is compared with, so it must not depend on any engine.
 */
import type { Finding } from '../release.ts';

export type ContentFinding = Finding & { readonly file?: string; readonly line?: number };

export type Rule = {
  readonly signatureId: number;
  readonly revision: number;
  readonly action: string;
  readonly protocol: string;
  readonly message: string;
  readonly keywords: readonly string[];
  readonly file: string;
  /** Line of the rule's first character. */
  readonly line: number;
  /** On one line, as it goes to the engine. */
  readonly text: string;
};

const actions = ['alert', 'drop', 'reject', 'rejectsrc', 'rejectdst', 'rejectboth', 'pass'];

/** Every rule of a file in order; what is no rule is a finding with its line. Never throws. */
export const parseRules = (
  file: string,
  text: string,
): { readonly rules: readonly Rule[]; readonly findings: readonly ContentFinding[] } => {
  const rules: Rule[] = [];
  const findings: ContentFinding[] = [];
  for (const { line, text: joined } of logicalLines(text)) {
    const parsed = parseRule(joined);
    if (typeof parsed === 'string') findings.push({ code: 'rule-syntax', message: parsed, file, line });
    else rules.push({ ...parsed, file, line, text: joined });
  }
  return { rules, findings };
};

/** One finding for each signature id that is used again: an engine keeps one of the two and says nothing. */
export const findDuplicateIds = (rules: readonly Rule[]): ContentFinding[] => {
  const first = new Map<number, Rule>();
  const findings: ContentFinding[] = [];
  for (const rule of rules) {
    const known = first.get(rule.signatureId);
    if (known === undefined) first.set(rule.signatureId, rule);
    else {
      const message = `signature id ${rule.signatureId} is used again: first in ${known.file}:${known.line}`;
      findings.push({ code: 'duplicate-id', message, file: rule.file, line: rule.line });
    }
  }
  return findings;
};

/** Rules with their first line; a backslash at the end of a line continues it; comments and empty lines are left out. */
const logicalLines = (text: string): { readonly line: number; readonly text: string }[] => {
  const found: { line: number; text: string }[] = [];
  let open: { line: number; text: string } | null = null;
  text.split(/\r?\n/).forEach((raw, index) => {
    const trimmed = raw.trim();
    if (open === null && (trimmed === '' || trimmed.startsWith('#'))) return;
    const continues = trimmed.endsWith('\\');
    const part = continues ? trimmed.slice(0, -1).trim() : trimmed;
    open = open === null ? { line: index + 1, text: part } : { ...open, text: `${open.text} ${part}` };
    if (continues) return;
    found.push(open);
    open = null;
  });
  if (open !== null) found.push(open);
  return found;
};

type Parsed = Omit<Rule, 'file' | 'line' | 'text'>;

/** The rule, or what is wrong with it. */
const parseRule = (text: string): Parsed | string => {
  const start = text.indexOf('(');
  if (start < 0) return 'no "(": expected action, header and options in parentheses';
  if (!text.endsWith(')')) return 'no ")" at the end of the rule';
  const header = text.slice(0, start).trim().split(/\s+/);
  const [action = '', protocol = ''] = header;
  if (!actions.includes(action)) return `unknown action "${action}"; expected one of ${actions.join(', ')}`;
  // Lists in brackets may have spaces after their commas.
  const fields = text.slice(0, start).replace(/,\s+/g, ',').trim().split(/\s+/);
  if (fields.length !== 7 || !['->', '<>', '=>'].includes(fields[4] ?? '')) {
    return `the header has ${fields.length} fields; expected action, protocol, source, port, direction, destination, port`;
  }
  const options = splitOptions(text.slice(start + 1, -1));
  if (typeof options === 'string') return options;
  const optionValue = (name: string) => options.find((option) => option.name === name)?.value;
  const signatureId = wholeNumber(optionValue('sid'));
  if (signatureId === null)
    return `no usable signature id: sid is ${optionValue('sid') ?? 'missing'}, expected a whole number from 1`;
  if (options.filter((option) => option.name === 'sid').length > 1) return 'two signature ids in one rule';
  const revision = optionValue('rev') === undefined ? 1 : wholeNumber(optionValue('rev'));
  if (revision === null) return `rev is ${optionValue('rev')}, expected a whole number from 1`;
  const message = optionValue('msg');
  if (message === undefined || !/^".*"$/s.test(message)) return 'no message: expected msg:"...";';
  return {
    ...{ signatureId, revision, action, protocol },
    message: message.slice(1, -1).replace(/\\([";\\:])/g, '$1'),
    keywords: options.map((option) => option.name).filter((name) => !['sid', 'rev', 'msg'].includes(name)),
  };
};

const wholeNumber = (value: string | undefined): number | null => {
  const number = /^\d{1,10}$/.test(value ?? '') ? Number(value) : 0;
  return number >= 1 && number <= 0xffff_ffff ? number : null;
};

/** `name:value;` pairs; a semicolon inside quotes or after a backslash does not end one. */
const splitOptions = (text: string): { readonly name: string; readonly value?: string }[] | string => {
  const found: { name: string; value?: string }[] = [];
  let current = '';
  let quoted = false;
  for (let i = 0; i < text.length; i += 1) {
    const character = text.charAt(i);
    if (character === '\\') {
      current += character + text.charAt(i + 1);
      i += 1;
    } else if (character === ';' && !quoted) {
      const option = /^\s*([\w.-]+)\s*(?::(.*))?$/s.exec(current);
      if (!option?.[1]) return `"${current.trim()}" is no option; expected name; or name:value;`;
      const value = option[2]?.trim();
      found.push(value === undefined ? { name: option[1] } : { name: option[1], value });
      current = '';
    } else {
      if (character === '"') quoted = !quoted;
      current += character;
    }
  }
  if (quoted) return 'a quote is not closed';
  if (current.trim() !== '') return `"${current.trim()}" is not ended by a semicolon`;
  return found;
};
