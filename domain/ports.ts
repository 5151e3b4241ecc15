/** What the core needs from the world. Adapters stand in infra/, each with an in-memory twin under one contract suite. */
import type { FamilyEvent } from '../events/catalogue.ts';
import type { DirectorDocument, FamilyFreeze } from './director.ts';
import type { Artefact, Content, EngineBuild, FailMode, Mode, RuleId, Waiver } from './release.ts';
import type { ReleaseState } from './release-state.ts';
import type { JudgeStatus } from './stage-rule.ts';
import type { ControlRecord, DeviceReport } from './telemetry.ts';

/** Bytes by SHA-256. `put` is idempotent; a half-written object is never visible. */
export type BlobStore = {
  put(bytes: Uint8Array): Promise<string>;
  /** Throws SRP_MISSING_BLOB. */
  get(digest: string): Promise<Uint8Array>;
};

/** The release log: `release.events.v1` keyed by release id. Values are the canonical bytes of a StoredEvent. */
export type EventLog = {
  /** Resolves when every record is durable (acks=all), in order. Throws SRP_DEP_KAFKA, retryable. */
  append(
    releaseId: string,
    records: readonly { readonly eventId: string; readonly type: string; readonly value: Uint8Array }[],
  ): Promise<void>;
  /** All records of one release in log order, duplicates and forks included, up to the end of the log at the call. */
  read(releaseId: string): Promise<readonly LogRecord[]>;
};

/** What happens to families beside the streams of their releases (events/catalogue.ts). */
export type FamilyLog = {
  /** Resolves when durable (acks=all). Throws SRP_DEP_KAFKA, retryable: readers drop repeats by the event's id. */
  append(event: FamilyEvent): Promise<void>;
};

export type LogRecord = {
  readonly value: Uint8Array;
  readonly partition: number;
  readonly offset: string;
  readonly appendedAt: number;
};

export type TelemetryLog = {
  /** Resolves when durable. */
  append(reports: readonly DeviceReport[]): Promise<void>;
  /** One copy into every partition; resolves when durable in all. */
  control(record: ControlRecord): Promise<unknown>;
};

/** An offer that a device may take until `until` (ms), by the sequence of the poll that asked for it. */
export type Granted = { readonly deviceId: string; readonly sequence: number; readonly until: number };

/** Offers that were acknowledged, whichever gateway was asked. */
export type Acknowledgements = {
  /**
   * Grants each offer whose poll is newer than every one granted to its device before. Answers with those, and with offers
   * granted before to the same polls: with their time of then. The others of `offers` get nothing.
   */
  grant(offers: readonly Granted[]): Promise<readonly Granted[]>;
};

/** Where a device stands: what it said first, or what the imported inventory says; null: at no site. */
export type PlacedDevice = { readonly deviceId: string; readonly site: string | null };

/** The site of each device, whichever gateway it is heard by. */
export type DeviceSites = {
  /** Answers with the site of each of `said`: what stood there before, else what is said now, which stays from now on. */
  pin(said: readonly PlacedDevice[]): Promise<readonly PlacedDevice[]>;
};

/** A device whose reports are refused on a person's word. */
export type Revocation = {
  readonly deviceId: string;
  readonly reason: string;
  readonly by: string;
  readonly at: string;
  /** null: in force. */
  readonly restored: { readonly reason: string; readonly by: string; readonly at: string } | null;
};

export type EnrolledDevice = {
  readonly deviceId: string;
  readonly site?: string;
  readonly engine: EngineBuild;
  readonly failMode: FailMode;
  readonly contentVersion: number;
};

/** Devices of which engine, fail mode and content are the same. */
export type FleetGroup = Pick<EnrolledDevice, 'engine' | 'failMode' | 'contentVersion'> & { readonly devices: number };

/** Devices as they reported themselves, projected from their polls. */
export type Inventory = {
  groups(): Promise<readonly FleetGroup[]>;
  /** In order of their ids, each once. Read in pages: a large fleet at once would keep the process from everything else. */
  devices(): AsyncIterable<EnrolledDevice>;
};

