/** The languages of content: one entry for each, with everything that differs between them. */
import { SigrelError } from '../errors.ts';
import type { Mode } from '../release.ts';
import { clamavArtefact, parseClamavArtefact, parseClamavFile, wrapClamavFile } from './clamav.ts';
import type { ParsedRules, Rule } from './rules.ts';
import { parseRules, suricataArtefact } from './suricata.ts';
import { closureOf, parseYara, yaraArtefact } from './yara.ts';

export type LanguageName = 'suricata' | 'yara' | 'clamav';

export type Language = {
  readonly name: LanguageName;
  /** Names of the engines that load it, as in `EngineBuild.name`. */
  readonly engines: readonly string[];
  /** Endings of the files that hold rules, without a dot. */
  readonly endings: readonly string[];
  readonly modes: readonly Mode[];
  /** What its engines look at: packet captures or files. */
  readonly looksAt: 'captures' | 'files';
  /** One faulty rule refuses every rule beside it, so that known-bad needs a run of its own. */
  readonly allOrNothing: boolean;
  /** Rules of one file, by its name's ending. Never throws: what is no rule is a finding with its line. */
  readonly parse: (file: string, text: string) => ParsedRules;
  /** Rules of `part` with everything of `rules` without which an engine does not take them, in the order of `rules`. */
  readonly closure: (rules: readonly Rule[], part: readonly Rule[]) => readonly Rule[];
  /** The bytes that go to devices and engines: the same rules give the same bytes. Rules that others need stand before them. */
  readonly artefact: (rules: readonly Rule[]) => Uint8Array;
  /** A rule file as somebody wrote it, readable or not, in the form of an artefact. */
  readonly wrap: (file: string, bytes: Uint8Array) => Uint8Array;
  /** The rules of an artefact. */
  readonly parseArtefact: (bytes: Uint8Array) => ParsedRules;
};

const decode = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

export const languages: readonly Language[] = [
  {
    name: 'suricata',
    engines: ['suricata'],
    endings: ['rules'],
    modes: ['ids', 'ips'],
    looksAt: 'captures',
    allOrNothing: false,
    parse: parseRules,
    closure: (_rules, part) => part,
    artefact: suricataArtefact,
    wrap: (_file, bytes) => bytes,
    parseArtefact: (bytes) => parseRules('content.rules', decode(bytes)),
  },
  {
    name: 'yara',
    engines: ['yara', 'yara-x'],
    endings: ['yar', 'yara'],
    modes: ['scan'],
    looksAt: 'files',
    allOrNothing: true,
    parse: parseYara,
    closure: closureOf,
    artefact: yaraArtefact,
    wrap: (_file, bytes) => bytes,
    parseArtefact: (bytes) => parseYara('content.yar', decode(bytes)),
  },
  {
    name: 'clamav',
    engines: ['clamav'],
    endings: ['ndb', 'ldb', 'hdb', 'hsb', 'mdb', 'fp'],
    modes: ['scan'],
    looksAt: 'files',
    allOrNothing: true,
    parse: parseClamavFile,
    closure: (_rules, part) => part,
    artefact: clamavArtefact,
    wrap: wrapClamavFile,
    parseArtefact: parseClamavArtefact,
  },
];

export const languageNames = languages.map(({ name }) => name);

/** undefined: there is no such language. */
export const findLanguage = (name: unknown): Language | undefined =>
  languages.find((language) => language.name === name);

/** The language that an engine loads. Throws SRP_MISSING_LANGUAGE. */
export const languageOf = (engineName: string): Language => {
  const found = languages.find((language) => language.engines.includes(engineName));
  if (found) return found;
  const known = languages.flatMap(({ engines }) => engines).join(', ');
  throw new SigrelError(
    'SRP_MISSING_LANGUAGE',
    `no language is known for the engine "${engineName}"; known are ${known}`,
  );
};
