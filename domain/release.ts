/**
 * The vocabulary of the product.
 *
 * - release:   one version of a family's content on its way to the fleet; a stream of events and one Temporal workflow
 * - family:    content of one kind for one kind of engine (`ips`)
 * - engine:    a build of a detection engine: package name, full version and digest, not what it prints about itself
 * - cell:      engine x product mode; what the matrix tests and what fails or passes
 * - segment:   devices that the judge compares with each other: engine x fail mode
 * - stage:     a step of the rollout with a threshold per segment
 * - exposure:  the thresholds in force: a device is in when its bucket is below the threshold of its segment
 * - lease:     the director document's short expiry; nothing renews it without fresh evidence
 * - hold:      enrolment stops, measuring goes on; a person or the evidence clears it
 * - halt:      final for the release; the previous content goes out again under a new version
 */

/** A rule's name in its language: the signature id of Suricata, the name of a YARA rule or a ClamAV signature. */
export type RuleId = number | string;

/** For sorting: numbers by value, names by code units. */
export const compareRuleIds = (a: RuleId, b: RuleId): number =>
  typeof a === 'number' && typeof b === 'number' ? a - b : String(a) < String(b) ? -1 : String(a) > String(b) ? 1 : 0;

/** How content is run: passively, as if inline, or over files. */
export type Mode = 'ids' | 'ips' | 'scan';

export type FailMode = 'fail-open' | 'fail-closed';

/** Identity of an engine build. `id` is derived by `engineId` and safe in paths, keys and file names. */
export type EngineBuild = {
  readonly name: string;
  /** What the engine calls itself, for people: two builds may print the same. */
  readonly version: string;
  readonly packageVersion: string;
  /** SHA-256 (hex) of the unpacked pack. */
  readonly digest: string;
};

export type EngineId = string;
export type SegmentKey = string;

/** `suricata-6.0.1-3f2a9c01`: readable, and different for two builds that print the same version. */
export const engineId = (build: EngineBuild): EngineId => `${build.name}-${build.version}-${build.digest.slice(0, 8)}`;

/** One key per segment; `/` cannot occur in either part. */
export const segmentKey = (engine: EngineId, failMode: FailMode): SegmentKey => `${engine}/${failMode}`;

/** The engine of a segment's devices. */
export const engineOf = (segment: SegmentKey): EngineId => segment.slice(0, segment.lastIndexOf('/'));

/** Where an artefact is and what it must be, as both the content role and the director name it. */
export type Artefact = {
  readonly engine: EngineId;
  /** TUF target path, as `artefactPath` gives it. */
  readonly path: string;
  readonly sha256: string;
  readonly length: number;
};

/** The one place where an artefact may lie: a role that names another one is not believed. */
export const artefactPath = (family: string, contentVersion: number, engine: EngineId): string =>
  `content/${family}/${contentVersion}/${engine}.rules`;

/** Content under a version number that only grows. A rollback is the old bytes under a new number. */
export type Content = {
  readonly contentVersion: number;
  readonly releaseId: string;
  readonly artefacts: readonly Artefact[];
};

export type TriggeredBy = 'person' | 'judge' | 'lease' | 'workflow';

/** A decision in numbers, so that nobody has to parse a sentence. */
export type Finding = {
  readonly code: string;
  readonly message: string;
  readonly observed?: number | string;
  readonly operator?: string;
  readonly limit?: number | string;
};

export type GateResult = {
  /**
   * controls | result | coverage | rules-loaded | must-match | must-not-match | goodware | traffic-smoke | restart | revert |
   * budget-load | budget-scan | budget-vector | budget-memory | first-use
   */
  readonly gate: string;
  readonly verdict: 'pass' | 'fail' | 'void' | 'error';
  readonly observed: number | string;
  readonly operator: string;
  readonly limit: number | string;
  /** Signature ids and vectors concerned, with the engine's own words where there are any. */
  readonly details: readonly {
    readonly rule?: RuleId;
    readonly vector?: string;
    readonly file?: string;
    readonly line?: number;
    readonly words: string;
  }[];
};

export type Cell = {
  /** `<engineId>/<configuration>`; with the whole digest where two builds have one engine id. */
  readonly cellId: string;
  readonly engine: EngineBuild;
  readonly mode: Mode;
  /** Application protocols that the configuration switches on or off; left out: none. */
  readonly protocols?: Readonly<Record<string, boolean>>;
  /** Devices enrolled on this engine when the matrix was planned. */
  readonly devices: number;
};

/** The name of a cell's configuration. */
export const configurationOf = ({ cellId }: Pick<Cell, 'cellId'>): string => cellId.slice(cellId.indexOf('/') + 1);

export type CellResult = {
  readonly cellId: string;
  readonly verdict: 'pass' | 'fail' | 'void' | 'error';
  readonly rulesExpected: number;
  readonly rulesLoaded: number | null;
  readonly gates: readonly GateResult[];
  readonly wallMs: number;
  /** Of the engine's process while it looked at the vectors. */
  readonly usage?: { readonly wallMs: number; readonly peakBytes: number | null };
  /** Nothing that this cell depends on has changed since: this is the result of that release. */
  readonly reused?: { readonly from: string; readonly at: string };
  /** SHA-256 of what the engine did in detail, in the store. */
  readonly observed?: string;
};

