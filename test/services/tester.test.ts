/** The tester itself is tested: an engine that is replaced by something else never makes a cell green. */
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Family } from '../../domain/content/family.ts';
import type { MatrixTools } from '../../domain/matrix/run-cell.ts';
import { type TestedCell, testCell } from '../../domain/matrix/test-cell.ts';
import type { EngineRunner } from '../../domain/ports.ts';
import type { Cell, EngineBuild } from '../../domain/release.ts';
import { canBeOverridden } from '../../domain/waiver.ts';
import { controlsDigest, digestOf, digestOfBytes, runnerDigest, testDigest } from '../../infra/content/digests.ts';
import { loadFamily } from '../../infra/content/load-family.ts';
import { defaultLimits } from '../../infra/engines/isolated.ts';
import { testFamily } from '../../infra/engines/local-matrix.ts';
import { acquirePacks, type Pack } from '../../infra/engines/packs.ts';
import { createEngineRunner } from '../../infra/engines/runner.ts';

const build: EngineBuild = {
  name: 'suricata',
  version: '7.0.10',
  packageVersion: '1:7.0.10-1',
  digest: 'a'.repeat(64),
};
const cell: Cell = { cellId: 'suricata-7.0.10-aaaaaaaa/ids', engine: build, mode: 'ids', devices: 1 };

let dir: string;
let family: Family;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sigrel-tester-'));
  const loaded = await loadFamily(join(import.meta.dirname, '..', '..', 'examples', 'families', 'ips'));
  if (!loaded.ok) throw new Error(JSON.stringify(loaded.findings));
  family = loaded.family;
});
afterAll(() => rm(dir, { recursive: true, force: true }));

/** A pack whose engine is a shell script; it finds the rules in $rules, and its log folder in $log. */
const stub = async (name: string, script: string): Promise<Pack> => {
  const folder = join(dir, name);
  await mkdir(join(folder, 'lib'), { recursive: true });
  await mkdir(join(folder, 'bin'));
  const program = join(folder, 'lib', 'ld-linux-x86-64.so.2');
  await writeFile(
    program,
    `#!/bin/bash
while [ $# -gt 0 ]; do case "$1" in -S) rules="$2"; shift;; -l) log="$2"; shift;; esac; shift; done
count=$(grep -c '^alert\\|^drop' "$rules")
say() { echo "{\\"event_type\\":\\"stats\\",\\"stats\\":{\\"decoder\\":{\\"pkts\\":1000000},\\"detect\\":{\\"engines\\":[{\\"rules_loaded\\":$1,\\"rules_failed\\":$2,\\"rules_skipped\\":0}]}}}" >> "$log/eve.json"; }
runs="${folder}/runs"; echo run >> "$runs"
${script}
`,
  );
  await chmod(program, 0o755);
  return { build, dir: folder, wanted: build.version } as Pack;
};

const grade = (pack: Pack, wallMs = 20_000): Promise<TestedCell> => {
  const engines = createEngineRunner([pack], { ...defaultLimits, wallMs });
  const content = { family, rules: family.rules, previous: null, shipped: null, goodware: [], smoke: [] };
  return testCell({ engines, now: Date.now }, cell, content, new AbortController().signal);
};
const reasons = ({ result }: TestedCell) =>
  result.gates.filter(({ verdict }) => verdict !== 'pass').map((gate) => [gate.gate, gate.verdict, gate.observed]);

