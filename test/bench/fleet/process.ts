/** A scripted fleet in a process of its own: what it costs is not the pipeline's. */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import type { Fault, FleetPlan, FromFleet, Second, ToFleet } from './plan.ts';

export type Fleet = {
  /** What content does from now on to the devices that take it. */
  harm(fault: Fault): void;
  /** Every second so far. */
  readonly seconds: readonly Second[];
  stop(): Promise<void>;
};

/** Resolves when the gateway has heard every device. Rejects when the process ends before. */
export const startFleet = async (plan: FleetPlan): Promise<Fleet> => {
  const child = fork(join(import.meta.dirname, 'main.ts'), [JSON.stringify(plan)], { stdio: 'inherit' });
  const seconds: Second[] = [];
  const ended = once(child, 'exit');
  const enrolled = new Promise<void>((resolve, reject) => {
    child.on('message', (message: FromFleet) => {
      if (message.kind === 'enrolled') resolve();
      else seconds.push(message);
    });
    child.once('exit', (code) => reject(new Error(`the fleet's process ended with ${code}`)));
  });
  const say = (message: ToFleet): void => {
    if (child.connected) child.send(message);
  };
  await enrolled;
  return {
    harm: (fault) => say({ kind: 'fault', fault }),
    seconds,
    stop: async () => {
      say({ kind: 'stop' });
      await ended;
    },
  };
};
