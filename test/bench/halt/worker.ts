/** A thread of the halt benchmark: takes runs, gives their results. */
import { parentPort } from 'node:worker_threads';
import type { Job } from './pool.ts';
import { simulate } from './simulate.ts';

parentPort?.on('message', ({ scenario, first, count }: Job) => {
  parentPort?.postMessage(simulate(scenario, first, count));
});