/** An engine build that told good from bad, as nobody had seen it do before with this code that runs and grades engines. */
export type Requalified = {
  readonly engine: EngineId;
  readonly packageVersion: string;
  readonly digest: string;
  /** SHA-256 of the code that runs and grades engines. */
  readonly runner: string;
  /** What the controls came to. */
  readonly controls: string;
};

/** What an engine's artefact goes without, since it does not load there. */
export type CoverageGap = {
  readonly engine: EngineId;
  readonly version: string;
  readonly rules: readonly { readonly rule: RuleId; readonly words: string }[];
  /** Devices enrolled on this engine. */
  readonly devices: number;
};

/** Two people's decision about an engine or a cell, for a while. */
export type Waiver = {
  readonly waiverId: string;
  readonly family: string;
  /** `exclude`: devices of an engine get no release. `override`: a red cell of one content does not stop it. */
  readonly kind: 'exclude' | 'override';
  /** Engine id or cell id. */
  readonly target: string;
  /** What an override lets pass: what was wrong when it was asked for (`failuresOf`). An exclusion has none. */
  readonly failures?: readonly string[];
  /** The content that an override is for; null for an exclusion. */
  readonly sourceDigest: string | null;
  readonly reason: string;
  readonly expiresAt: string;
  readonly by: readonly string[];
};

/** A planned stage: thresholds are integers in 0..2^32, one per segment. */
export type Stage = {
  readonly name: string;
  readonly thresholds: Readonly<Record<SegmentKey, number>>;
  /** Devices enrolled at planning time whose bucket is below the threshold, per segment. */
  readonly devices: Readonly<Record<SegmentKey, number>>;
};

/** Devices of one segment, counted by the evidence path (gateway -> aggregator). */
export type SegmentCounts = {
  readonly enrolled: number;
  readonly offered: number;
  readonly installed: number;
  readonly healthy: number;
  readonly harmed: number;
  readonly recovered: number;
};

export type Counts = Readonly<Record<SegmentKey, SegmentCounts>>;

/** What the judge saw in one cell when it decided: enough to compute the decision again. */
export type Verdict = {
  readonly kind: 'hold' | 'halt';
  readonly tick: number;
  readonly cell: string;
  readonly metric: string;
  /** null: fleet-wide cell. */
  readonly segment: SegmentKey | null;
  readonly x: number;
  readonly y: number;
  readonly treatedHours: number;
  readonly controlHours: number;
  readonly statA: number;
  readonly statB: number;
  readonly thresholdA: number;
  readonly thresholdB: number;
  readonly policyDigest: string;
  readonly firstTick: number;
  readonly lastTick: number;
  readonly codeVersion: string;
  /** Events and exposure of the cell in that tick alone: x, y, treated, control. */
  readonly inTick?: readonly [number, number, number, number];
  /** Of a HALT: what else the statistics point at (halt specification, section 12). */
  readonly attribution?: Attribution;
  /** Append time (ms) of the first harmful report that this release's windows counted; null when none. */
  readonly firstHarmAt: number | null;
};

/** Ids of cells. */
export type Attribution = {
  /** Both keys at their thresholds: an unaffected cell is among them with probability alpha A at most. */
  readonly latchedBoth: readonly string[];
  readonly latchedA: readonly string[];
  readonly latchedB: readonly string[];
  /** A false discovery rate of at most 10 % for cells that are not linked through devices; else a ranking. Most suspect first. */
  readonly suspects: readonly string[];
  /** The cell with the largest statistic of key A. */
  readonly leading: string | null;
};

/** What holds a stage: cells of the judge, or the want of data. */
export type HeldFor = { readonly reason: 'hold' | 'no-data' | 'frozen'; readonly cells: readonly string[] };

/** What a watch over a stage ended with. Only `passed` moves forward. */
export type StageOutcome =
  | { readonly outcome: 'passed'; readonly evidence: StageEvidence }
  | { readonly outcome: 'regression'; readonly verdict: Verdict; readonly evidence: StageEvidence }
  | {
      readonly outcome: 'held';
      /** `frozen`: a person froze the family; `waitingFor` names who and why. */
      readonly reason: 'hold' | 'no-data' | 'frozen';
      /** Of the cell that holds longest. */
      readonly verdict: Verdict | null;
      /** All cells that hold; none for want of data. */
      readonly cells: readonly string[];
      readonly evidence: StageEvidence;
    }
  /** What held the stage is over, and the evidence is fresh: windows arrive again, the HOLDs are cleared, the freeze is lifted. */
  | { readonly outcome: 'released'; readonly evidence: StageEvidence };

export type StageEvidence = {
  readonly stage: number;
  readonly lastTick: number;
  readonly counts: Counts;
  /** Largest weighted statistic of each key so far and the cell that leads. */
  readonly statA: number;
  readonly statB: number;
  readonly leading: string;
  /** What still has to happen before the stage passes, in words with numbers; empty when it passes. */
  readonly waitingFor: readonly Finding[];
};
