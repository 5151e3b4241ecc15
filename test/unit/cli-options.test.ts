import { CommanderError } from 'commander';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { createProgram } from '../../apps/cli/program.ts';
import { commandRequest, freezeRequest, overrideRequest, releaseQuery } from '../../services/api/contract.ts';

beforeEach(() => {
  vi.spyOn(process.stderr, 'write').mockReturnValue(true);
});
afterEach(() => {
  vi.restoreAllMocks();
});

/** What a command says of words that it cannot use; nothing is asked of anybody before. */
const refusalOf = async (...args: readonly string[]): Promise<string> => {
  const error = await createProgram()
    .parseAsync(args, { from: 'user' })
    .catch((caught: unknown) => caught);
  if (error instanceof CommanderError) return error.message;
  throw new Error(`${args.join(' ')} was not refused as wrong usage: ${String(error)}`);
};

describe('an option that cannot be used is refused by name, with what was expected', () => {
  const waived = ['matrix', 'exclude', 'ips', 'e', '--by', 'ann', '--reason', 'r'];
  test.each([
    [/--reason <text>.*the reason in 1 to 500 characters, e\.g\. /, ['release', 'halt', 'r-1', '--reason', ' ']],
    [/--reason <text>.*the reason in 1 to 500/, ['freeze', 'ips', '--reason', '']],
    [/--reason <text>.*the reason in 1 to 500/, ['thaw', 'ips', '--reason', 'x'.repeat(501)]],
    [/--reason <text>.*the reason in 1 to 500/, ['director', 'freeze', 'ips', '--reason', '']],
    [/--reason <text>.*the reason in 1 to 500/, ['device', 'revoke', 'fw-1', '--reason', '']],
    [/--by <name>.*a name of 1 to 100 characters, e\.g\. ann/, ['freeze', 'ips', '--reason', 'r', '--by', ' ']],
    [/--id <id>.*3 to 80 of a-z .*e\.g\. ips-2026/, ['release', 'start', 'folder', '--id', 'No Id']],
    [/--note <text>.*at most 500/, ['release', 'start', 'folder', '--note', 'x'.repeat(501)]],
    [/--until <date>.*a day or a moment in UTC, e\.g\. 2027-01-31 or /, [...waived, '--until', 'soon']],
    [/--until <date>.*a day or a moment/, [...waived, '--until', '2027-02-30']],
    [/--until <end>.*expected 30m, 24h, 7d, or a moment/, ['freeze', 'ips', '--reason', 'r', '--until', 'noon']],
    [/--until <end>.*expected 30m/, ['freeze', 'ips', '--reason', 'r', '--until', '5']],
    [/--until <end>.*over already; expected an end/, ['freeze', 'ips', '--reason', 'r', '--until', '2001-01-01']],
    [/--limit <n>.*whole number from 1 to 1000/, ['release', 'list', '--limit', 'many']],
    [/--limit <n>.*whole number from 1 to 100000/, ['dead-letters', '--limit', '0']],
    [/--timeout <time>.*a time like 90s/, ['release', 'get', 'r-1', '-w', '--timeout', '1d']],
  ])('%s', async (words, args) => expect(await refusalOf(...args)).toMatch(words));
});

test('the api says the same to whoever asks it directly', () => {
  const wordsOf = (result: { error?: { issues: readonly { message: string }[] } }) =>
    result.error?.issues.map(({ message }) => message);
  expect(wordsOf(commandRequest.safeParse({ by: '', reason: '' }))).toEqual([
    expect.stringMatching(/^expected a name/),
    expect.stringMatching(/^expected the reason/),
  ]);
  const about = { by: 'ann', reason: 'r' };
  expect(wordsOf(overrideRequest.safeParse({ ...about, cell: 'c', until: 'soon' }))).toEqual([
    expect.stringMatching(/^expected a day or a moment/),
  ]);
  expect(wordsOf(freezeRequest.safeParse({ ...about, until: '24h' }))).toEqual([
    expect.stringMatching(/^expected a moment in UTC/),
  ]);
  expect(wordsOf(releaseQuery.safeParse({ limit: 'many' }))).toEqual([expect.stringMatching(/^expected a whole/)]);
});
