/**
 * `npm run bench -- matrix`: the matrix of the example families over every pack, what sigrel adds to an engine run, and a
 * large real rule set. No servers; a store of results of its own.
 */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { checkout } from '../../apps/cli/context.ts';
import { out, table } from '../../apps/cli/output.ts';
import type { Family } from '../../domain/content/family.ts';
import { languageOf } from '../../domain/content/language.ts';
import type { Rule } from '../../domain/content/rules.ts';
import type { MatrixTools } from '../../domain/matrix/run-cell.ts';
import { loadFamily } from '../../infra/content/load-family.ts';
import { createEngines } from '../../infra/engines/catalogue.ts';
import { type LocalMatrix, testFamily } from '../../infra/engines/local-matrix.ts';
import { acquirePacks, engineCommand, type Pack, packsOf } from '../../infra/engines/packs.ts';
import { createEngineRunner } from '../../infra/engines/runner.ts';
import { createMatrixTools } from '../../infra/engines/tools.ts';
import { inParallel } from '../../infra/in-parallel.ts';
import { type Progress, step } from '../../infra/servers/progress.ts';
import { median } from './median.ts';

const families = ['ips', 'yara', 'av'] as const;
const reversinglabs = join(
  process.env.SIGREL_SHARED ?? join(checkout, '..', 'shared'),
  'data',
  'yara',
  'reversinglabs',
);

