/** `sigrel engines`: what detection engines there are, whether they are fit to test with, and one rule file on one of them. */
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { Command } from 'commander';
import { type Family, limits } from '../../../domain/content/family.ts';
import { type Language, languageOf } from '../../../domain/content/language.ts';
import type { Rule } from '../../../domain/content/rules.ts';
import { SigrelError } from '../../../domain/errors.ts';
import { findNotLoaded, type NotLoaded } from '../../../domain/matrix/not-loaded.ts';
import { testControls } from '../../../domain/matrix/test-cell.ts';
import type { EngineInput } from '../../../domain/ports.ts';
import { type EngineBuild, engineId, type RuleId } from '../../../domain/release.ts';
import { plural } from '../../../domain/timeline.ts';
import { controlsDigest, runnerDigest } from '../../../infra/content/digests.ts';
import { loadFamily } from '../../../infra/content/load-family.ts';
import { type Isolation, isolation } from '../../../infra/engines/isolated.ts';
import { acquirePacks, type KnownPack, listPacks, type Pack } from '../../../infra/engines/packs.ts';
import { createEngineRunner } from '../../../infra/engines/runner.ts';
import { stderrProgress, step } from '../../../infra/servers/progress.ts';
import { checkout } from '../context.ts';
import type { Global } from '../global.ts';
import { out, outJson, paint, table, wrap } from '../output.ts';

/** When and by what a pack was last shown to tell good from bad; beside the pack, and of this build only. */
type Qualification = {
  readonly engine: string;
  readonly at: string;
  readonly passed: boolean;
  /** What the controls came to, e.g. `2 accepted, 3 refused, 2 of 2 alerts`. */
  readonly controls: string;
  /** Whose controls these were, their digest, and that of the code that ran them. */
  readonly by: { readonly family: string; readonly controls: string; readonly runner: string };
};

const qualificationFile = (dir: string): string => `${dir}.qualified.json`;

const readQualification = async (pack: KnownPack): Promise<Qualification | null> => {
  if (pack.build === null) return null;
  const text = await readFile(qualificationFile(pack.dir), 'utf8').catch(() => null);
  const found: Qualification | null = text === null ? null : JSON.parse(text);
  // With other code that runs engines, or of another build, nobody has seen it tell good from bad.
  return found?.engine === engineId(pack.build) && found.by.runner === (await runnerDigest()) ? found : null;
};

/** The example family whose controls qualify the engines of a language. */
const controlsFamily = async (language: Language): Promise<Family> => {
  const families = join(checkout, 'examples', 'families');
  for (const name of (await readdir(families)).sort()) {
    const loaded = await loadFamily(join(families, name));
    if (loaded.ok && loaded.family.language === language) return loaded.family;
  }
  const message = `no example family of ${language.name}, whose controls qualify its engines, can be read`;
  throw new SigrelError('SRP_INTEGRITY_CONTROLS', message);
};

export const addEngineCommands = (program: Command, global: Global): void => {
  const engines = program.command('engines').description('the detection engines of the matrix');

  engines
    .command('list')
    .description('every engine there could be: version, source, digest, qualified when')
    .option('--json', 'for programs')
    .addHelpText('after', '\nExample:\n  $ sigrel engines list')
    .action(async (options: { json?: boolean }) => {
      const known = await listPacks();
      const apart = await isolation();
      const list = await Promise.all(
        known.map(async (pack) => ({ ...pack, qualified: await readQualification(pack) })),
      );
      if (options.json) return outJson({ engines: list.map(({ dir: _dir, ...pack }) => pack), isolation: apart });
      const columns = ['engine', 'source', 'package version', 'digest', 'qualified'].map((name) => ({ name }));
      out(
        table(
          columns,
          list.map(({ name, version, source, build, qualified }) => [
            `${name}@${version}${build && build.version !== version ? ` (is ${build.version})` : ''}`,
            source,
            build?.packageVersion ?? paint('dim', 'not fetched'),
            build?.digest.slice(0, 8) ?? '',
            qualified
              ? `${qualified.at.slice(0, 16).replace('T', ' ')}, ${verdictOf(qualified)}, ${qualified.by.family}`
              : '',
          ]),
        ),
      );
      out(isolationLine(apart));
    });

  engines
    .command('install')
    .argument('[engines...]', 'e.g. suricata@7.0.10; all, when none is named')
    .description('fetch engines into the cache; nothing is installed on the machine')
    .option('--json', 'for programs')
    .addHelpText('after', '\nExample:\n  $ sigrel engines install suricata@7.0.10')
    .action(async (names: string[], options: { json?: boolean }) => {
      const packs = await acquire(names);
      if (options.json) return outJson({ engines: packs.map(({ build }) => build) });
      for (const { build } of packs) out(`${engineId(build)} (${build.packageVersion})`);
    });

  engines
    .command('qualify')
    .argument('[engines...]', 'e.g. suricata@7.0.10; all, when none is named')
    .description(
      'show that an engine accepts known-good, refuses known-bad, and detects; exit code 3 when one does not',
    )
    .option('--json', 'for programs')
    .addHelpText('after', '\nExample:\n  $ sigrel engines qualify suricata@7.0.10')
    .action(async (names: string[], options: { json?: boolean }) => {
      const packs = await acquire(names);
      const found: Qualification[] = [];
      await step(stderrProgress(), `controls on ${plural(packs.length, 'engine')}`, async () => {
        for (const pack of packs) found.push(await qualify(pack, await controlsFamily(languageOf(pack.build.name))));
      });
      if (options.json) outJson({ engines: found });
      else
        out(
          table(
            [{ name: 'engine' }, { name: 'verdict' }, { name: 'controls' }],
            found.map((one) => [one.engine, verdictOf(one), one.controls]),
          ),
        );
      if (found.some((one) => !one.passed)) global.exitWith(3);
    });

  engines
    .command('try')
    .argument('<engine>', 'e.g. suricata@6.0.1')
    .requiredOption('--rules <file>', 'the rules to load')
    .option('--input <file>', 'a packet capture (Suricata) or a file to run them over')
    .option('--ips', 'as if inline: what is dropped counts as blocked')
    .option('--json', 'for programs')
    .description(
      'one rule file on one engine, in the isolation of the matrix; exit code 3 when not every rule was loaded',
    )
    .addHelpText(
      'after',
      '\nExample:\n  $ sigrel engines try suricata@6.0.1 --rules examples/releases/astaro/rules/campaign.rules',
    )
    .action(async (name: string, options: TryOptions) => {
      const tried = await tryRules(name, options);
      if (options.json) outJson(tried);
      else sayTried(tried);
      if (tried.outcome !== 'completed' || tried.notLoaded.length > 0) global.exitWith(3);
    });
};

