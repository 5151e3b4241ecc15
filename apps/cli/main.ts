/** The command line. Exit codes: 0 done or healthy, 1 error, 2 usage, 3 release not completed, 4 waited in vain. */
import { Command, CommanderError } from 'commander';
import { SigrelError } from '../../domain/errors.ts';
import manifest from '../../package.json' with { type: 'json' };
import { addDemoCommand } from './commands/demo.ts';
import { addDeviceCommands } from './commands/device.ts';
import { addDirectorCommands } from './commands/director.ts';
import { addEngineCommands } from './commands/engines.ts';
import { addEvidenceCommand } from './commands/evidence.ts';
import { addFleetCommands } from './commands/fleet.ts';
import { addFreezeCommands } from './commands/freeze.ts';
import { addHistoryCommands } from './commands/history.ts';
import { addJudgeCommands } from './commands/judge.ts';
import { addLintCommand } from './commands/lint.ts';
import { addMatrixCommands } from './commands/matrix.ts';
import { addReleaseCommands } from './commands/release.ts';
import { addServerCommands } from './commands/servers.ts';
import { ApiError } from './context.ts';
import { createGlobal } from './global.ts';
import { note, paint, wrap } from './output.ts';

const program = new Command('sigrel')
  .description(manifest.description)
  .version(manifest.version)
  .option('--state <folder>', 'state folder of the servers and services to talk to (default: .sigrel of the checkout)')
  .configureHelp({ showGlobalOptions: true })
  .showHelpAfterError('(sigrel COMMAND --help shows how)')
  .addHelpText(
    'after',
    `
Examples:
  $ sigrel up --detach                                   servers and services on this machine
  $ sigrel family init examples/families/ips             a family with its baseline
  $ sigrel fleet simulate                                3,000 devices (leave it running)
  $ sigrel release start examples/releases/good --policy examples/demo/policy.yaml -w
  $ sigrel timeline RELEASE                              what happened, from Kafka

Exit codes: 0 done or healthy, 1 error, 2 usage, 3 release blocked, halted, failed or cancelled, 4 waited in vain.`,
  )
  .exitOverride();

const global = createGlobal(() => program.opts<{ state?: string }>().state);
addServerCommands(program, global);
addReleaseCommands(program, global);
addMatrixCommands(program, global);
addFleetCommands(program, global);
addDeviceCommands(program, global);
addHistoryCommands(program, global);
addEngineCommands(program, global);
addLintCommand(program, global);
addFreezeCommands(program, global);
addDirectorCommands(program, global);
addEvidenceCommand(program, global);
addJudgeCommands(program, global);
addDemoCommand(program, global);

/** Inherited by commands only when they are made, so it is set on all of them here. */
const overrideExit = (command: Command): void => {
  command.exitOverride();
  for (const sub of command.commands) overrideExit(sub);
};
overrideExit(program);

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

try {
  await program.parseAsync();
  exit(process.exitCode ?? 0);
} catch (error) {
  exit(explain(error));
}
