/** What a process has begun and has to end: in the order in which data flows, each whatever becomes of the others. */
import type { Log } from '../infra/kafka/client.ts';

export type Endings = {
  add(end: () => Promise<unknown>): void;
  /** The last begun first. Waits for each; what does not end in order is said, and is over. Asked again it is the same end. */
  end(): Promise<void>;
};

export const createEndings = (log: Log): Endings => {
  const begun: (() => Promise<unknown>)[] = [];
  let ending: Promise<void> | undefined;
  const endAll = async (): Promise<void> => {
    for (let end = begun.pop(); end !== undefined; end = begun.pop()) {
      // One that cannot end in order, its server being away, must not keep the others from ending.
      await end().catch((error) => log('warn', { error: String(error) }, 'a service did not end in order'));
    }
  };
  return {
    add: (end) => begun.push(end),
    end: () => {
      ending ??= endAll();
      return ending;
    },
  };
};
