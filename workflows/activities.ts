/** How each activity is called: its queue, its limits, its retries, and why. */
import {
  ActivityCancellationType,
  ActivityFailure,
  type ActivityOptions,
  isCancellation,
  proxyActivities,
  sleep,
} from '@temporalio/workflow';
import type {
  BuildActivities,
  HaltActivities,
  MatrixActivities,
  PublishActivities,
  RecordActivities,
  RolloutActivities,
} from '../activities/contract.ts';
import { queues } from './queues.ts';

const seconds = (n: number): number => n * 1000;

// A fault of the world (a server that restarts) passes; a fault of the input does not: those are thrown as non-retryable.
const patient: ActivityOptions['retry'] = {
  initialInterval: 250,
  backoffCoefficient: 2,
  maximumInterval: seconds(5),
};

/** For ever: an event that is not recorded would leave a gap, and what raises exposure waits for it. */
export const record = proxyActivities<RecordActivities>({
  taskQueue: queues.release,
  startToCloseTimeout: seconds(20),
  retry: patient,
});

export const build = proxyActivities<BuildActivities>({
  taskQueue: queues.build,
  // To find what does not fit, each engine loads the content a few dozen times.
  startToCloseTimeout: seconds(1_800),
  heartbeatTimeout: seconds(10),
  retry: patient,
});

/** The database that knows the fleet may be away for a while: nothing is exposed yet, so the plan waits for it. */
export const planning = proxyActivities<Pick<MatrixActivities, 'planMatrix' | 'compareCells' | 'readOverrides'>>({
  taskQueue: queues.engines,
  startToCloseTimeout: seconds(60),
  retry: patient,
});

/** A cell that a worker took with it when it died is run again, elsewhere: the heartbeat tells. */
export const engines = proxyActivities<Pick<MatrixActivities, 'runMatrixCell'>>({
  taskQueue: queues.engines,
  startToCloseTimeout: seconds(1_800),
  heartbeatTimeout: seconds(10),
  retry: { ...patient, maximumAttempts: 5 },
});

export const publish = proxyActivities<PublishActivities>({
  taskQueue: queues.publish,
  startToCloseTimeout: seconds(60),
  retry: patient,
});

export const rollout = proxyActivities<RolloutActivities>({
  taskQueue: queues.release,
  startToCloseTimeout: seconds(60),
  retry: patient,
});

/** Watching lasts as long as a stage and is cheap to begin again: a lost heartbeat means a lost worker. */
export const watching = proxyActivities<RolloutActivities>({
  taskQueue: queues.release,
  startToCloseTimeout: '30 days',
  heartbeatTimeout: seconds(10),
  cancellationType: ActivityCancellationType.TRY_CANCEL,
  retry: { ...patient, maximumInterval: seconds(1) },
});

/** Exposure down: tried again quickly and for ever, on slots of its own. */
export const stopping = proxyActivities<Omit<HaltActivities, 'thawExposure'>>({
  taskQueue: queues.halt,
  startToCloseTimeout: seconds(10),
  retry: { initialInterval: 100, backoffCoefficient: 1.5, maximumInterval: seconds(1) },
});

/** What raises exposure is waited for, also when it is not wanted any more: its attempt may still take effect. */
export const thawing = proxyActivities<Pick<HaltActivities, 'thawExposure'>>({
  taskQueue: queues.halt,
  startToCloseTimeout: seconds(10),
  cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
  retry: patient,
});

/**
 * Tries again what an activity calls final, too: for what must not be given up. A freeze, a rollback and the log have no
 * other way on, and who repairs the store or the log finds that it goes on by itself.
 */
export const insist = async <T>(work: () => Promise<T>): Promise<T> => {
  for (let pause = seconds(1); ; pause = Math.min(pause * 2, seconds(60))) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof ActivityFailure) || isCancellation(error)) throw error;
      await sleep(pause);
    }
  }
};