/** One run of one engine over rules and inputs (packet captures or files); a new process each time. `no-result` is a failure, never a pass. */
export type EngineRun =
  | {
      readonly kind: 'completed';
      /** From the engine's own statistics record, never from its log or its exit code. */
      readonly loaded: number;
      readonly failed: number;
      readonly skipped: number;
      readonly alerts: readonly {
        /** Name of the input. */
        readonly input: string;
        readonly ruleId: RuleId;
        readonly action: 'allowed' | 'blocked';
      }[];
      /** Traffic of which packets were dropped, whether or not a rule alerted: `drop` with `noalert`, or the engine by itself. */
      readonly blockedFlows?: readonly BlockedFlow[];
      /** What the engine said about rules it refused: for people, never for the verdict. */
      readonly errors: readonly {
        readonly file?: string;
        readonly line?: number;
        readonly ruleId?: RuleId;
        readonly words: string;
      }[];
      readonly wallMs: number;
      /** Largest resident size of the engine's process (bytes); null where the system does not tell. */
      readonly peakBytes: number | null;
    }
  | {
      readonly kind: 'no-result';
      readonly reason: 'signal' | 'timeout' | 'exit' | 'no-statistics';
      readonly words: string;
      readonly wallMs: number;
    };

/** Addresses and ports as in the flow's first dropped packet, null where there is no port. */
export type BlockedFlow = {
  /** Name of the input. */
  readonly capture: string;
  /** null: no rule is named, the engine dropped it by itself. */
  readonly ruleId: RuleId | null;
  readonly protocol: string;
  readonly srcIp: string;
  readonly srcPort: number | null;
  readonly destIp: string;
  readonly destPort: number | null;
};

export type EngineInput = {
  /** An artefact: what `artefactBytes` of the content's language makes of rules. */
  readonly rules: Uint8Array;
  readonly inputs: readonly EngineFile[];
  readonly mode: Mode;
  /** Suricata: application protocols that this configuration switches on or off, against the packaged configuration. */
  readonly protocols?: Readonly<Record<string, boolean>>;
  /** Suricata inline: what happens to traffic that the engine cannot judge. Without it such traffic passes. */
  readonly failMode?: FailMode;
};

/** What an engine looks at. Names: letters, digits, dash, dot, underscore, each once in a run. A path is read in place. */
export type EngineFile =
  | { readonly name: string; readonly bytes: Uint8Array }
  | { readonly name: string; readonly path: string };

/** The engines of the field, each in a killable child process with limits. */
export type EngineRunner = {
  /** null: there is no pack of this engine, so nothing can be said about it. */
  run(engine: EngineBuild, input: EngineInput, signal: AbortSignal): Promise<EngineRun | null>;
};

/** What packs of engines there are or could be fetched. */
export type EngineCatalogue = {
  /** The build of e.g. `suricata@6.0.1`, fetched when it is not here; null: nobody has a pack of it. */
  find(engine: string): Promise<EngineBuild | null>;
};

/** Results of cells by everything that they depend on; what is put is there for every later release. */
export type CellStore<Result> = {
  get(key: string): Promise<Result | null>;
  put(key: string, result: Result): Promise<void>;
};

/** Exclusions and overrides (domain/waiver.ts). */
export type Waivers = {
  /** Those of a family, granted or waiting for a second person, whatever their expiry; none that was taken back. */
  list(family: string): Promise<readonly Waiver[]>;
};

/** What the log of releases says of those that ended. */
export type ReleaseHistory = {
  /** Features that engines got for the first time, by every completed release of a family. */
  firstUses(family: string): Promise<ReleaseState['firstUse']>;
  /** Source digest of the last release of a family that had completed at this time (ms since 1970); null: there was none. */
  sourceAt(family: string, time: number): Promise<string | null>;
};

/** What the judge has found so far, read by the activities and the lease. */
export type EvidenceReader = {
  /** null: not one complete tick yet. */
  judgeStatus(releaseId: string): Promise<JudgeStatus | null>;
};

