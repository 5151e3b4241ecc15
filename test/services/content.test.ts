/** The example family on the real engines: everything loads, every vector gives exactly what it says, in both modes. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import type { Family } from '../../domain/content/family.ts';
import { cellsFor } from '../../domain/matrix/plan.ts';
import { testCell } from '../../domain/matrix/test-cell.ts';
import { loadFamily } from '../../infra/content/load-family.ts';
import { acquirePacks, type Pack, packsOf } from '../../infra/engines/packs.ts';
import { createEngineRunner } from '../../infra/engines/runner.ts';
import { smokeCaptures } from '../../infra/engines/smoke.ts';
import { runSuricata } from '../../infra/engines/suricata.ts';
import { stderrProgress } from '../../infra/servers/progress.ts';

const examples = join(import.meta.dirname, '..', '..', 'examples');
const text = (value: string) => new TextEncoder().encode(value);

let packs: readonly Pack[];
beforeAll(async () => {
  packs = await acquirePacks(stderrProgress(), packsOf(['suricata']));
}, 900_000);

const load = async (folder: string): Promise<Family> => {
  const loaded = await loadFamily(join(examples, folder));
  if (!loaded.ok) throw new Error(JSON.stringify(loaded.findings, null, 1));
  return loaded.family;
};

const gradeAll = async (family: Family) => {
  const engines = createEngineRunner(packs);
  const smoke = smokeCaptures();
  const cells = cellsFor(
    packs.map(({ build }) => build),
    family.configurations,
    {},
  );
  const results = [];
  for (const cell of cells) {
    const content = { family, rules: family.rules, previous: null, shipped: null, goodware: [], smoke };
    const { result } = await testCell({ engines, now: Date.now }, cell, content, new AbortController().signal);
    results.push({ ...result, cellId: `${cell.engine.version}/${cell.mode}` });
  }
  return results;
};
const red = (results: Awaited<ReturnType<typeof gradeAll>>) =>
  results.flatMap((result) =>
    result.gates
      .filter((gate) => gate.verdict !== 'pass')
      .map((gate) => ({ cell: result.cellId, gate: gate.gate, details: gate.details })),
  );

describe('the example content on every engine', () => {
  test.each(['families/ips', 'releases/good', 'releases/blocks-field'])('%s passes in every cell', async (folder) => {
    const family = await load(folder);
    expect(family.rules.length).toBeGreaterThanOrEqual(25);
    expect(red(await gradeAll(family))).toEqual([]);
  });

  test('releases/astaro fails where the keyword is unknown, with the rule and the words of the engine', async () => {
    const results = await gradeAll(await load('releases/astaro'));
    const newest = packs.map((pack) => pack.build.version).filter((version) => Number(version.split('.')[0]) >= 8);
    for (const result of results) {
      const understands = newest.some((version) => result.cellId.startsWith(version));
      expect([result.cellId, result.verdict]).toEqual([result.cellId, understands ? 'pass' : 'fail']);
      if (understands) continue;
      const loaded = result.gates.find((gate) => gate.gate === 'rules-loaded');
      expect(loaded?.details).toMatchObject([{ rule: 1000033, words: expect.stringMatching(/entropy/) }]);
    }
  });

  test.each([
    ['families/ips', 'office', []],
    ['families/ips', 'plant', []],
    ['releases/good', 'office', []],
    ['releases/good', 'plant', []],
    ['releases/blocks-field', 'office', []],
    ['releases/blocks-field', 'plant', [1000034]],
  ] as const)('%s on the %s field profile blocks %j', async (folder, profile, blocked) => {
    const family = await load(folder);
    const bytes = await readFile(join(examples, 'field', `${profile}.pcap`));
    for (const pack of packs) {
      const run = await runSuricata(pack, {
        rules: family.language.artefact(family.rules),
        inputs: [{ name: profile, bytes }],
        mode: 'ips',
      });
      if (run.kind !== 'completed') throw new Error(run.words);
      const dropped = run.alerts.filter((alert) => alert.action === 'blocked').map((alert) => alert.ruleId);
      expect([...new Set(dropped)]).toEqual(blocked);
    }
  });

  // Traffic that an engine does not understand would never be blocked, whatever the content.
  test.each([
    [
      'office',
      [
        'alert dns any any -> any any (dns.query; content:"intranet.example.org"; sid:1;)',
        'alert http any any -> any any (http.uri; content:"/intranet/news"; sid:2;)',
        'alert http any any -> any any (http.method; content:"POST"; http.uri; content:"/login"; sid:3;)',
        'alert tls any any -> any any (tls.sni; content:"mail.example.org"; sid:4;)',
        'alert smtp any any -> any any (flow:established,to_server; content:"ann@example.org"; sid:5;)',
        'alert ssh any any -> any any (flow:to_server; ssh.software; content:"OpenSSH_9.2"; sid:6;)',
      ],
    ],
    [
      'plant',
      [
        'alert dns any any -> any any (dns.query; content:"historian.plant.example"; sid:1;)',
        'alert tcp any any -> any 502 (flow:established,to_server; content:"|01 03 00 00 00 02|"; sid:2;)',
        'alert http any any -> any any (http.uri; content:"/status"; sid:3;)',
        'alert http any any -> any any (http.method; content:"POST"; http.uri; content:"/api/v1/"; sid:4;)',
        'alert udp any any -> any 123 (content:"|1b 00|"; depth:2; sid:5;)',
      ],
    ],
  ])('every conversation of the %s field profile is understood', async (profile, probes) => {
    const bytes = await readFile(join(examples, 'field', `${profile}.pcap`));
    for (const pack of packs) {
      const run = await runSuricata(pack, {
        rules: text(`${probes.join('\n')}\n`),
        inputs: [{ name: profile, bytes }],
        mode: 'ips',
      });
      if (run.kind !== 'completed') throw new Error(run.words);
      const seen = new Set(run.alerts.map((alert) => alert.ruleId));
      expect([pack.build.version, [...seen].sort()]).toEqual([pack.build.version, probes.map((_, index) => index + 1)]);
    }
  });
});
