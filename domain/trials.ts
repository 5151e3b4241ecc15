/**
 * Silence trials (halt-judge, 2.8): opened by a heartbeat or by the server's knowledge of an offer, due at a fixed time
 * later, counted when they fall due, heard or not. All trials of a queue last equally long, so it stays in order of time.
 */
type Watched = { readonly device: { readonly beats: number } };

export type Trial<M extends Watched> = {
  readonly member: M;
  readonly deadline: number;
  /** The device's number of reports when the trial opened. */
  readonly beat: number;
  readonly treated: boolean;
  /** false: only watched for the device counts; its device is out of the metric's risk set (2.3). */
  readonly judged: boolean;
};

export type TrialQueue<M extends Watched> = { items: Trial<M>[]; head: number };

export const emptyQueue = <M extends Watched>(): TrialQueue<M> => ({ items: [], head: 0 });

export const openTrial = <M extends Watched>(queue: TrialQueue<M>, trial: Trial<M>): void => {
  queue.items.push(trial);
};

/** Takes the next trial whose deadline is at or before `until`; undefined when there is none. */
export const takeDue = <M extends Watched>(queue: TrialQueue<M>, until: number): Trial<M> | undefined => {
  const trial = queue.items[queue.head];
  if (trial === undefined || trial.deadline > until) return undefined;
  queue.head += 1;
  if (queue.head >= 1024 && queue.head * 2 >= queue.items.length) {
    queue.items = queue.items.slice(queue.head);
    queue.head = 0;
  }
  return trial;
};

/** A heartbeat at the very deadline is too late: "before the deadline". */
export const wentSilent = <M extends Watched>(trial: Trial<M>): boolean => trial.member.device.beats === trial.beat;
