/**
 * A family's source: `family.yaml`, `policy.yaml`, `support.yaml`, `rules/`, `vectors.yaml` with `vectors/`,
 * `differences.yaml`, `goodware/` and `controls/`. Reading it checks everything that can be known without an engine; every
 * finding names its place.
 */
import type { Mode, RuleId } from '../release.ts';
import type { Language } from './language.ts';
import type { ContentFinding, Rule } from './rules.ts';

export type SourceFile = { readonly path: string; readonly bytes: Uint8Array };

/** A capture or a file, and exactly the rules that alert on it. */
export type Vector = { readonly name: string; readonly bytes: Uint8Array; readonly mustMatch: readonly RuleId[] };

/** One way in which devices run an engine: the same rules load or not with a protocol switched on or off. */
export type Configuration = {
  readonly name: string;
  readonly mode: Mode;
  readonly protocols?: Readonly<Record<string, boolean>>;
};

/** A rule that behaves otherwise on some engines, known and accepted: `expect` is what happens there. */
export type Difference = {
  /** `yara@4.0.5`, or `yara-x@*` for every version. */
  readonly engines: readonly string[];
  readonly rule: RuleId;
  /** A vector, or an input that sigrel derives from one: `<vector>.half`, `empty`, `worst-60k`. */
  readonly vector: string;
  readonly expect: 'match' | 'silent';
  readonly reason: string;
};

/** A version does not lose its protection from one day to the next. */
export const leastNoticeDays = 30;
export const leastNoticeMs = leastNoticeDays * 24 * 3_600_000;

/** An engine version promised to customers, whether or not a device reports it. */
export type SupportedEngine = {
  /** `suricata@6.0.1` */
  readonly engine: string;
  /** ISO dates: after `endOfLife` nothing new is made for it, `notice` is when customers were told. */
  readonly endOfLife?: string;
  readonly notice?: string;
};

/**
 * How much slower or larger than the previous release a cell may be, as ratios; with `misfit: cut`, the share of the rules
 * that an engine may go without.
 */
export type Budgets = { readonly load: number; readonly memory: number; readonly scan: number; readonly cut: number };

export type Family = {
  readonly name: string;
  readonly language: Language;
  readonly configurations: readonly Configuration[];
  /** What becomes of a rule that an engine does not load: it stops the release, or that engine goes without it. */
  readonly misfit: 'block' | 'cut';
  /** false: rules without a vector are let through, and nothing proves that they detect. */
  readonly vectorsRequired: boolean;
  readonly budgets: Budgets;
  readonly rules: readonly Rule[];
  readonly vectors: readonly Vector[];
  readonly differences: readonly Difference[];
  /** Files or captures of the family's own that no rule may alert on. */
  readonly goodware: readonly { readonly name: string; readonly bytes: Uint8Array }[];
  readonly support: readonly SupportedEngine[];
  /**
   * Rules that every engine must accept, refuse and pass over, and what the good ones find in the control input. A rule
   * to be passed over may also be refused: an engine that does not know the condition cannot skip by it.
   */
  readonly controls: {
    readonly good: readonly Rule[];
    readonly bad: readonly Rule[];
    readonly skip: readonly Rule[];
    readonly input: Uint8Array;
  };
  /** As written; validated by events/policy-schema. */
  readonly policy: unknown;
};

export type ReadFamily =
  | { readonly ok: true; readonly family: Family }
  | { readonly ok: false; readonly findings: readonly ContentFinding[] };

export const limits = { fileBytes: 4 * 2 ** 20, totalBytes: 64 * 2 ** 20, files: 5_000 } as const;

/** A YAML text as data, and the line of each value in it (by path; undefined when it is not there). */
export type ParsedYaml = {
  readonly value: unknown;
  readonly lineOf: (path: readonly (string | number)[]) => number | undefined;
};

export type Find = (code: string, file: string, message: string, line?: number) => void;
