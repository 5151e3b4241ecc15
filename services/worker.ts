/** The Temporal worker: runs the workflows and, on five queues, what they ask of the world. */
import { Context } from '@temporalio/activity';
import { ApplicationFailure } from '@temporalio/common';
import {
  type ActivityInboundCallsInterceptor,
  bundleWorkflowCode,
  type NativeConnection,
  Worker,
  type WorkflowBundle,
} from '@temporalio/worker';
import { createBuildActivities } from '../activities/build.ts';
import { createHaltActivities } from '../activities/halt.ts';
import { createMatrixActivities } from '../activities/matrix.ts';
import { createPublishActivities } from '../activities/publish.ts';
import { createRecordActivities } from '../activities/record.ts';
import { createRolloutActivities } from '../activities/rollout.ts';
import { SigrelError } from '../domain/errors.ts';
import { releaseWorkflowId } from '../domain/ids.ts';
import type { MatrixTools } from '../domain/matrix/run-cell.ts';
import type {
  BlobStore,
  DirectorStore,
  EngineCatalogue,
  EventLog,
  EvidenceReader,
  Inventory,
  ReleaseHistory,
  TelemetryLog,
  Waivers,
  Watches,
} from '../domain/ports.ts';
import { bucketOf } from '../infra/cohort.ts';
import { decodeBundle } from '../infra/content/bundle.ts';
import { parseFamily } from '../infra/content/load-family.ts';
import type { Log } from '../infra/kafka/client.ts';
import { queues } from '../workflows/queues.ts';

export type WorkerPorts = {
  readonly blobs: BlobStore;
  readonly log: EventLog;
  readonly telemetry: TelemetryLog;
  readonly inventory: Inventory;
  readonly catalogue: EngineCatalogue;
  readonly waivers: Waivers;
  readonly history: ReleaseHistory;
  readonly tools: MatrixTools;
  readonly evidence: EvidenceReader;
  readonly watches: Watches;
  readonly director: DirectorStore;
};

/** About two seconds of work: a process that runs several workers makes it once. */
export const bundleWorkflows = (): Promise<WorkflowBundle> =>
  bundleWorkflowCode({
    workflowsPath: new URL('../workflows/index.ts', import.meta.url).pathname,
    logger: {
      log: () => {},
      trace: () => {},
      debug: () => {},
      info: () => {},
      warn: () => {},
      error: (message) => process.stderr.write(`${message}\n`),
    },
  });

/** `engineSlots`: engines that run at once, about the number of cores. `stop` lets what is under way end. */
export const startWorker = async (options: {
  readonly connection: NativeConnection;
  readonly namespace: string;
  readonly bundle: WorkflowBundle;
  readonly ports: WorkerPorts;
  readonly engineSlots: number;
  readonly log: Log;
}): Promise<{ stop(): Promise<void>; readonly failed: Promise<never> }> => {
  const { ports, connection, namespace, engineSlots, log } = options;
  const openBundle = (bytes: Uint8Array) => parseFamily(decodeBundle(bytes));
  const attempt = {
    now: Date.now,
    heartbeat: (details: unknown) => Context.current().heartbeat(details),
    cancelled: () => Context.current().cancellationSignal,
  };
  const on = (taskQueue: string, activities: object, slots: number, workflowBundle?: WorkflowBundle) =>
    Worker.create({
      connection,
      namespace,
      taskQueue,
      activities,
      maxConcurrentActivityTaskExecutions: slots,
      // A watch over a stage never ends by itself: it is told to after this time and goes on in the next worker.
      shutdownGraceTime: '1s',
      interceptors: { activity: [() => ({ inbound: explainFailures(log) })] },
      ...(workflowBundle ? { workflowBundle } : {}),
    });
  const release = {
    ...createRecordActivities({ log: ports.log }),
    ...createRolloutActivities({
      ...{ ...ports, ...attempt, bucketOf },
      watches: watchesThatCount(ports.watches, connection, namespace),
    }),
  };
  const workers = await Promise.all([
    on(queues.release, release, 100, options.bundle),
    on(queues.build, createBuildActivities({ ...ports, ...attempt, engines: ports.tools.engines, openBundle }), 4),
    on(queues.engines, createMatrixActivities({ ...ports, ...attempt, openBundle }), engineSlots),
    on(queues.publish, createPublishActivities(ports), 4),
    on(queues.halt, createHaltActivities({ ...ports, now: Date.now }), 20),
  ]);
  const runs = workers.map((worker) => worker.run());
  const failed = Promise.race(runs).then(
    () => new Promise<never>(() => {}), // ended because it was asked to
    (error) => {
      throw error;
    },
  );
  failed.catch((error) => log('error', { error: String(error) }, 'a worker ended'));
  return {
    failed,
    stop: async () => {
      for (const worker of workers) if (worker.getState() === 'RUNNING') worker.shutdown();
      await Promise.allSettled(runs);
    },
  };
};

/** How long a watch waits for Temporal's answer; well below the heartbeat's limit. */
const answerMs = 2_000;

/**
 * A watch counts while Temporal answers for its workflow. Without a server the activity alone looks on for ever, and what it
 * finds reaches nobody: the lease has to run out.
 */
const watchesThatCount = (watches: Watches, connection: NativeConnection, namespace: string): Watches => ({
  ...watches,
  note: async (releaseId, at) => {
    const execution = { workflowId: releaseWorkflowId(releaseId) };
    await connection.withDeadline(Date.now() + answerMs, () =>
      connection.workflowService.describeWorkflowExecution({ namespace, execution }),
    );
    await watches.note(releaseId, at);
  },
});

/** Faults of the input are final; faults of the world are tried again. The code becomes the failure's type. */
const isFinal = (code: string): boolean => /^SRP_(INPUT|RULE|MISSING|INTEGRITY|BUG)_/.test(code);

const explainFailures = (log: Log): ActivityInboundCallsInterceptor => ({
  execute: async (input, next) => {
    try {
      return await next(input);
    } catch (error) {
      if (!(error instanceof SigrelError)) throw error;
      const { activityType, attempt } = Context.current().info;
      log('warn', { activity: activityType, attempt, code: error.code, error: error.message }, 'an activity failed');
      throw ApplicationFailure.create({
        message: error.message,
        type: error.code,
        nonRetryable: isFinal(error.code),
        details: [error.details],
        cause: error,
      });
    }
  },
});
