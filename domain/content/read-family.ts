/** Reads a family: pure, from files in memory; the YAML reader is given. */
import { captureAddresses, noPackets } from './addresses.ts';
import { type Family, type Find, limits, type ParsedYaml, type ReadFamily, type SourceFile } from './family.ts';
import { readDifferences, readHead, readSupport, readVectors } from './family-fields.ts';
import { findLanguage, type Language, languages } from './language.ts';
import { type ContentFinding, findDuplicateIds, type Rule } from './rules.ts';

/** `parseYaml` throws on what is no YAML. */
export const readFamily = (files: readonly SourceFile[], parseYaml: (text: string) => ParsedYaml): ReadFamily => {
  const findings: ContentFinding[] = [];
  const find: Find = (code, file, message, line) =>
    findings.push({ code, message, file, ...(line === undefined ? {} : { line }) });
  const byPath = new Map(files.map((file) => [file.path, file.bytes]));
  const text = (path: string): string | null => {
    const bytes = byPath.get(path);
    if (bytes === undefined) return null;
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
      // Decoded anyway, the rule that goes to the engine would not be the one that was written.
      const message = 'is no UTF-8 text; in a rule, write such bytes in hexadecimal: content:"|e9|", { e9 }';
      find('encoding', path, message, firstBadLine(bytes));
      return null;
    }
  };
  const yaml = (path: string): ParsedYaml | null => {
    const source = text(path);
    if (source === null) return null;
    try {
      return parseYaml(source);
    } catch (error) {
      const words = error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error);
      find('yaml', path, `no valid YAML: ${words}`, Number(/at line (\d+)/.exec(words)?.[1] ?? 1));
      return null;
    }
  };
  if (files.length === 0)
    find('empty', '.', 'the content is empty: expected family.yaml, rules/, vectors.yaml, vectors/, controls/');
  checkSizes(files, find);
  if (files.length > 0 && !byPath.has('family.yaml')) find('missing-file', 'family.yaml', 'family.yaml is missing');
  const head = readHead(yaml('family.yaml'), find);
  // Without it nothing is known about the other files; any language serves to go on and find more.
  const language = findLanguage(head?.language) ?? (languages[0] as Language);
  checkPlaces(files, language, find);
  const policy = yaml('policy.yaml')?.value ?? {};
  const rulesIn = (path: string): readonly Rule[] => {
    if (byPath.get(path)?.length === 0)
      find('empty-file', path, 'is empty: expected at least one rule, or no such file', 1);
    const source = text(path) ?? '';
    const control = unprintable.exec(source);
    if (control) {
      const line = source.slice(0, control.index).split('\n').length;
      const message = 'holds bytes that are no text: engines read a line up to the first of them and lose the rest';
      find('binary', path, message, line);
      return [];
    }
    const parsed = language.parse(path, source);
    findings.push(...parsed.findings);
    return parsed.rules;
  };
  const rulePaths = [...byPath.keys()].filter((path) => rulePlace(language).test(path)).sort();
  const rules = rulePaths.flatMap(rulesIn);
  if (rules.length === 0 && files.length > 0 && findings.length === 0)
    find('no-rules', 'rules/', `there is no rule in rules/*.${language.endings[0]}`);
  findings.push(...findDuplicateIds(rules));

  const vectorFiles = [...byPath.keys()].filter((path) => vectorsPlace.test(path)).sort();
  const needed = head === null || head.vectorsRequired;
  if (files.length > 0 && vectorFiles.length === 0 && needed)
    find('missing-file', 'vectors.yaml', 'vectors.yaml is missing');
  const sources = vectorFiles.map((path) => ({ path, yaml: yaml(path) }));
  const vectors = readVectors(sources, { files: byPath, rules, language, needed }, find);
  const differences = readDifferences(yaml('differences.yaml'), { vectors, rules, language }, find);
  const support = readSupport(yaml('support.yaml'), language, find);
  const goodware = readGoodware(byPath, language, vectors, find);

  const controls = readControls(byPath, language, rulesIn, files.length > 0, find);
  findings.push(...findDuplicateIds([...controls.good, ...controls.bad, ...controls.skip]));
  if (findings.length > 0 || head === null || controls.input === null) return { ok: false, findings };
  const { language: _name, ...fields } = head;
  const { input } = controls;
  return {
    ok: true,
    family: {
      ...fields,
      ...{ language, rules, vectors, differences, goodware, support, policy },
      controls: { ...controls, input },
    },
  };
};

