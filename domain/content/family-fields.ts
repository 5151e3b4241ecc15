/** The YAML files of a family, field by field: what is unknown, missing or contradicts the rules is a finding with its line. */
import type { Mode, RuleId } from '../release.ts';
import { captureAddresses, noPackets } from './addresses.ts';
import {
  type Budgets,
  type Configuration,
  type Difference,
  type Find,
  leastNoticeDays,
  leastNoticeMs,
  type ParsedYaml,
  type SupportedEngine,
  type Vector,
} from './family.ts';
import { findLanguage, type Language, type LanguageName, languageNames } from './language.ts';
import type { Rule } from './rules.ts';

type Head = {
  readonly name: string;
  readonly language: LanguageName;
  readonly configurations: readonly Configuration[];
  readonly misfit: 'block' | 'cut';
  readonly vectorsRequired: boolean;
  readonly budgets: Budgets;
};

/** Twice the time and half as much memory again is more than noise; family.yaml may say otherwise. */
const defaultBudgets: Budgets = { load: 2, memory: 1.5, scan: 2, cut: 0.5 };

const headFields = ['name', 'engine', 'modes', 'configurations', 'misfit', 'vectors', 'budgets', 'base'];

/** `family.yaml`; null when it cannot be used. */
export const readHead = (yaml: ParsedYaml | null, find: Find): Head | null => {
  if (yaml === null) return null;
  const path = 'family.yaml';
  const { value } = yaml;
  if (!isRecord(value)) {
    find('family', path, 'expected fields name, engine and modes', 1);
    return null;
  }
  let usable = true;
  const wrong = (field: string, message: string, code = 'family') => {
    usable = false;
    find(code, path, message, yaml.lineOf([field]) ?? 1);
  };
  for (const field of Object.keys(value)) {
    if (!headFields.includes(field))
      wrong(field, `unknown field ${field}; known are ${headFields.join(', ')}`, 'unknown-field');
  }
  const { name, engine, modes, configurations, misfit = 'block', vectors = 'required', budgets = {}, base } = value;
  if (typeof name !== 'string' || !/^[a-z][a-z0-9-]{0,30}$/.test(name)) {
    wrong('name', `name is ${JSON.stringify(name)}, expected lower-case letters, digits and dashes`);
  }
  if (base !== undefined && typeof base !== 'string') {
    wrong('base', `base is ${JSON.stringify(base)}, expected the path of a folder, relative to this one`);
  }
  const language = findLanguage(engine);
  if (!language) {
    const expected = languageNames.join(', ');
    wrong('engine', `engine is ${JSON.stringify(engine)}, expected one of ${expected}`, 'unknown-engine');
  }
  if (misfit !== 'block' && misfit !== 'cut')
    wrong('misfit', `misfit is ${JSON.stringify(misfit)}, expected block or cut`);
  if (vectors !== 'required' && vectors !== 'optional')
    wrong('vectors', `vectors is ${JSON.stringify(vectors)}, expected required or optional`);
  const ratios = isRecord(budgets) ? Object.entries(budgets) : [['budgets', budgets] as const];
  for (const [field, ratio] of ratios) {
    const number = typeof ratio === 'number' && Number.isFinite(ratio) ? ratio : -1;
    const right = field === 'cut' ? number >= 0 && number < 1 : number >= 1;
    if (right && Object.hasOwn(defaultBudgets, field)) continue;
    const expected = 'load, memory or scan with a ratio from 1, or cut with a share below 1';
    wrong('budgets', `budgets.${field} is ${String(ratio)}, expected ${expected}`);
  }
  const found = language ? readConfigurations(language, modes, configurations, wrong) : [];
  if (!usable || !language || typeof name !== 'string') return null;
  return {
    ...{ name, language: language.name, configurations: found },
    misfit: misfit === 'cut' ? 'cut' : 'block',
    vectorsRequired: vectors === 'required',
    budgets: { ...defaultBudgets, ...(isRecord(budgets) ? budgets : {}) },
  };
};

