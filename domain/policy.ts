/**
 * The rollout policy of a family: data beside the content (`policy.yaml`), validated by events/schemas before use.
 * Durations are milliseconds. Defaults are the halt specification's (section 14); the demo's plan is the same kind, shorter.
 */
export type RolloutPolicy = {
  /**
   * What is updated, and counted, as one: a device (also when left out), or all devices of a site, such as a pair of which one
   * stands in for the other. Counting devices where sites are assigned breaks every test (halt specification, section 11).
   */
  readonly unit?: 'device' | 'site';
  /** Length of a tick: evidence is folded once per tick. */
  readonly tickMs: number;
  /** Interval between polls; a poll is a heartbeat. */
  readonly heartbeatMs: number;
  /** A served device that sends nothing this long counts as silent (first trial, and every later one). */
  readonly firstSilenceMs: number;
  readonly silenceMs: number;
  /** Expiry of the director document while a release rolls out; renewed at a third of it. */
  readonly leaseMs: number;
  /** Windows older than this many ticks are no evidence: the lease is not renewed. */
  readonly freshTicks: number;
  /** Approvals by different people needed before the first stage opens. */
  readonly approvals: number;
  readonly stages: readonly StagePolicy[];
  /** Keys of the judge (halt specification, section 8). */
  readonly judge: { readonly alphaA: number; readonly alphaB: number; readonly alphaHold: number };
};

export type StagePolicy = {
  readonly name: string;
  /** `canary`: this many units of every segment. `share`: of each segment. `all`: the holdback too. */
  readonly kind: 'canary' | 'share' | 'all';
  /** Units per segment for `canary`, share in 0..1 for `share`, 1 for `all`. */
  readonly size: number;
  readonly minMs: number;
  /** Devices that must have reported healthy, over all segments, before the stage can pass. */
  readonly minDevices: number;
  /** The stage stays until the evidence excludes that a critical metric got much worse (halt specification, sections 9 and 14). */
  readonly promote?: boolean;
};

const minutes = (n: number): number => n * 60_000;

export const defaultPolicy: RolloutPolicy = {
  tickMs: minutes(1),
  heartbeatMs: minutes(5),
  firstSilenceMs: minutes(10),
  silenceMs: minutes(10),
  leaseMs: 60_000,
  freshTicks: 3,
  approvals: 0,
  stages: [
    { name: 'canary', kind: 'canary', size: 8, minMs: minutes(35), minDevices: 8 },
    { name: '1 %', kind: 'share', size: 0.01, minMs: minutes(35), minDevices: 20 },
    { name: '5 %', kind: 'share', size: 0.05, minMs: minutes(60), minDevices: 50 },
    // Going on does not see more, it sees less: of all stages this one has the most information about a difference.
    { name: '25 %', kind: 'share', size: 0.25, minMs: minutes(60), minDevices: 50, promote: true },
    { name: '98 %', kind: 'share', size: 0.98, minMs: minutes(60), minDevices: 50 },
    { name: 'holdback', kind: 'all', size: 1, minMs: minutes(15), minDevices: 50 },
  ],
  judge: { alphaA: 0.01, alphaB: 0.05, alphaHold: 0.05 },
};

/** What an engine meets for the first time is watched this many times longer before the next stage (R4 of the requirements). */
const firstUseFactor = 4;

/** The policy with longer stages when the release ships features that some engine never got before. */
export const bakeLonger = (policy: RolloutPolicy, release: { readonly firstUse: readonly unknown[] }): RolloutPolicy =>
  release.firstUse.length === 0
    ? policy
    : { ...policy, stages: policy.stages.map((stage) => ({ ...stage, minMs: stage.minMs * firstUseFactor })) };

/** The metrics judged in a rollout, with their weight and margin (halt specification, section 14; weights not rescaled). */
export const metrics = [
  { id: 'silence-first', trial: 'window', weight: 0.2 },
  { id: 'crash', trial: 'device-hour', weight: 0.15 },
  { id: 'load-failure', trial: 'device-hour', weight: 0.15 },
  { id: 'blocked-traffic', trial: 'device-hour', weight: 0.1 },
  { id: 'silence-later', trial: 'window', weight: 0.1 },
  { id: 'update-failure', trial: 'device-hour', weight: 0.05 },
] as const;

export type MetricId = (typeof metrics)[number]['id'];