/** For people: what every run has of its own here, and what it has not. */
export const isolationLine = ({ processes, network, limits: kept }: Isolation): string => {
  const of = (is: boolean, yes: string, no: string) => (is ? yes : paint('red', no));
  const parts = [
    of(processes, 'own processes', 'no process namespace'),
    of(network, 'no network', "with this machine's network"),
    of(kept, 'hard limits', 'a limit of time only'),
  ];
  return `isolation: ${parts.join(', ')}`;
};

const verdictOf = ({ passed }: Qualification): string => (passed ? paint('green', 'fit') : paint('red', 'not fit'));

const acquire = (names: readonly string[]): Promise<readonly Pack[]> =>
  acquirePacks(stderrProgress(), names.length === 0 ? undefined : names);

/** The controls of the example family on this engine; kept beside the pack. */
const qualify = async (pack: Pack, family: Family): Promise<Qualification> => {
  const { build } = pack;
  const engines = createEngineRunner([pack]);
  const { language } = family;
  const [mode = 'scan'] = language.modes;
  const { signal } = new AbortController();
  const run = (rules: readonly Rule[], inputs: EngineInput['inputs']) =>
    engines.run(build, { rules: language.artefact(rules), inputs, mode }, signal);
  const gate = await testControls(run, family);
  const qualification: Qualification = {
    ...{ engine: engineId(build), at: new Date().toISOString(), passed: gate?.verdict === 'pass' },
    controls: String(gate?.observed ?? 'no result'),
    by: { family: family.name, controls: controlsDigest(family), runner: await runnerDigest() },
  };
  await writeFile(qualificationFile(pack.dir), `${JSON.stringify(qualification)}\n`);
  return qualification;
};

type TryOptions = { readonly rules: string; readonly input?: string; readonly ips?: boolean; readonly json?: boolean };

type Tried = {
  readonly engine: EngineBuild;
  /** `completed`, or why there is no result: signal, timeout, exit, no-statistics. */
  readonly outcome: string;
  readonly rulesLoaded: number | null;
  readonly rulesFailed: number | null;
  readonly rulesSkipped: number | null;
  readonly notLoaded: readonly NotLoaded[];
  /** Rule -> how often it alerted. */
  readonly alerts: Readonly<Record<string, number>>;
  readonly blocked: Readonly<Record<string, number>>;
  readonly words: string;
  readonly wallMs: number;
  /** Of the engine's process; null where the system does not tell. */
  readonly peakBytes: number | null;
};

