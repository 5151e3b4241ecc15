/** What a detection engineer does before there is a release: engines and lint, through the command line, without servers. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { acquirePacks } from '../../infra/engines/packs.ts';
import { runCli } from '../support/cli.ts';
import { examples } from '../support/pipeline.ts';

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sigrel-authoring-'));
  await acquirePacks(() => {});
}, 600_000);
afterAll(async () => {
  await rm(dir, { recursive: true, force: true });
});

const sigrel = (...args: string[]) => runCli(['--state', dir, ...args]);

describe('engines', () => {
  test('list and qualify name each engine with its source, digest and verdict', async () => {
    const qualified = await sigrel('engines', 'qualify', '--json');
    expect(qualified.code).toBe(0);
    const { engines: verdicts } = JSON.parse(qualified.out);
    expect(verdicts.map((one: { passed: boolean }) => one.passed)).toEqual(verdicts.map(() => true));
    const { engines } = JSON.parse((await sigrel('engines', 'list', '--json')).out);
    expect(new Set(engines.map(({ name }: { name: string }) => name))).toEqual(
      new Set(['suricata', 'yara', 'yara-x', 'clamav']),
    );
    for (const engine of engines) {
      expect(engine).toMatchObject({ source: expect.stringMatching(/^(Debian .+|npm|PyPI)$/) });
      expect(engine.build.digest).toMatch(/^[0-9a-f]{64}$/);
      if (!verdicts.some((one: { engine: string }) => one.engine.startsWith(`${engine.name}-${engine.version}-`)))
        continue; // not for this machine, or moved on
      expect(engine.qualified).toMatchObject({ passed: true, by: { family: expect.any(String) } });
    }
  });

  test('try says what was loaded, what was not and why, and what alerted', async () => {
    const rules = join(dir, 'some.rules');
    const lines = [
      'alert http any any -> any any (msg:"any request"; http.method; content:"T"; sid:1;)',
      'alert http any any -> any any (msg:"unknown"; nosuch.keyword; content:"x"; sid:2;)',
    ];
    await writeFile(rules, `${lines.join('\n')}\n`);
    const input = join(examples, 'families', 'ips', 'vectors', 'clean-browsing.pcap');
    const { engines } = JSON.parse((await sigrel('engines', 'list', '--json')).out);
    for (const { name, version } of engines.filter((one: { name: string }) => one.name === 'suricata')) {
      const ran = await sigrel('engines', 'try', `${name}@${version}`, '--rules', rules, '--input', input, '--json');
      const tried = JSON.parse(ran.out);
      expect(tried).toMatchObject({ outcome: 'completed', rulesLoaded: 1, rulesFailed: 1 });
      expect(tried.notLoaded).toEqual([{ id: 2, words: expect.stringContaining('nosuch.keyword') }]);
      expect(tried.alerts['1']).toBeGreaterThan(0);
      expect(ran.code).toBe(3);
    }
  });

  test('what is no engine, no rule and no capture is refused by name', async () => {
    const rules = join(examples, 'releases', 'good', 'rules', 'campaign.rules');
    const refused = async (words: RegExp, ...args: string[]) =>
      expect(await sigrel('engines', 'try', ...args)).toMatchObject({ code: 1, err: words });
    await refused(/SRP_MISSING_ENGINE.*known are suricata@/, 'suricata@1.0', '--rules', rules);
    await refused(/SRP_INPUT_FILE.*none\.rules/, 'suricata@6.0.1', '--rules', 'none.rules');
    await refused(/SRP_INPUT_CAPTURE/, 'suricata@6.0.1', '--rules', rules, '--input', rules);
    await writeFile(join(dir, 'empty.rules'), '# nothing\n');
    await refused(/SRP_INPUT_RULES/, 'suricata@6.0.1', '--rules', join(dir, 'empty.rules'));
  });
});

describe('lint', () => {
  test('content that fits every engine', async () => {
    const ran = await sigrel('lint', join(examples, 'releases', 'good'));
    expect(ran).toMatchObject({ code: 0, out: expect.stringContaining('fit every engine') });
  });

  test('a rule that not every engine knows: its place, the engine and its words, as text, JSON and heat map', async () => {
    const folder = join(examples, 'releases', 'astaro');
    const html = join(dir, 'astaro.html');
    const people = await sigrel('lint', folder, '--html', html);
    expect(people.code).toBe(3);
    expect(people.out).toMatch(/rules\/campaign\.rules:2.*rule 1000033/);
    const programs = await sigrel('lint', folder, '--json');
    expect(programs.code).toBe(3);
    const { rules, cells } = JSON.parse(programs.out);
    const rule = rules.find((one: { ruleId: number }) => one.ruleId === 1000033);
    expect(rule).toMatchObject({ file: 'rules/campaign.rules', line: 2 });
    const verdicts = Object.entries<{ verdict: string }>(rule.cells).map(([cell, { verdict }]) => [
      cell.replace(/-[0-9a-f]{8}\//, '/'),
      verdict,
    ]);
    expect(Object.fromEntries(verdicts)).toMatchObject({
      'suricata-6.0.1/ids': 'not-loaded',
      'suricata-7.0.10/ips': 'not-loaded',
      'suricata-8.0.7/ids': 'ok',
    });
    expect(cells.filter((cell: { verdict: string }) => cell.verdict === 'fail')).toHaveLength(4);
    const page = await readFile(html, 'utf8');
    expect(page).toContain('1000033');
    expect(page).toContain('class="not-loaded"');
    expect(page).not.toMatch(/src=|href=/); // one file, nothing from elsewhere
  });

  test('what can be seen without an engine is said at once', async () => {
    const ran = await sigrel('lint', join(dir, 'nowhere'));
    expect(ran).toMatchObject({ code: 3, out: expect.stringContaining('there is no folder') });
  });
});