/** `modes: [ids]` is short for a configuration of that name without switches. */
const readConfigurations = (
  language: Language,
  modes: unknown,
  written: unknown,
  wrong: (field: string, message: string) => void,
): readonly Configuration[] => {
  const known = language.modes.join(' and ');
  const isMode = (mode: unknown): mode is Mode => language.modes.some((one) => one === mode);
  const found: Configuration[] = [];
  if (Array.isArray(modes) && modes.length > 0 && modes.every(isMode)) {
    found.push(...[...new Set(modes)].map((mode) => ({ name: mode, mode })));
  } else if (modes !== undefined || written === undefined) {
    wrong('modes', `modes is ${JSON.stringify(modes)}, expected a list of ${known}`);
  }
  if (written === undefined) return found;
  if (!Array.isArray(written)) {
    wrong('configurations', 'configurations: expected a list of { name, mode, protocols }');
    return found;
  }
  for (const one of written) {
    const { name, mode, protocols = {}, ...unknown } = isRecord(one) ? one : {};
    const switches = isRecord(protocols) && Object.values(protocols).every((on) => typeof on === 'boolean');
    const free = !found.some((other) => other.name === name);
    const named = typeof name === 'string' && /^[a-z][a-z0-9-]{0,30}$/.test(name) && free;
    if (!named || !isMode(mode) || !switches || Object.keys(unknown).length > 0) {
      const expected = `{ name: a new name of lower-case letters, mode: ${known}, protocols: { modbus: true } }`;
      wrong('configurations', `configuration ${JSON.stringify(one)}; expected ${expected}`);
      continue;
    }
    found.push({ name, mode, protocols: protocols as Readonly<Record<string, boolean>> });
  }
  return found;
};

type VectorSource = { readonly path: string; readonly yaml: ParsedYaml | null };

type VectorContext = {
  readonly files: ReadonlyMap<string, Uint8Array>;
  readonly rules: readonly Rule[];
  readonly language: Language;
  /** A rule without a vector is a finding. */
  readonly needed: boolean;
};

