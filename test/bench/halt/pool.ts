/** Runs of scenarios on every core. Results come in the order of the runs, whichever thread did them. */
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import type { Run } from './simulate.ts';

export type Job = { readonly scenario: string; readonly first: number; readonly count: number };

export type Pool = {
  runs(scenario: string, count: number): Promise<readonly Run[]>;
  close(): Promise<void>;
};

/** Small enough that no core waits long for the last piece. */
const piecesOf = (scenario: string, count: number): readonly Job[] => {
  const size = Math.max(1, Math.ceil(count / 60));
  return Array.from({ length: Math.ceil(count / size) }, (_, i) => ({
    scenario,
    first: i * size,
    count: Math.min(size, count - i * size),
  }));
};

export const createPool = (threads = availableParallelism()): Pool => {
  const workers = Array.from({ length: threads }, () => new Worker(new URL('./worker.ts', import.meta.url)));
  return {
    runs: async (scenario, count) => {
      const pieces = piecesOf(scenario, count);
      const found = pieces.map((): readonly Run[] => []);
      let next = 0;
      const work = async (worker: Worker) => {
        for (let i = next++; i < pieces.length; i = next++) {
          const piece = pieces[i];
          if (piece !== undefined) found[i] = await ask(worker, piece);
        }
      };
      await Promise.all(workers.map(work));
      return found.flat();
    },
    close: async () => {
      await Promise.all(workers.map((worker) => worker.terminate()));
    },
  };
};

const ask = (worker: Worker, job: Job): Promise<readonly Run[]> =>
  new Promise((resolve, reject) => {
    const settle = () => {
      worker.off('message', done);
      worker.off('error', failed);
    };
    const done = (runs: readonly Run[]) => {
      settle();
      resolve(runs);
    };
    const failed = (error: Error) => {
      settle();
      reject(error);
    };
    worker.on('message', done);
    worker.on('error', failed);
    worker.postMessage(job);
  });
