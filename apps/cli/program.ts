/** Every command of the command line, with its words of help. */
import { Command } from 'commander';
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
import { createGlobal } from './global.ts';
import { wrap } from './output.ts';

export const createProgram = (): Command => {
  const program = new Command('sigrel')
    .description(manifest.description)
    .version(manifest.version)
    .option(
      '--state <folder>',
      'state folder of the servers and services to talk to (default: .sigrel of the checkout)',
    )
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({ outputError: (text, write) => write(`${wrap(text.trim(), '')}\n`) })
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

Exit codes: 0 done or healthy, 1 error, 2 usage, 4 waited in vain,
3 release blocked, halted, failed or cancelled, and findings.`,
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
  overrideExit(program);
  return program;
};

/** Inherited by commands only when they are made, so it is set on all of them here. */
const overrideExit = (command: Command): void => {
  command.exitOverride();
  for (const sub of command.commands) overrideExit(sub);
};
