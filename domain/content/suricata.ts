/** Our own reading of Suricata rules. */
import type { ContentFinding, ParsedRules, Rule } from './rules.ts';

/** An engine reads rules into a line of this many bytes; the rest of a longer one counts as a second, broken rule. */
const longestRuleBytes = 8191;

const actions = ['alert', 'drop', 'reject', 'rejectsrc', 'rejectdst', 'rejectboth', 'pass'];

/** Every rule of a file in order; what is no rule is a finding with its line. Never throws. */
export const parseRules = (file: string, text: string): ParsedRules => {
  const rules: Rule[] = [];
  const findings: ContentFinding[] = [];
  for (const { line, text: joined } of logicalLines(text)) {
    const parsed = parseRule(joined);
    if (typeof parsed === 'string') findings.push({ code: 'rule-syntax', message: parsed, file, line });
    else rules.push({ ...parsed, file, line, text: joined, needs: [] });
  }
  return { rules, findings };
};

/**
 * Rules with their first line; a backslash at the end of a line continues it, white space and all, since it may stand
 * inside quotes; comments and empty lines are left out.
 */
const logicalLines = (text: string): { readonly line: number; readonly text: string }[] => {
  const found: { line: number; text: string }[] = [];
  let open: { line: number; text: string } | null = null;
  text.split(/\r?\n/).forEach((raw, index) => {
    if (open === null && /^\s*(#|$)/.test(raw)) return;
    const trimmed = raw.trimEnd();
    const continues = trimmed.endsWith('\\');
    open ??= { line: index + 1, text: '' };
    open.text += continues ? trimmed.slice(0, -1) : trimmed;
    if (continues) return;
    found.push(open);
    open = null;
  });
  if (open !== null) found.push(open);
  return found.map(({ line, text }) => ({ line, text: text.trim() }));
};

type Parsed = Omit<Rule, 'file' | 'line' | 'text' | 'needs'>;

/** The rule, or what is wrong with it. */
const parseRule = (text: string): Parsed | string => {
  const size = new TextEncoder().encode(text).length;
  if (size > longestRuleBytes) return `the rule has ${size} bytes; engines read at most ${longestRuleBytes}`;
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
  const ruleId = wholeNumber(optionValue('sid'));
  if (ruleId === null)
    return `no usable signature id: sid is ${optionValue('sid') ?? 'missing'}, expected a whole number from 1`;
  if (options.filter((option) => option.name === 'sid').length > 1) return 'two signature ids in one rule';
  const revision = optionValue('rev') === undefined ? 1 : wholeNumber(optionValue('rev'));
  if (revision === null) return `rev is ${optionValue('rev')}, expected a whole number from 1`;
  const outside = options.map(pathOutside).find((fault) => fault !== null);
  if (outside) return outside;
  const message = optionValue('msg') ?? '""';
  if (!message.startsWith('"')) return `msg is ${message}, expected it in quotes`;
  return {
    ...{ ruleId, revision },
    message: message.slice(1, -1).replace(/\\([";\\:])/g, '$1'),
    features: [...new Set([action, protocol, ...options.map((option) => option.name)])]
      .filter((name) => !['sid', 'rev', 'msg'].includes(name))
      .sort(),
  };
};

const wholeNumber = (value: string | undefined): number | null => {
  const number = /^\d{1,10}$/.test(value ?? '') ? Number(value) : 0;
  return number >= 1 && number <= 0xffff_ffff ? number : null;
};

/**
 * A file that an option names outside of the engine's own folders, or null: on version 6 a rule writes and reads wherever its
 * user may. Rules that do not pass this reading (`engines try`) still reach the engine: nothing but that user's rights
 * keeps those in.
 */
const pathOutside = ({ name, value = '' }: Option): string | null => {
  const words = value.replace(/^!/, '').replaceAll('"', ' ').split(',');
  const named = /^data(?:set|rep)$/.test(name)
    ? words.flatMap((word) => /^\s*(?:state|save|load)\s+(.*)$/.exec(word)?.[1] ?? [])
    : /^(?:lua|luajit|luaxform|filemd5|filesha1|filesha256)$/.test(name)
      ? words.slice(0, 1)
      : [];
  const path = named.map((word) => word.trim()).find((word) => word.startsWith('/') || word.split('/').includes('..'));
  return path === undefined ? null : `${name} names ${path}; expected a path without .. that does not begin with /`;
};

/** Every rule on a line of its own, in order. */
export const suricataArtefact = (rules: readonly Rule[]): Uint8Array =>
  new TextEncoder().encode(rules.map((rule) => `${rule.text}\n`).join(''));

type Option = { readonly name: string; readonly value?: string };

/** `name;` or `name:value;`. As in the engines, a semicolon ends an option even inside quotes unless a backslash is before it. */
const splitOptions = (text: string): readonly Option[] | string => {
  const parts = text.split(/(?<!\\);/);
  const rest = parts.pop()?.trim() ?? '';
  const found: Option[] = [];
  for (const part of parts) {
    const [, name, written] = /^\s*([\w.-]+)\s*(?::(.*))?$/s.exec(part) ?? [];
    if (name === undefined) return `"${part.trim()}" is no option; expected name; or name:value;`;
    const value = written?.trim();
    const broken = value === undefined ? null : brokenQuotes(name, value);
    if (broken !== null) return broken;
    found.push(value === undefined ? { name } : { name, value });
  }
  return rest === '' ? found : `"${rest}" is not ended by a semicolon`;
};

/** What is wrong with a quoted value, or null. Only a regular expression may have bare quotes inside its own. */
const brokenQuotes = (name: string, value: string): string | null => {
  const quoted = /^!?\s*"(.*)$/s.exec(value)?.[1];
  if (quoted === undefined) return null;
  const rest = /^(?:[^"\\]|\\.)*"(.*)$/s.exec(quoted)?.[1];
  if (rest === undefined) return `a quote is not closed: ${name}:${value} (inside quotes a semicolon is written \\;)`;
  if (rest === '' || (name === 'pcre' && rest.endsWith('"'))) return null;
  return `${name}:${value} goes on after its closing quote (inside quotes a quote is written \\")`;
};
