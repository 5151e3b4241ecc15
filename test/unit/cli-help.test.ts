import type { Command } from 'commander';
import { describe, expect, test } from 'vitest';
import { createProgram } from '../../apps/cli/program.ts';

const withSubcommands = (command: Command): readonly Command[] => [
  command,
  ...command.commands.flatMap(withSubcommands),
];
const nameOf = (command: Command): string => `${command.parent ? `${nameOf(command.parent)} ` : ''}${command.name()}`;

/** As it is printed, with what stands after it. */
const helpOf = (command: Command): string => {
  let text = '';
  command.configureOutput({ writeOut: (part) => (text += part), getOutHelpWidth: () => 100 });
  command.outputHelp();
  return text;
};

const all = withSubcommands(createProgram()).map((command) => [nameOf(command), command] as const);

describe('help', () => {
  test('there is a command for everything', () => expect(all.length).toBeGreaterThan(40));

  test.each(all)('%s fits 100 columns', (_, command) => {
    expect(
      helpOf(command)
        .split('\n')
        .filter((line) => line.length > 100),
    ).toEqual([]);
  });

  test.each(all.filter(([, command]) => command.commands.length === 0))('%s has an example', (name, command) => {
    expect(helpOf(command)).toMatch(name === 'sigrel demo' ? /\$ npm run demo/ : new RegExp(`\\$ ${name}\\b`));
  });
});
