/** Progress of things that take longer than two seconds: one line each on a pipe, a live line on a terminal. */

export type Progress = (line: string) => void;

/** A step that says again, every few seconds, that it still runs: nobody should wonder whether a build hangs. */
export const step = async <T>(progress: Progress, what: string, work: () => Promise<T>): Promise<T> => {
  const started = Date.now();
  progress(`${what} ...`);
  const timer = setInterval(() => progress(`${what} ... ${seconds(started)}`), 5_000);
  try {
    const result = await work();
    if (Date.now() - started > 2_000) progress(`${what}: done in ${seconds(started)}`);
    return result;
  } finally {
    clearInterval(timer);
  }
};

/** Lines to standard error; on a terminal a repeated line replaces the one before. */
export const stderrProgress = (): Progress => {
  let last = '';
  return (line) => {
    if (process.stderr.isTTY && last !== '' && line.startsWith(last)) process.stderr.write('\x1b[1A\x1b[2K');
    process.stderr.write(`  ${line}\n`);
    last = line.replace(/ \.\.\..*$/, ' ...');
  };
};

const seconds = (since: number): string => `${((Date.now() - since) / 1000).toFixed(0)} s`;