const tryRules = async (name: string, options: TryOptions): Promise<Tried> => {
  const written = await readGiven(options.rules);
  const [pack] = await acquirePacks(stderrProgress(), [name]);
  if (!pack) throw new SigrelError('SRP_MISSING_ENGINE', `there is no engine "${name}"`);
  const { build: engine } = pack;
  const language = languageOf(engine.name);
  const bytes = options.input === undefined ? null : await readGiven(options.input);
  if (bytes && language.looksAt === 'captures' && !isCapture(bytes)) {
    throw new SigrelError('SRP_INPUT_CAPTURE', `${options.input} is no packet capture: expected pcap or pcapng`);
  }
  const parsed = language.parse(basename(options.rules), new TextDecoder().decode(written));
  if (parsed.rules.length === 0 && parsed.findings.length === 0) {
    throw new SigrelError('SRP_INPUT_RULES', `${options.rules} has no rule: nothing can be tried`);
  }
  const { signal } = new AbortController();
  const engines = createEngineRunner([pack]);
  const inputs = bytes === null ? [] : [{ name: 'input', bytes }];
  const mode = options.ips ? 'ips' : (language.modes[0] ?? 'scan');
  // The file goes to the engine as it was written, and not as we read it.
  const rules = language.wrap(basename(options.rules), written);
  const run = await engines.run(engine, { rules, inputs, mode }, signal);
  if (run === null) throw new SigrelError('SRP_MISSING_ENGINE', `there is no engine "${name}"`);
  const nothing = { rulesLoaded: null, rulesFailed: null, rulesSkipped: null, notLoaded: [], alerts: {}, blocked: {} };
  if (run.kind === 'no-result') {
    return { engine, outcome: run.reason, ...nothing, words: run.words, wallMs: run.wallMs, peakBytes: null };
  }
  const count = (action: 'all' | 'blocked') => {
    const found: Record<string, number> = {};
    for (const alert of run.alerts) {
      if (action === 'all' || alert.action === action) found[alert.ruleId] = (found[alert.ruleId] ?? 0) + 1;
    }
    return found;
  };
  const loading = { engines, engine, language, configuration: { mode }, signal };
  // What is no rule by our own reading cannot be loaded alone: it is named by what stands on its line.
  const lines = new TextDecoder().decode(written).split('\n');
  const broken = parsed.findings.map(({ line, message }): NotLoaded => {
    const text = lines[(line ?? 1) - 1] ?? '';
    const said = run.errors.find((error) => error.line === line)?.words;
    return { id: nameOn(language, text) ?? `line ${line}`, words: said ?? message };
  });
  const complete = run.loaded === parsed.rules.length && run.failed === 0;
  const named = complete ? [] : ((await findNotLoaded(loading, parsed.rules, run)) ?? []);
  const notLoaded = complete ? [] : [...named, ...broken.filter(({ id }) => !named.some((one) => one.id === id))];
  const refusedWhole = language.allOrNothing && run.loaded === 0 && run.failed > 0;
  return {
    ...{ engine, outcome: 'completed', rulesLoaded: run.loaded, rulesSkipped: run.skipped },
    rulesFailed: refusedWhole ? Math.max(run.failed, notLoaded.length) : run.failed,
    notLoaded,
    ...{ alerts: count('all'), blocked: count('blocked') },
    words: run.errors.map((error) => error.words).join('; '),
    ...{ wallMs: run.wallMs, peakBytes: run.peakBytes },
  };
};

/** The id that a line seems to give a rule; null: none. */
const nameOn = (language: Language, line: string): RuleId | null => {
  const of = { suricata: /\bsid:\s*(\d+)/, yara: /\brule\s+(\w+)/, clamav: /^([^:;\s]+)[:;]/ }[language.name];
  const found = of.exec(line)?.[1];
  return found === undefined ? null : language.name === 'suricata' ? Number(found) : found;
};

/** By the first four bytes: pcap in either byte order and resolution, or pcapng. */
const isCapture = (bytes: Uint8Array): boolean =>
  ['a1b2c3d4', 'd4c3b2a1', 'a1b23c4d', '4d3cb2a1', '0a0d0d0a'].includes(
    Buffer.from(bytes.subarray(0, 4)).toString('hex'),
  );

/** Nothing is read before its size is known. */
const readGiven = async (path: string): Promise<Buffer> => {
  const { size } = await stat(path).catch(() => ({ size: 0 }));
  if (size > limits.totalBytes) {
    const message = `${path} has ${size} bytes, expected at most ${limits.totalBytes}`;
    throw new SigrelError('SRP_INPUT_FILE', message);
  }
  return readFile(path).catch((cause: Error) => {
    throw new SigrelError('SRP_INPUT_FILE', `${path} cannot be read: ${cause.message}`, { cause });
  });
};

const sayTried = (tried: Tried): void => {
  const { engine, outcome, rulesLoaded, rulesFailed, rulesSkipped, notLoaded, alerts, blocked, words, wallMs } = tried;
  out(`${paint('bold', `${engine.name} ${engine.version}`)} (${engine.packageVersion}), ${wallMs} ms`);
  if (outcome !== 'completed') {
    out(wrap(`${paint('red', 'no result')} (${outcome}): ${words}`, '  '));
    return;
  }
  out(`  ${plural(rulesLoaded ?? 0, 'rule')} loaded, ${rulesFailed} failed, ${rulesSkipped} skipped`);
  for (const { id, words: said } of notLoaded) out(wrap(`${paint('red', 'not loaded')} ${id}: ${said}`, '  '));
  for (const [id, times] of Object.entries(alerts)) {
    out(`  alert ${id}: ${times}${blocked[id] ? `, ${blocked[id]} blocked` : ''}`);
  }
};
