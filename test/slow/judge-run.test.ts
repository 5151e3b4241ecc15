import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stripVTControlCharacters as plain } from 'node:util';
import { afterAll, expect, test } from 'vitest';
import { main, runCli } from '../support/cli.ts';

const dir = mkdtempSync(join(tmpdir(), 'sigrel-judge-'));
afterAll(() => rmSync(dir, { recursive: true }));
const recorded = (name: string): string => join(import.meta.dirname, '../vectors/halt/series', name);
const crash = recorded('02-crash-x100-fleet-wide.json');
// biome-ignore lint/suspicious/noExplicitAny: tests break the file in many places
const changed = (change: (series: any) => void): string => {
  const series = JSON.parse(readFileSync(crash, 'utf8'));
  change(series);
  const file = join(dir, 'series.json');
  writeFileSync(file, JSON.stringify(series));
  return file;
};

test('a recorded series: statistics per tick, decision, all as expected, 100 columns at most', async () => {
  const { code, out } = await runCli(['judge', 'run', crash]);
  expect(code).toBe(0);
  expect(out).toContain('HALT at tick 50: crash/*');
  expect(out).toMatch(/all \d+ values as expected/);
  expect(
    Math.max(
      ...plain(out)
        .split('\n')
        .map((line) => line.length),
    ),
  ).toBeLessThanOrEqual(100);
});

test('with --json every value, and the tick from which a gate is open', async () => {
  const { code, out } = await runCli(['judge', 'run', recorded('01-healthy-release.json'), '--json']);
  expect(code).toBe(0);
  expect(JSON.parse(out)).toMatchObject({ hold: null, halt: null, promoteReady: 112, differences: [] });
});

test('another decision than expected: exit code 3, and what differs', async () => {
  const file = changed((series) => {
    series.expected.decision.halt.tick = 49;
  });
  const { code, out } = await runCli(['judge', 'run', file]);
  expect(code).toBe(3);
  expect(out).toContain('HALT: tick 50, crash/*, expected tick 49, crash/*');
});

test('bad input: exit code 1, naming the file and what is wrong', async () => {
  const cases: [string, RegExp][] = [
    [join(dir, 'nowhere.json'), /nowhere\.json: cannot be read/],
    [changed((series) => delete series.policy.keys), /series\.json: policy\.keys/],
    [join(import.meta.dirname, 'judge-run.test.ts'), /no valid JSON/],
  ];
  for (const [file, message] of cases) {
    const { code, err } = await runCli(['judge', 'run', file]);
    expect(err).toMatch(message);
    expect(code).toBe(1);
  }
  const heavy = changed((series) => {
    series.policy.cells[0].weight = 3;
  });
  const { code, err } = await runCli(['judge', 'run', heavy]);
  expect(err).toMatch(/the policy is not sound: the weights of all cells/);
  expect(code).toBe(1);
});

test('a reader that is slow gets all of a long answer, and one that has enough of it is no error', () => {
  const command = `"${process.execPath}" "${main}" judge run "${recorded('01-healthy-release.json')}" --json`;
  const read = (reader: string) => execFileSync('bash', ['-o', 'pipefail', '-c', `${command} | ${reader}`]).toString();
  // More than a pipe holds: what has not left the process when it ends would be lost.
  const slow = read('(sleep 1; cat)');
  expect(slow.length).toBeGreaterThan(65_536);
  expect(JSON.parse(slow)).toMatchObject({ differences: [] });
  expect(read('head -c 100')).toHaveLength(100);
});
