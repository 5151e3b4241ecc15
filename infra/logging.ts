/** Logs of the services: one JSON object per line (pino), to a file. */
import pino from 'pino';
import type { Log } from './kafka/client.ts';

/** `component` stands in every line. `close` writes what is still buffered. */
export const createLog = (options: {
  readonly file: string;
  readonly level: string;
}): { readonly of: (component: string) => Log; close(): Promise<void> } => {
  const destination = pino.destination({ dest: options.file, sync: false, mkdir: true });
  let open = true;
  const root = pino({ level: options.level, base: { pid: process.pid } }, destination);
  return {
    of: (component) => {
      const logger = root.child({ component });
      // A client whose connection breaks after the end has nobody left to tell: writing to a closed file would throw.
      return (level, fields, message) => {
        if (open) logger[level](fields, message);
      };
    },
    close: () =>
      new Promise((resolve) => {
        open = false;
        destination.once('close', resolve);
        destination.end();
      }),
  };
};