/** The vectors of all files; every rule must have one that it matches, where vectors are needed. */
export const readVectors = (
  sources: readonly VectorSource[],
  context: VectorContext,
  find: Find,
): readonly Vector[] => {
  const { files, rules, language } = context;
  const captures = language.looksAt === 'captures';
  const ids = new Set<RuleId>(rules.map((rule) => rule.ruleId));
  const owners = new Map<string, string>();
  const vectors: Vector[] = [];
  const used = new Set<string>();
  let readable = true;
  for (const { path, yaml } of sources) {
    if (yaml === null) readable = false;
    if (yaml === null || yaml.value === null) continue;
    if (!Array.isArray(yaml.value)) {
      find('vectors', path, `expected a list of vectors with name, ${captures ? 'capture' : 'file'} and mustMatch`, 1);
      readable = false;
      continue;
    }
    for (const [index, item] of yaml.value.entries()) {
      const line = yaml.lineOf([index]);
      const where = `vector ${index + 1}`;
      const { name, capture, file, text, mustMatch, ...unknown } = isRecord(item) ? item : {};
      for (const field of Object.keys(unknown)) find('unknown-field', path, `${where}: unknown field ${field}`, line);
      const free = !vectors.some((vector) => vector.name === name);
      if (typeof name !== 'string' || !/^\w[\w.-]*$/.test(name) || !free || isReserved(name)) {
        const expected =
          'letters, digits, dash, dot, each once, and no name that sigrel gives (empty, x.half, worst-, good., goodware_, control, load-only)';
        find('vectors', path, `${where}: name is ${JSON.stringify(name)}, expected ${expected}`, line);
        continue;
      }
      const given = captures ? capture : file;
      const kind = captures ? 'capture' : 'file';
      const place = `vectors/${String(given)}`;
      const inline = !captures && typeof text === 'string' && file === undefined;
      const bytes = inline ? new TextEncoder().encode(String(text)) : files.get(place);
      if (bytes === undefined) {
        find('vectors', path, `vector ${name}: ${kind} ${place} is missing`, line);
        continue;
      }
      if (!inline) used.add(place);
      const right = (id: unknown): id is RuleId => (captures ? Number.isSafeInteger(id) : typeof id === 'string');
      if (!Array.isArray(mustMatch) || !mustMatch.every(right)) {
        const written = mustMatch === undefined ? 'missing' : JSON.stringify(mustMatch);
        const expected = `a list of ${captures ? 'signature ids' : 'rule names'}, empty for none`;
        find('vectors', path, `vector ${name}: mustMatch is ${written}, expected ${expected}`, line);
        continue;
      }
      for (const id of mustMatch) {
        if (ids.has(id)) continue;
        const what = captures ? 'signature id' : 'the name';
        find('unknown-rule', path, `vector ${name}: no rule has ${what} ${id}`, line);
      }
      if (captures) checkAddresses(name, bytes, { place, path, line, owners }, find);
      vectors.push({ name, bytes, mustMatch });
    }
  }
  if (sources.length > 0 && readable) {
    for (const file of files.keys()) {
      if (!file.startsWith('vectors/') || file.endsWith('.md') || used.has(file)) continue;
      find('unused-vector', file, `no vector uses ${file}, so nothing is tested with it`);
    }
  }
  const covered = new Set(vectors.flatMap((vector) => vector.mustMatch));
  for (const rule of context.needed && readable && sources.length > 0 ? rules : []) {
    // A private rule never alerts by itself: the rules that refer to it prove it.
    if (covered.has(rule.ruleId) || rule.features.includes('private')) continue;
    // An exception of ClamAV matches by keeping others silent, and is never told.
    if (rule.file.endsWith('.fp')) continue;
    // A rule that nothing proves to match could be refused or dead, and the matrix would stay green.
    find('no-vector', rule.file, `rule ${rule.ruleId} has no vector that it must match`, rule.line);
  }
  return vectors;
};

/** Names of the inputs that the matrix adds by itself (domain/matrix/probes.ts). */
const isDerived = (name: string): boolean => /^(empty|worst-.*|.*\.half)$/.test(name);

/** Names of what stands beside vectors in a run. */
const isReserved = (name: string): boolean =>
  isDerived(name) || /^(control|load-only|good\..*|goodware_.*)$/.test(name);

const checkAddresses = (
  name: string,
  bytes: Uint8Array,
  at: { place: string; path: string; line: number | undefined; owners: Map<string, string> },
  find: Find,
): void => {
  const addresses = captureAddresses(bytes);
  if (addresses.size === 0) find('vectors', at.place, noPackets);
  for (const address of addresses) {
    const owner = at.owners.get(address);
    if (owner !== undefined) {
      const message = `vector ${name}: address ${address} is also in vector ${owner}; each vector needs addresses of its own`;
      find('vectors', at.path, message, at.line);
    }
    at.owners.set(address, name);
  }
};

const isEngine = (value: unknown, language: Language, version: RegExp): value is string =>
  typeof value === 'string' &&
  language.engines.includes(value.slice(0, value.lastIndexOf('@'))) &&
  version.test(value.slice(value.lastIndexOf('@') + 1));

