/** Apart from what else benchmarks share: some measure themselves, and load nothing that they do not need. */
export const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;