describe('an engine that was replaced', () => {
  test('always says yes: the run is void, since known-bad was accepted', async () => {
    const tested = await grade(await stub('yes', 'say "$count" 0'));
    expect(tested.result.verdict).toBe('void');
    expect(reasons(tested)[0]).toEqual(['controls', 'void', expect.stringContaining('0 refused')]);
  });

  test('always says no: red, since nothing is loaded, known-good neither; nobody can let it pass', async () => {
    const tested = await grade(await stub('no', 'say 0 "$count"'));
    expect(tested.result.verdict).toBe('fail');
    expect(canBeOverridden(tested.result)).toBe(false);
    expect(reasons(tested)[0]).toEqual(['controls', 'fail', expect.stringContaining('0 accepted')]);
    expect(reasons(tested).map(([gate]) => gate)).toContain('rules-loaded');
    expect(tested.result.rulesLoaded).toBe(0);
  });

  test('answers the counts that are asked for and detects nothing: void', async () => {
    const tested = await grade(await stub('counts', 'if [ "$count" -lt 9 ]; then say 1 3; else say "$count" 0; fi'));
    expect(tested.result.verdict).toBe('void');
  });

  test('hangs: it is ended after its time, with its children, and the run is void', async () => {
    const children = join(dir, 'hangs', 'children');
    // In /proc stand the numbers that processes have outside, whatever they are inside.
    const child = `sh -c 'read -r pid rest < /proc/self/stat; echo $pid >> "$0"; exec sleep 600.7' '${children}'`;
    const tested = await grade(await stub('hangs', `${child} & wait`), 5_000);
    expect(tested.result.verdict).not.toBe('pass');
    expect(reasons(tested)[0]).toEqual(['controls', 'void', 'timeout']);
    const pids = (await readFile(children, 'utf8')).trim().split('\n');
    const isSleeping = async (pid: string) =>
      (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')) === 'sleep\x00600.7\x00';
    await expect.poll(() => Promise.all(pids.map(isSleeping))).toEqual(pids.map(() => false));
  });

  test('says nothing at all: void', async () => {
    expect((await grade(await stub('mute', 'exit 0'))).result.verdict).toBe('void');
  });

  test('dies in the middle: the runs before it do not make the cell green', async () => {
    const honest = `control() { for sid in 999999901; do echo "{\\"event_type\\":\\"alert\\",\\"src_ip\\":\\"\\",\\"dest_ip\\":\\"\\",\\"alert\\":{\\"signature_id\\":$sid,\\"action\\":\\"allowed\\"}}" >> "$log/eve.json"; done; }
[ $(wc -l < "$runs") -ge 2 ] && kill -SEGV $$
control; say 1 3`;
    const pack = await stub('dies', honest);
    const tested = await grade(pack);
    expect(tested.result).toMatchObject({ verdict: 'fail', rulesLoaded: null });
    expect(reasons(tested)).toEqual([['result', 'fail', 'signal']]);
    expect((await readFile(join(pack.dir, 'runs'), 'utf8')).trim().split('\n')).toHaveLength(2);
  });

  test('is another build than the one that devices run: it is not asked at all', async () => {
    const pack = await stub('other', 'say "$count" 0');
    const other = { ...pack, build: { ...build, digest: 'b'.repeat(64) } };
    const tested = await grade(other);
    expect(tested.result.verdict).toBe('error');
    expect(reasons(tested)).toEqual([['result', 'error', 'none']]);
    await expect(readFile(join(pack.dir, 'runs'))).rejects.toThrow();
  });

  test('dies at the 20th cell of a matrix: that cell is red, whatever the nineteen before it said', async () => {
    const [real] = await acquirePacks(() => {}, ['suricata@7.0.10']);
    if (!real) throw new Error('no pack of suricata 7.0.10');
    const builds = Array.from({ length: 20 }, (_, n) => ({
      ...build,
      digest: String(n).padStart(8, '0').padEnd(64, '0'),
    }));
    const runner = createEngineRunner([real]);
    const dying = createEngineRunner([await stub('twentieth', 'kill -SEGV $$')]);
    const asked = new Set<string>();
    const engines: EngineRunner = {
      run: async (engine, input, signal) => {
        asked.add(engine.digest);
        const position = [...asked].indexOf(engine.digest);
        return position < 19 ? runner.run(real.build, input, signal) : dying.run(build, input, signal);
      },
    };
    const none = { get: async () => null, put: async () => {} };
    const tools: MatrixTools = {
      ...{ engines, cells: none, qualified: none, goodware: async () => null, smoke: [], now: Date.now },
      ...{ digestOf, digestOfBytes, controlsDigest, testDigest, runnerDigest },
    };
    const configurations = [{ name: 'ids', mode: 'ids' as const }];
    const matrix = await testFamily(tools, { ...family, configurations }, builds, { previous: null, from: 'test' });
    const verdicts = matrix.cells.map(({ result }) => result.verdict);
    expect(verdicts.filter((verdict) => verdict === 'pass')).toHaveLength(19);
    const last = matrix.cells.find(({ result }) => result.verdict !== 'pass');
    expect(last?.result.gates.map(({ gate, observed }) => [gate, observed])).toContainEqual(['controls', 'signal']);
  });
});