/** Measures and prints; returns every figure. */
export const benchMatrix = async (progress: Progress): Promise<object> => {
  const dir = await mkdtemp(join(tmpdir(), 'sigrel-bench-matrix-'));
  try {
    const tools = measured(createMatrixTools(createEngines(progress), join(dir, 'cells')));
    const examples: Family[] = [];
    for (const name of families) examples.push(await load(join(checkout, 'examples', 'families', name)));
    const packs = new Map<Family, readonly Pack[]>();
    for (const family of examples) packs.set(family, await acquirePacks(progress, packsOf(family.language.engines)));
    const all = async (from: string): Promise<LocalMatrix[]> => {
      const found = [];
      for (const family of examples) {
        const builds = (packs.get(family) ?? []).map(({ build }) => build);
        found.push(await testFamily(tools.tools, family, builds, { previous: family.rules, from }));
      }
      return found;
    };
    const load1 = loadavg()[0] ?? 0;
    // What a process does only once, hashing the good files, is no part of a matrix.
    for (const family of examples.filter(({ language }) => language.looksAt === 'files'))
      for (const { build } of packs.get(family) ?? []) await tools.tools.goodware(build);
    const first = await timed(() => step(progress, 'matrix of the example families, every cell', () => all('first')));
    const engineMs = tools.engineMs();
    const second = await timed(() => step(progress, 'the same again', () => all('second')));
    const cells = first.value.flatMap((matrix) => matrix.cells);
    const red = cells.filter(({ result }) => result.verdict !== 'pass').map(({ result }) => result.cellId);
    const reused = second.value.flatMap((matrix) => matrix.cells).filter(({ result }) => result.reused).length;
    const cellMs = cells.reduce((sum, { result }) => sum + result.wallMs, 0);
    const figures = {
      cells: cells.length,
      ...{ red, reused, load1, cores: availableParallelism() },
      firstMs: Math.round(first.ms),
      busyShare: first.cpuMs / (first.ms * availableParallelism()),
      secondMs: Math.round(second.ms),
      secondShare: second.ms / first.ms,
      cellOverhead: cellMs / engineMs - 1,
    };
    const overhead = await benchOverhead(packs, dir, progress);
    out(
      table(
        [{ name: 'matrix of the example families' }, { name: 'figure', right: true }, { name: 'aim' }],
        [
          ['cells over all packs, and how many are not green', `${cells.length}, ${red.length}`, ''],
          ['wall time', `${(first.ms / 1_000).toFixed(1)} s`, ''],
          ['busy share of the cores (this process and its children)', percent(figures.busyShare), '>= 90 %'],
          [`second run with nothing changed (${reused} reused), of the first`, percent(figures.secondShare), '<= 5 %'],
          ['time of the cells beyond that of their engine runs', percent(figures.cellOverhead), '<= 15 %'],
          ...overhead.map(({ name, ratio, ours, bare }) => [
            `${name}: engine run by sigrel against by hand (${ours} against ${bare} ms)`,
            percent(ratio - 1),
            '<= 15 %',
          ]),
          ['load of the machine before', load1.toFixed(1), ''],
        ],
      ),
    );
    return { ...figures, overhead, reversinglabs: await benchLarge(packs.get(examples[1] as Family) ?? [], progress) };
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
};

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;

const load = async (folder: string): Promise<Family> => {
  const loaded = await loadFamily(folder);
  if (loaded.ok) return loaded.family;
  throw new Error(`${folder} cannot be read: ${loaded.findings[0]?.message}`);
};

/** The tools, and how long their engine runs took in all. */
const measured = (tools: MatrixTools): { readonly tools: MatrixTools; engineMs(): number } => {
  let sum = 0;
  const run: MatrixTools['engines']['run'] = async (...args) => {
    const started = performance.now();
    const found = await tools.engines.run(...args);
    sum += performance.now() - started;
    return found;
  };
  return { tools: { ...tools, engines: { run } }, engineMs: () => sum };
};

/** Processor time of this process and of its children that have ended (proc(5), stat: utime to cstime), in ms. */
const cpuMs = (): number => {
  const stat = readFileSync('/proc/self/stat', 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return [11, 12, 13, 14].reduce((ticks, field) => ticks + Number(fields[field]), 0) * 10;
};

const timed = async <T>(work: () => Promise<T>): Promise<{ value: T; ms: number; cpuMs: number }> => {
  const [started, before] = [performance.now(), cpuMs()];
  const value = await work();
  return { value, ms: performance.now() - started, cpuMs: cpuMs() - before };
};

/** The newest engine of each kind: the same rules and inputs through the runner and by a bare command line, in turn. */
const benchOverhead = async (
  packs: ReadonlyMap<Family, readonly Pack[]>,
  dir: string,
  progress: Progress,
): Promise<readonly { name: string; ours: number; bare: number; ratio: number }[]> => {
  const found = [];
  for (const [family, all] of packs) {
    for (const name of family.language.engines) {
      const pack = all.filter(({ build }) => build.name === name).at(-1);
      if (!pack) continue;
      const inputs = family.vectors.map(({ name: input, bytes }) => ({ name: input, bytes }));
      const rules = family.language.artefact(family.rules);
      const runner = createEngineRunner([pack]);
      const { signal } = new AbortController();
      const mode = family.language.modes[0] ?? 'scan';
      const bareCommand = await prepareBare(pack, family, rules, join(dir, name));
      const ours: number[] = [];
      const bare: number[] = [];
      await step(progress, `${name} ${pack.build.version} by sigrel and by hand`, async () => {
        for (let round = 0; round < 15; round += 1) {
          ours.push((await timed(() => runner.run(pack.build, { rules, inputs, mode }, signal))).ms);
          bare.push((await timed(() => plainly(bareCommand))).ms);
        }
      });
      const [a, b] = [median(ours), median(bare)];
      found.push({ name: `${name} ${pack.build.version}`, ours: Math.round(a), bare: Math.round(b), ratio: a / b });
    }
  }
  return found;
};

/** The files that a person would have, and the command that they would type. */
const prepareBare = async (pack: Pack, family: Family, rules: Uint8Array, dir: string): Promise<readonly string[]> => {
  const inputs = join(dir, 'inputs');
  await mkdir(inputs, { recursive: true });
  const ending = family.language.looksAt === 'captures' ? '.pcap' : '';
  for (const { name, bytes } of family.vectors) await writeFile(join(inputs, `${name}${ending}`), bytes);
  const listed = join(dir, 'list');
  const paths = (await readdir(inputs)).map((name) => join(inputs, name));
  await writeFile(listed, `${paths.join('\n')}\n`);
  const file = join(dir, 'rules');
  await writeFile(file, rules);
  switch (pack.build.name) {
    case 'suricata': {
      const { suricataConfig } = await import('../../infra/engines/suricata-config.ts');
      const config = join(dir, 'suricata.yaml');
      await writeFile(config, suricataConfig({ pack: pack.dir, log: dir }, Number.parseInt(pack.build.version, 10)));
      const options = ['-c', config, '-S', file, '-r', inputs, '-l', dir, '-k', 'none', '--runmode', 'single'];
      return [...engineCommand(pack), ...options];
    }
    case 'yara':
      return [...engineCommand(pack), '-S', '-w', '-p', '1', '--scan-list', file, listed];
    case 'clamav': {
      const { clamavSections } = await import('../../domain/content/clamav.ts');
      const database = join(dir, 'database');
      await mkdir(database);
      for (const { name, bytes } of clamavSections(rules)) await writeFile(join(database, name), bytes);
      const options = ['-d', database, '--file-list', listed, '--allmatch', '--bytecode=no', '--alert-exceeds-max=yes'];
      return [...engineCommand(pack), ...options];
    }
    default: {
      const job = join(dir, 'job.json');
      const given = paths.map((path) => ({ name: path, path }));
      await writeFile(
        job,
        JSON.stringify({ pack: pack.dir, rules: file, apart: null, inputs: given, out: join(dir, 'out'), seconds: 60 }),
      );
      const program = (name: string) => join(checkout, 'infra', 'engines', name);
      return existsSync(join(pack.dir, 'site'))
        ? ['python3', '-I', '-B', program('yara-x-pypi.py'), job]
        : [process.execPath, program('yara-x-npm.mjs'), job];
    }
  }
};

const plainly = ([command = '', ...args]: readonly string[]): Promise<void> =>
  new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: 'ignore' });
    child.on('error', reject);
    child.on('close', () => resolve());
  });