/** Control characters other than tab and the ends of lines. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const unprintable = /[\0-\x08\x0b\x0c\x0e-\x1f\x7f]/;

/** A file that is no text is named by the line of its first such byte. */
const firstBadLine = (bytes: Uint8Array): number => {
  let line = 1;
  let start = 0;
  for (let at = 0; at <= bytes.length; at += 1) {
    if (at < bytes.length && bytes[at] !== 0x0a) continue;
    try {
      new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(start, at));
    } catch {
      return line;
    }
    line += 1;
    start = at + 1;
  }
  return 1;
};

/** Files or captures of the family's own; an engine looks at all of them and at a vector in one run. */
const readGoodware = (
  files: ReadonlyMap<string, Uint8Array>,
  language: Language,
  vectors: Family['vectors'],
  find: Find,
): Family['goodware'] => {
  const captures = language.looksAt === 'captures';
  const names = new Map<string, string>();
  const owners = new Map<string, string>();
  const control = files.get('controls/control.pcap') ?? new Uint8Array();
  for (const { name, bytes } of captures ? [...vectors, { name: 'the control', bytes: control }] : [])
    for (const address of captureAddresses(bytes)) owners.set(address, name);
  return [...files].flatMap(([path, bytes]) => {
    if (!path.startsWith('goodware/')) return [];
    const name = path.replaceAll(/[^\w.-]/g, '_');
    const same = names.get(name);
    if (same !== undefined) find('goodware', path, `is called ${name} in a run, as ${same} is: give it another name`);
    names.set(name, path);
    const addresses = captures ? captureAddresses(bytes) : new Set<string>();
    if (captures && addresses.size === 0) find('goodware', path, noPackets);
    for (const address of addresses) {
      const owner = owners.get(address);
      // An alert is known by its addresses: one on this capture would be taken for the vector's own.
      if (owner !== undefined && owner !== path)
        find('goodware', path, `address ${address} is also in ${owner}: expected addresses of its own`);
      owners.set(address, path);
    }
    return [{ name, bytes }];
  });
};

const readControls = (
  files: ReadonlyMap<string, Uint8Array>,
  language: Language,
  rulesIn: (path: string) => readonly Rule[],
  demanded: boolean,
  find: Find,
): Omit<Family['controls'], 'input'> & { readonly input: Uint8Array | null } => {
  const [first = ''] = language.endings;
  const of = (name: string): readonly Rule[] => {
    const paths = language.endings.map((ending) => `controls/${name}.${ending}`).filter((path) => files.has(path));
    return paths.flatMap(rulesIn);
  };
  const captures = language.looksAt === 'captures';
  const inputPath = captures ? 'controls/control.pcap' : 'controls/control.bin';
  const input = files.get(inputPath) ?? null;
  const good = of('known-good');
  const bad = of('known-bad');
  if (demanded) {
    const rule = (name: string) => `controls/${name}.${first}`;
    if (good.length === 0) find('controls', rule('known-good'), 'expected at least one rule that every engine accepts');
    if (bad.length === 0) find('controls', rule('known-bad'), 'expected at least one rule that every engine refuses');
    if (input === null) {
      const what = captures ? 'capture' : 'file';
      find('controls', inputPath, `the ${what} on which the known-good rules alert is missing`);
    } else if (captures && captureAddresses(input).size === 0) find('controls', inputPath, noPackets);
  }
  return { good, bad, skip: of('must-skip'), input };
};

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
const checkPlaces = (files: readonly SourceFile[], language: Language, find: Find): void => {
  const captures = language.looksAt === 'captures';
  const control = new RegExp(
    `^controls/((known-good|known-bad|must-skip)\\.(${language.endings.join('|')})|control\\.${captures ? 'pcap' : 'bin'})$`,
  );
  const places = [
    ...[/^(family|policy|support|differences)\.yaml$/, vectorsPlace, rulePlace(language), control, /\.md$/],
    captures ? /^(vectors|goodware)\/[^/]+\.pcap$/ : /^(vectors|goodware)\/[^/]+$/,
  ];
  for (const { path } of files) {
    if (places.some((place) => place.test(path))) continue;
    const rules = `rules/*.${language.endings.join(', *.')}`;
    find('unknown-file', path, `nothing reads ${path}; expected rules in ${rules}, ${language.looksAt} in vectors/`);
  }
};

/** `vectors.yaml`, and further ones beside it such as those of a base. */
const vectorsPlace = /^vectors(-[\w-]+)?\.yaml$/;

const rulePlace = (language: Language): RegExp => new RegExp(`^rules/(.+/)?[^/]+\\.(${language.endings.join('|')})$`);
