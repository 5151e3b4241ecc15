/**
 * A family's source: `family.yaml`, `policy.yaml`, `rules/*.rules`, `vectors.yaml` with `vectors/*.pcap`, `controls/`.
 * Reading it checks everything that can be known without an engine; every finding names its place.
 */
import { captureAddresses } from './addresses.ts';
import { type ContentFinding, findDuplicateIds, parseRules, type Rule } from './rules.ts';

export type SourceFile = { readonly path: string; readonly bytes: Uint8Array };

/** A capture and exactly the signatures that alert on it. */
export type Vector = { readonly name: string; readonly capture: Uint8Array; readonly mustMatch: readonly number[] };

export type Family = {
  readonly name: string;
  readonly modes: readonly ('ids' | 'ips')[];
  readonly rules: readonly Rule[];
  readonly vectors: readonly Vector[];
  /** Rules that every engine must accept and refuse, and what the good ones find in the control capture. */
  readonly controls: {
    readonly good: readonly Rule[];
    readonly bad: readonly Rule[];
    readonly capture: Uint8Array;
    readonly mustMatch: readonly number[];
  };
  /** As written; validated by events/policy-schema. */
  readonly policy: unknown;
};

export type ReadFamily =
  | { readonly ok: true; readonly family: Family }
  | { readonly ok: false; readonly findings: readonly ContentFinding[] };

export const limits = { fileBytes: 4 * 2 ** 20, totalBytes: 64 * 2 ** 20, files: 5_000 } as const;

/** `parseYaml` throws on what is no YAML. */
export const readFamily = (files: readonly SourceFile[], parseYaml: (text: string) => unknown): ReadFamily => {
  const findings: ContentFinding[] = [];
  const find = (code: string, file: string, message: string, line?: number) =>
    findings.push({ code, message, file, ...(line === undefined ? {} : { line }) });
  const byPath = new Map(files.map((file) => [file.path, file.bytes]));
  const text = (path: string): string | null => {
    const bytes = byPath.get(path);
    if (bytes === undefined) return null;
    try {
      return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    } catch {
      // Decoded anyway, the rule that goes to the engine would not be the one that was written.
      find('encoding', path, 'is no UTF-8 text; in a rule, write such bytes in hexadecimal: content:"|e9|"');
      return null;
    }
  };
  const yaml = (path: string, required: boolean): unknown => {
    if (required && !byPath.has(path)) find('missing-file', path, `${path} is missing`);
    const source = text(path);
    if (source === null) return null;
    try {
      return parseYaml(source) ?? {};
    } catch (error) {
      find(
        'yaml',
        path,
        `no valid YAML: ${error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error)}`,
      );
      return null;
    }
  };
  const rulesIn = (path: string): readonly Rule[] => {
    const parsed = parseRules(path, text(path) ?? '');
    findings.push(...parsed.findings);
    return parsed.rules;
  };

  if (files.length === 0)
    find('empty', '.', 'the content is empty: expected family.yaml, rules/, vectors.yaml, vectors/, controls/');
  checkSizes(files, find);
  checkPlaces(files, find);
  const head = readHead(yaml('family.yaml', files.length > 0), find);
  const policy = yaml('policy.yaml', false) ?? {};
  const rules = [...byPath.keys()]
    .filter((path) => /^rules\/[^/]+\.rules$/.test(path))
    .sort()
    .flatMap(rulesIn);
  if (rules.length === 0 && files.length > 0 && findings.length === 0)
    find('no-rules', 'rules/', 'there is no rule in rules/*.rules');
  findings.push(...findDuplicateIds(rules));

  const vectors = readVectors(yaml('vectors.yaml', files.length > 0), byPath, rules, find);
  const good = rulesIn('controls/known-good.rules');
  const bad = rulesIn('controls/known-bad.rules');
  const controlCapture = byPath.get('controls/control.pcap');
  if (files.length > 0) {
    if (good.length === 0)
      find('controls', 'controls/known-good.rules', 'expected at least one rule that every engine accepts');
    if (bad.length === 0)
      find('controls', 'controls/known-bad.rules', 'expected at least one rule that every engine refuses');
    if (controlCapture === undefined)
      find('controls', 'controls/control.pcap', 'the capture on which the known-good rules alert is missing');
    else if (captureAddresses(controlCapture).size === 0) find('controls', 'controls/control.pcap', noPackets);
  }
  findings.push(...findDuplicateIds([...good, ...bad]));
  if (findings.length > 0 || head === null || controlCapture === undefined) return { ok: false, findings };
  const controls = { good, bad, capture: controlCapture, mustMatch: good.map((rule) => rule.signatureId) };
  return { ok: true, family: { ...head, rules, vectors, controls, policy } };
};

/** The bytes that go to an engine: every rule on a line of its own, in order. */
export const rulesText = (rules: readonly Rule[]): string => rules.map((rule) => `${rule.text}\n`).join('');

type Find = (code: string, file: string, message: string, line?: number) => void;

const checkSizes = (files: readonly SourceFile[], find: Find): void => {
  let total = 0;
  for (const { path, bytes } of files) {
    total += bytes.length;
    if (bytes.length > limits.fileBytes) {
      find('too-large', path, `${bytes.length} bytes, expected at most ${limits.fileBytes} in one file`);
    }
  }
  if (total > limits.totalBytes) find('too-large', '.', `${total} bytes in all, expected at most ${limits.totalBytes}`);
  if (files.length > limits.files) find('too-large', '.', `${files.length} files, expected at most ${limits.files}`);
};

