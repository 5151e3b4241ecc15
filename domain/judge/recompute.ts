/**
 * A release judged once more from the telemetry log, and compared with what the aggregators and the judge had written: the
 * same log gives the same windows and the same decisions, whoever reads it and whenever.
 */
import { emptyState, foldRecord } from '../at-risk.ts';
import type { BucketOf } from '../exposure.ts';
import type { Verdict } from '../release.ts';
import type { TelemetryRecord, Window } from '../telemetry.ts';
import { acceptWindow, type DigestOf, foldTicks, newSession } from './session.ts';

/** Folds the records of every partition as they come, each partition in its order, and keeps the windows of one release. */
export const createWindowFold = (options: {
  readonly releaseId: string;
  readonly partitions: number;
  readonly bucketOf: BucketOf;
}) => {
  const { releaseId, partitions, bucketOf } = options;
  const states = Array.from({ length: partitions }, (_, partition) => emptyState(partition, partitions));
  const windows: Window[] = [];
  return {
    /** `at`: append time (ms). null: no telemetry record, which every reader leaves out. */
    take: (partition: number, offset: number, at: number, record: TelemetryRecord | null): void => {
      const state = states[partition];
      if (state === undefined) throw new RangeError(`partition ${partition} of ${partitions}`);
      const folded = foldRecord(state, record, at, offset, bucketOf);
      windows.push(...folded.windows.filter((window) => window.releaseId === releaseId));
    },
    windows: (): readonly Window[] => windows,
  };
};

export type Recomputed = {
  readonly windows: number;
  readonly ticks: number;
  readonly verdicts: readonly Verdict[];
  /** One line each; empty: all is as it was recorded. */
  readonly differences: readonly string[];
};

/**
 * `recorded`: what the log of windows has of the release, repeats too (a crash writes the last ones again), and the verdicts
 * that its events name.
 */
export const compareRecomputed = (
  releaseId: string,
  windows: readonly Window[],
  recorded: { readonly windows: readonly Window[]; readonly verdicts: readonly Verdict[] },
  digestOf: DigestOf,
): Recomputed => {
  const placeOf = ({ tick, partition }: Window) => `tick ${tick}, partition ${partition}`;
  const mine = new Map(windows.map((window) => [placeOf(window), digestOf(window)]));
  const theirs = new Map<string, Set<string>>();
  for (const window of recorded.windows) {
    const place = placeOf(window);
    theirs.set(place, (theirs.get(place) ?? new Set()).add(digestOf(window)));
  }
  const differences: string[] = [];
  for (const [place, digests] of theirs) {
    const own = mine.get(place);
    if (own === undefined) differences.push(`window of ${place}: recorded, and not in the telemetry log`);
    else if (digests.size > 1) differences.push(`window of ${place}: recorded in ${digests.size} ways`);
    else if (!digests.has(own)) differences.push(`window of ${place}: the telemetry log gives another one`);
  }
  for (const place of mine.keys()) if (!theirs.has(place)) differences.push(`window of ${place}: was not recorded`);

  const session = newSession(releaseId);
  const context = { digestOf, codeVersion: 'recomputed' };
  for (const window of windows) acceptWindow(session, window, digestOf(window));
  const ticks = foldTicks(session, context);
  const verdicts = ticks.flatMap((tick) => tick.verdicts);
  if (session.refused !== null) differences.push(`the windows cannot be folded: ${session.refused}`);
  differences.push(...compareVerdicts(verdicts, recorded.verdicts));
  return { windows: windows.length, ticks: ticks.length, verdicts, differences };
};

/** HOLDs that came while another one stood, or after the end, are in no event; what an event names must be found again. */
const compareVerdicts = (mine: readonly Verdict[], theirs: readonly Verdict[]): readonly string[] =>
  theirs.flatMap((recorded) => {
    const name = `${recorded.kind.toUpperCase()} of ${recorded.cell} at tick ${recorded.tick}`;
    const own = mine.find(({ kind, cell }) => kind === recorded.kind && (kind === 'halt' || cell === recorded.cell));
    if (own === undefined) return [`${name}: recorded, and not found again`];
    return Object.entries(recorded)
      .filter(([field, value]) => field !== 'codeVersion' && !isSame(value, own[field as keyof Verdict]))
      .map(
        ([field, value]) => `${name}: ${field} is ${shown(own[field as keyof Verdict])}, recorded was ${shown(value)}`,
      );
  });

/** To 1e-9: logarithms differ from one engine build to the next (halt specification, section 13, rule 4). */
const isSame = (a: unknown, b: unknown): boolean => {
  if (typeof a === 'number' && typeof b === 'number') return Math.abs(a - b) <= 1e-9 * Math.max(1, Math.abs(b));
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return a === b;
  const [mine, theirs] = [Object.entries(a), new Map(Object.entries(b))];
  return mine.length === theirs.size && mine.every(([name, value]) => isSame(value, theirs.get(name)));
};

const shown = (value: unknown): string => (typeof value === 'object' ? JSON.stringify(value) : String(value));
