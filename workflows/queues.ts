/** Task queues. `engines` is bounded by cores, `publish` alone has keys, `halt` has slots that nothing else takes. */
export const queues = {
  release: 'release',
  build: 'build',
  engines: 'engines',
  publish: 'publish',
  halt: 'halt',
} as const;