/** `differences.yaml`: a list of { engines, rule, vector, expect, reason }. */
export const readDifferences = (
  yaml: ParsedYaml | null,
  context: { readonly vectors: readonly Vector[]; readonly rules: readonly Rule[]; readonly language: Language },
  find: Find,
): readonly Difference[] =>
  listOf(yaml, 'differences.yaml', find).flatMap(({ item, line }) => {
    const wrong = (message: string): [] => {
      find('differences', 'differences.yaml', message, line);
      return [];
    };
    const { engines, rule, vector, expect, reason, ...unknown } = item;
    const [extra] = Object.keys(unknown);
    if (extra !== undefined) return wrong(`unknown field ${extra}; known are engines, rule, vector, expect, reason`);
    const { language, rules, vectors } = context;
    const example = `${language.engines[0]}@1.2.3`;
    if (!Array.isArray(engines) || !engines.every((one) => isEngine(one, language, /^(\*|[\w.+~-]+)$/)))
      return wrong(`engines is ${JSON.stringify(engines)}, expected a list such as [${example}]`);
    const known = rules.find((one) => one.ruleId === rule);
    if (!known) return wrong(`no rule is called ${JSON.stringify(rule)}`);
    const named = typeof vector === 'string' && (isDerived(vector) || vectors.some((one) => one.name === vector));
    if (!named) return wrong(`no vector is called ${JSON.stringify(vector)}`);
    if (expect !== 'match' && expect !== 'silent')
      return wrong(`expect is ${JSON.stringify(expect)}, expected match or silent`);
    if (typeof reason !== 'string' || reason.trim() === '')
      return wrong(`a difference is accepted for a reason: reason is ${JSON.stringify(reason)}`);
    return [{ engines, rule: known.ruleId, vector, expect, reason }];
  });

/** `support.yaml`: a list of { engine, endOfLife, notice }, each engine once. */
export const readSupport = (yaml: ParsedYaml | null, language: Language, find: Find): readonly SupportedEngine[] => {
  const seen = new Set<unknown>();
  return listOf(yaml, 'support.yaml', find).flatMap(({ item, line }) => {
    const wrong = (message: string): [] => {
      find('support', 'support.yaml', message, line);
      return [];
    };
    const { engine, endOfLife, notice, ...unknown } = item;
    const [extra] = Object.keys(unknown);
    if (extra !== undefined) return wrong(`unknown field ${extra}; known are engine, endOfLife, notice`);
    if (!isEngine(engine, language, /^[\w.+~-]+$/))
      return wrong(`engine is ${JSON.stringify(engine)}, expected e.g. ${language.engines[0]}@1.2.3`);
    if (seen.has(engine)) return wrong(`${engine} is there twice: expected each engine once`);
    seen.add(engine);
    for (const [field, date] of Object.entries({ endOfLife, notice })) {
      if (date !== undefined && !isDate(date))
        return wrong(`${field} is ${JSON.stringify(date)}, expected a date such as 2027-03-31`);
    }
    if (endOfLife !== undefined && (notice === undefined || String(notice) >= String(endOfLife)))
      return wrong(`${engine} ends on ${endOfLife}: expected notice, an earlier date on which customers are told`);
    if (endOfLife !== undefined && Date.parse(String(endOfLife)) - Date.parse(String(notice)) < leastNoticeMs)
      return wrong(
        `${engine} ends on ${endOfLife}, told on ${notice}: expected a notice of at least ${leastNoticeDays} days`,
      );
    const dates = {
      ...(typeof endOfLife === 'string' ? { endOfLife } : {}),
      ...(typeof notice === 'string' ? { notice } : {}),
    };
    return [{ engine, ...dates }];
  });
};

/** A day that the calendar has. */
const isDate = (value: unknown): boolean => {
  if (typeof value !== 'string' || !/^\d{4}-\d{2}-\d{2}$/.test(value)) return false;
  const time = Date.parse(value);
  return Number.isFinite(time) && new Date(time).toISOString().startsWith(value);
};

const listOf = (
  yaml: ParsedYaml | null,
  path: string,
  find: Find,
): readonly { readonly item: Readonly<Record<string, unknown>>; readonly line: number | undefined }[] => {
  if (yaml === null || yaml.value === null) return [];
  const { value } = yaml;
  if (!Array.isArray(value) || !value.every(isRecord)) {
    find('yaml', path, 'expected a list of entries, each with named fields', 1);
    return [];
  }
  return value.map((item, index) => ({ item, line: yaml.lineOf([index]) }));
};

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