/** A file that nothing reads is a rule or a vector that somebody believes in and nobody tests. */
const checkPlaces = (files: readonly SourceFile[], find: Find): void => {
  for (const { path } of files) {
    if (places.some((place) => place.test(path))) continue;
    find('unknown-file', path, `nothing reads ${path}; expected rules in rules/*.rules, captures in vectors/*.pcap`);
  }
};

const places = [
  /^(family|policy|vectors)\.yaml$/,
  /^rules\/[^/]+\.rules$/,
  /^vectors\/[^/]+\.pcap$/,
  /^controls\/(known-good\.rules|known-bad\.rules|control\.pcap)$/,
  /\.md$/,
];

const noPackets =
  'holds no IP packet: expected a classic pcap file of Ethernet frames; an engine would see nothing in it';

const readHead = (value: unknown, find: Find): Pick<Family, 'name' | 'modes'> | null => {
  if (value === null) return null;
  const path = 'family.yaml';
  if (!isRecord(value)) {
    find('family', path, 'expected fields name, engine and modes');
    return null;
  }
  const { name, engine, modes, base, ...unknown } = value;
  for (const field of Object.keys(unknown))
    find('unknown-field', path, `unknown field ${field}; known are name, engine, modes, base`);
  if (typeof name !== 'string' || !/^[a-z][a-z0-9-]{0,30}$/.test(name)) {
    find('family', path, `name is ${JSON.stringify(name)}, expected lower-case letters, digits and dashes`);
  }
  if (base !== undefined && typeof base !== 'string') {
    find('family', path, `base is ${JSON.stringify(base)}, expected the path of a folder, relative to this one`);
  }
  if (engine !== 'suricata') find('unknown-engine', path, `engine is ${JSON.stringify(engine)}, expected suricata`);
  const known = Array.isArray(modes) && modes.length > 0 && modes.every((mode) => mode === 'ids' || mode === 'ips');
  if (!known) find('family', path, `modes is ${JSON.stringify(modes)}, expected a list of ids and ips`);
  return known && typeof name === 'string' ? { name, modes: [...new Set(modes)] } : null;
};

const readVectors = (
  value: unknown,
  files: ReadonlyMap<string, Uint8Array>,
  rules: readonly Rule[],
  find: Find,
): readonly Vector[] => {
  const path = 'vectors.yaml';
  if (value === null) return [];
  if (!Array.isArray(value)) {
    find('vectors', path, 'expected a list of vectors with name, capture and mustMatch');
    return [];
  }
  const ids = new Set(rules.map((rule) => rule.signatureId));
  const owners = new Map<string, string>();
  const vectors: Vector[] = [];
  const used = new Set<string>();
  for (const [index, item] of value.entries()) {
    const where = `vector ${index + 1}`;
    const { name, capture, mustMatch, ...unknown } = isRecord(item) ? item : {};
    for (const field of Object.keys(unknown)) find('unknown-field', path, `${where}: unknown field ${field}`);
    if (typeof name !== 'string' || !/^[\w.-]+$/.test(name) || vectors.some((vector) => vector.name === name)) {
      find(
        'vectors',
        path,
        `${where}: name is ${JSON.stringify(name)}, expected letters, digits, dash, dot, and each once`,
      );
      continue;
    }
    const bytes = files.get(`vectors/${String(capture)}`);
    if (bytes === undefined) {
      find('vectors', path, `vector ${name}: capture vectors/${String(capture)} is missing`);
      continue;
    }
    used.add(`vectors/${String(capture)}`);
    if (!isNumbers(mustMatch)) {
      const given = mustMatch === undefined ? 'missing' : JSON.stringify(mustMatch);
      find('vectors', path, `vector ${name}: mustMatch is ${given}, expected a list of signature ids, empty for none`);
      continue;
    }
    for (const id of mustMatch) {
      if (!ids.has(id)) find('vectors', path, `vector ${name}: no rule has signature id ${id}`);
    }
    const addresses = captureAddresses(bytes);
    if (addresses.size === 0) find('vectors', `vectors/${String(capture)}`, noPackets);
    for (const address of addresses) {
      const owner = owners.get(address);
      if (owner !== undefined)
        find(
          'vectors',
          path,
          `vector ${name}: address ${address} is also in vector ${owner}; each vector needs addresses of its own`,
        );
      owners.set(address, name);
    }
    vectors.push({ name, capture: bytes, mustMatch });
  }
  for (const file of files.keys()) {
    if (file.startsWith('vectors/') && file.endsWith('.pcap') && !used.has(file)) {
      find('unused-capture', file, `no vector in ${path} uses ${file}, so nothing is tested with it`);
    }
  }
  const covered = new Set(vectors.flatMap((vector) => vector.mustMatch));
  for (const rule of rules) {
    if (covered.has(rule.signatureId)) continue;
    // A rule that nothing proves to match could be refused or dead, and the matrix would stay green.
    find('no-vector', rule.file, `rule ${rule.signatureId} has no vector that it must match`, rule.line);
  }
  return vectors;
};

const isNumbers = (value: unknown): value is readonly number[] =>
  Array.isArray(value) && value.every((one) => Number.isSafeInteger(one));

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
