/** The worker of freezes: a bundle, a queue and slots of its own, so that it works when the release worker does not. */
import { bundleWorkflowCode, type NativeConnection, Worker, type WorkflowBundle } from '@temporalio/worker';
import { createFreezeActivities } from '../activities/freeze.ts';
import { freezeQueue } from '../domain/ids.ts';
import type { DirectorStore, FamilyLog } from '../domain/ports.ts';
import type { Log } from '../infra/kafka/client.ts';

const quiet = () => {};

/** Only the workflow of freezes and what it imports. */
export const bundleFreeze = (): Promise<WorkflowBundle> =>
  bundleWorkflowCode({
    workflowsPath: new URL('../workflows/freeze.ts', import.meta.url).pathname,
    logger: {
      ...{ log: quiet, trace: quiet, debug: quiet, info: quiet, warn: quiet },
      error: (message) => process.stderr.write(`${message}\n`),
    },
  });

export const startFreezer = async (options: {
  readonly connection: NativeConnection;
  readonly namespace: string;
  readonly bundle: WorkflowBundle;
  readonly director: Pick<DirectorStore, 'freeze' | 'thaw'>;
  readonly familyLog: FamilyLog;
  readonly log: Log;
}): Promise<{ stop(): Promise<void>; readonly failed: Promise<never> }> => {
  const { connection, namespace, bundle, director, familyLog, log } = options;
  const worker = await Worker.create({
    ...{ connection, namespace, taskQueue: freezeQueue, workflowBundle: bundle },
    activities: createFreezeActivities({ director, familyLog }),
    maxConcurrentActivityTaskExecutions: 10,
    shutdownGraceTime: '1s',
  });
  const run = worker.run();
  const failed = run.then(
    () => new Promise<never>(() => {}), // ended because it was asked to
    (error) => {
      throw error;
    },
  );
  failed.catch((error) => log('error', { error: String(error) }, 'the worker of freezes ended'));
  return {
    failed,
    stop: async () => {
      if (worker.getState() === 'RUNNING') worker.shutdown();
      await Promise.allSettled([run]);
    },
  };
};