/** Whether a workflow still looks at the open stage of a release: a lease that nobody could stop is not renewed. */
export type Watches = {
  note(releaseId: string, at: number): Promise<void>;
  /** ms since 1970; null: never. */
  lastSeen(releaseId: string): Promise<number | null>;
};

/** The TUF repository of one store: the only writer of what devices can fetch. Every write takes the store's lock. */
export type DirectorStore = {
  /** Families that were initialised, sorted. */
  families(): Promise<readonly string[]>;
  /** Creates keys and baseline content 1 of a family; refuses (SRP_RULE_FAMILY_EXISTS) when it is there with other bytes. */
  initialiseFamily(
    family: string,
    artefacts: readonly { readonly engine: EngineBuild; readonly bytes: Uint8Array }[],
  ): Promise<Content>;
  read(family: string): Promise<{
    readonly document: DirectorDocument;
    readonly expiresAt: number;
    /** By the clock of the file store (ms). */
    readonly signedAt: number;
    /** The stop marker of a release stands. */
    readonly stopped: boolean;
    readonly freeze: FamilyFreeze | null;
  }>;
  /** Content versions already given out: the next release takes `next`, its rollback `next + 1`. */
  nextContentVersion(family: string, releaseId: string): Promise<number>;
  /** Signs with the content keys, k of n; one signature per key. Idempotent by release id. */
  signContent(
    family: string,
    contents: readonly Content[],
  ): Promise<{
    readonly threshold: number;
    readonly signatures: readonly { readonly keyId: string; readonly signer: string }[];
  }>;
  /** Makes signed content fetchable; the bytes come from the blob store by digest. */
  publishContent(family: string, contents: readonly Content[]): Promise<{ readonly targetsVersion: number }>;
  /**
   * Applies `change` to the current document under the lock and publishes it with this lifetime. `change` returning null
   * leaves everything as it is. A document that raises exposure is refused while a stop marker stands (SRP_RULE_STOPPED) and
   * while the family is frozen (SRP_HOLD_FROZEN, which passes). `freezeId` is the store's: whatever `change` says of it.
   */
  change(
    family: string,
    change: (current: DirectorDocument) => Omit<DirectorDocument, 'directorVersion'> | null,
    options: {
      readonly expiresInMs: number;
      /** As in `renew`. */
      readonly asOf?: number;
      readonly stop?: 'set' | 'clear';
      /**
       * What the marker says of itself. `clear` of another one changes nothing and is refused (SRP_HOLD_STOPPED); `set` of an
       * earlier stop of the same release leaves the name of a later one.
       */
      readonly stopId?: string;
      /** Does nothing at all, the stop marker included, while another release than this one is rolling out. */
      readonly unlessRolling?: string;
    },
  ): Promise<{ readonly document: DirectorDocument; readonly publishedAt: number }>;
  /**
   * Signs the same document again with a new expiry, when its version is still `directorVersion`; one that grants exposure
   * only while neither a stop marker nor a freeze stands, unless it ends sooner than before. `asOf` (ms; now, when not given): when it was found that it may be; the
   * expiry counts from there, however long the lock was waited for and whatever the clock did meanwhile.
   */
  renew(family: string, directorVersion: number, expiresInMs: number, asOf?: number): Promise<boolean>;
  /**
   * Freezes the family, whatever rolls out or is about to: from its marker on nothing raises or renews exposure, also when the
   * rest fails; from the document on no device newly takes anything. Takes the place of another freeze. Idempotent.
   */
  freeze(
    family: string,
    freeze: FamilyFreeze,
  ): Promise<{ readonly document: DirectorDocument; readonly publishedAt: number }>;
  /**
   * Lifts the freeze (null: whichever stands) and grants nothing by it: what rolls out gets a lease that is over by
   * every clock, which whoever renews it renews on evidence or not at all. `thawed` false: another freeze stands, or none.
   */
  thaw(
    family: string,
    freezeId: string | null,
  ): Promise<{ readonly thawed: boolean; readonly document: DirectorDocument; readonly freeze: FamilyFreeze | null }>;
};

export type { Artefact };
