/**
 * How long tests wait for a condition. For what hangs: well below the limit of a test, so that it says what it waited for, and
 * far above what a slow machine takes.
 */
export const patient = { timeout: 240_000, interval: 50 } as const;
