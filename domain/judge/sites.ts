/**
 * Counting where sites (pairs, customers) are updated as a unit (halt specification, section 11): unit of assignment = unit of
 * counting. Raw device counts under site assignment break every method; a whole site that fails is one piece of evidence.
 */

/** Events per site -> the x or y of a tick, sum of min(count, cap) / cap; with the default the number of sites with an event.
 * Margins are in the same unit. A cap above 1 gives fractions, which a fold of windows does not take. */
export const cappedSiteCount = (counts: readonly number[], cap = 1): number =>
  counts.reduce((sum, count) => sum + Math.min(count, cap), 0) / cap;

/** Distinct devices with an event per site, sites in order of their names: repeated and reordered reports change nothing. */
export const eventsPerSite = (
  reports: readonly { readonly site: string; readonly device: string }[],
): ReadonlyMap<string, number> => {
  const devices = new Map<string, Set<string>>();
  for (const { site, device } of reports) devices.set(site, (devices.get(site) ?? new Set()).add(device));
  return new Map([...devices].sort(([a], [b]) => (a < b ? -1 : 1)).map(([site, found]) => [site, found.size]));
};
