/**
 * Cohort arithmetic. bucket = first 4 bytes of SHA-256(salt \n unit id) as an integer, the unit being the device or its site;
 * a device is in when its bucket is below the threshold of its segment. The hash is passed in: this room does no hashing of
 * its own.
 */
import type { RolloutPolicy, StagePolicy } from './policy.ts';
import { type EngineId, engineOf, type SegmentKey, type Stage } from './release.ts';

export const bucketSpace = 2 ** 32;

/** (salt, unit id) -> integer in 0..2^32-1. */
export type BucketOf = (salt: string, unitId: string) => number;

/** What is hashed for a device: itself, or its site where sites are updated as units; a device without one is its own. */
export const unitIdOf = (
  unit: RolloutPolicy['unit'],
  { site, deviceId }: { readonly site?: string; readonly deviceId: string },
): string => (unit === 'site' ? (site ?? deviceId) : deviceId);

export const isExposed = (bucket: number, threshold: number): boolean => bucket < threshold;

/**
 * Thresholds of every stage for the enrolled devices of each segment, each given by the bucket of its unit. A canary of n units
 * lies between the n-th and the (n+1)-th smallest bucket (all, where there are fewer); later stages take the larger of the
 * previous threshold and the share, so that a cohort only grows and is the same after pause and resume.
 */
export const planStages = (
  stages: readonly StagePolicy[],
  bucketsOfDevices: Readonly<Record<SegmentKey, readonly number[]>>,
): Stage[] => {
  const buckets = Object.fromEntries(
    Object.entries(bucketsOfDevices).map(([segment, unsorted]) => [segment, Float64Array.from(unsorted).sort()]),
  );
  let previous: Record<SegmentKey, number> = {};
  return stages.map((stage) => {
    const thresholds: Record<SegmentKey, number> = {};
    const devices: Record<SegmentKey, number> = {};
    for (const segment of Object.keys(buckets).sort()) {
      const sorted = buckets[segment] ?? new Float64Array();
      const threshold = Math.max(previous[segment] ?? 0, stageThreshold(stage, sorted));
      thresholds[segment] = threshold;
      devices[segment] = sorted.filter((bucket) => isExposed(bucket, threshold)).length;
    }
    previous = thresholds;
    return { name: stage.name, thresholds, devices };
  });
};

/**
 * Thresholds of the stage at `index` for these engines. Devices of any other engine keep what the last stage gave them: what
 * was offered is not taken back, and nothing is added. An engine that missed a stage has no canary behind it and stays where
 * it is for the rest of the release.
 */
export const thresholdsFor = (
  granted: Readonly<Record<SegmentKey, number>>,
  stages: readonly Pick<Stage, 'thresholds'>[],
  index: number,
  engines: readonly EngineId[],
): Readonly<Record<SegmentKey, number>> => {
  const missed = enginesBehind(granted, stages[index - 1]);
  const goesOn = (engine: EngineId) => engines.includes(engine) && !missed.has(engine);
  return Object.fromEntries(
    Object.entries(stages[index]?.thresholds ?? {}).map(([segment, threshold]) => [
      segment,
      goesOn(engineOf(segment)) ? threshold : (granted[segment] ?? 0),
    ]),
  );
};

/** Engines that were granted less than a stage gives: they missed it. */
export const enginesBehind = (
  granted: Readonly<Record<SegmentKey, number>>,
  stage: Pick<Stage, 'thresholds'> | undefined,
): ReadonlySet<EngineId> =>
  new Set(
    Object.entries(stage?.thresholds ?? {})
      .filter(([segment, threshold]) => (granted[segment] ?? 0) < threshold)
      .map(([segment]) => engineOf(segment)),
  );

const stageThreshold = (stage: StagePolicy, sorted: Float64Array): number => {
  if (stage.kind === 'all') return bucketSpace;
  if (stage.kind === 'share') return Math.floor(stage.size * bucketSpace);
  let units = 0;
  for (let n = 0; n < sorted.length; n += 1) {
    const bucket = sorted[n] ?? 0;
    if (n === 0 || bucket !== sorted[n - 1]) units += 1;
    if (units === stage.size) return bucket + 1;
  }
  return bucketSpace;
};