/** 1,204 rules of a vendor through every engine: one run each over one small file, two at a time in all. */
const benchLarge = async (packs: readonly Pack[], progress: Progress): Promise<object | null> => {
  if (!existsSync(reversinglabs)) {
    out(`\nno ${reversinglabs}: set SIGREL_SHARED to the folder with data/ for the large rule set`);
    return null;
  }
  const yara = languageOf('yara');
  const rules: Rule[] = [];
  for (const entry of (await readdir(reversinglabs, { recursive: true })).sort()) {
    if (!entry.endsWith('.yara')) continue;
    rules.push(...yara.parse(entry, await readFile(join(reversinglabs, entry), 'utf8')).rules);
  }
  const artefact = yara.artefact(rules);
  const runner = createEngineRunner(packs);
  const { signal } = new AbortController();
  const inputs = [{ name: 'program', path: process.argv[1] ?? import.meta.filename }];
  const measure = async ({ build }: Pack) => {
    const run = await runner.run(build, { rules: artefact, inputs, mode: 'scan' }, signal);
    const peak = run?.kind === 'completed' ? run.peakBytes : null;
    return {
      engine: `${build.name} ${build.version}`,
      loaded: run?.kind === 'completed' ? run.loaded : null,
      ms: run?.wallMs ?? 0,
      peakMb: peak === null ? null : Math.round(peak / 2 ** 20),
    };
  };
  const { value: rows, ...whole } = await timed(() =>
    step(progress, `${rules.length} rules on ${packs.length} engines`, () => inParallel(packs, 2, measure)),
  );
  out(`\n${rules.length} real rules, one run per engine, two at a time: ${(whole.ms / 1_000).toFixed(1)} s in all`);
  const columns = ['engine', 'rules loaded', 'time', 'peak memory'].map((name, at) => ({ name, right: at > 0 }));
  const cells = rows.map(({ engine, loaded, ms, peakMb }) => [
    ...[engine, String(loaded ?? 'none'), `${(ms / 1_000).toFixed(2)} s`, peakMb === null ? '' : `${peakMb} MB`],
  ]);
  out(table(columns, cells));
  return { rules: rules.length, wallMs: Math.round(whole.ms), engines: rows };
};
