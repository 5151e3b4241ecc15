/** The command line. Exit codes: 0 done or healthy, 1 error, 2 usage, 3 release not completed, 4 waited in vain. */
import { CommanderError } from 'commander';
import { SigrelError } from '../../domain/errors.ts';
import { ApiError } from './context.ts';
import { note, paint, wrap } from './output.ts';
import { createProgram } from './program.ts';

const explain = (error: unknown): number => {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  if (!(error instanceof SigrelError)) {
    note(paint('red', `sigrel: ${error instanceof Error ? error.stack : String(error)}`));
    return 1;
  }
  note(wrap(`${error.code}: ${error.message}`, '').split('\n').join('\n  '));
  if (error instanceof ApiError) {
    for (const { file, line, message } of error.findings) {
      note(wrap(`${file ? `${file}${line ? `:${line}` : ''}: ` : ''}${message}`, '  '));
    }
  }
  return 1;
};

/** Ends the process when what it said has left it: of a pipe that is read slowly the rest would be lost. */
const exit = (code: number | string): void => {
  process.stdout.write('', () => process.exit(code));
};
// Who reads only the first lines (head) has seen what they wanted.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  process.exit(error.code === 'EPIPE' ? (process.exitCode ?? 0) : 1);
});
// Nobody reads the progress any more: the result and the exit code are still to come.
process.stderr.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') process.exit(1);
});

try {
  await createProgram().parseAsync();
  exit(process.exitCode ?? 0);
} catch (error) {
  exit(explain(error));
}
