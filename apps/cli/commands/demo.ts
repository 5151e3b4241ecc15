/** `sigrel demo`: three releases on real servers and real engines, and what came of them as Kafka has it. */
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import { SigrelError } from '../../../domain/errors.ts';
import { writePostmortem } from '../../../domain/postmortem.ts';
import { foldEvents, type ReleaseState } from '../../../domain/release-state.ts';
import { duration, firstFault, total } from '../../../domain/timeline.ts';
import type { StoredEvent } from '../../../events/catalogue.ts';
import type { Config } from '../../../infra/config.ts';
import { canReachDebian } from '../../../infra/engines/debian.ts';
import { listPacks } from '../../../infra/engines/packs.ts';
import { discardServers, readServers } from '../../../infra/servers/local.ts';
import { type Progress, stderrProgress } from '../../../infra/servers/progress.ts';
import type { FamilyAnswer, ReleaseStarted } from '../../../services/api/contract.ts';
import type { Simulator } from '../../simulator/simulator.ts';
import { bundleFolder } from '../content.ts';
import { checkout, openApi, openConfig, readStream } from '../context.ts';
import type { Global } from '../global.ts';
import { note, noteWords, out, paint, table, wrap } from '../output.ts';
import { paintPhase, redCells } from '../view.ts';
import { createLiveView, watchRelease } from '../watch.ts';
import { simulateApart, simulateFleet } from './fleet.ts';
import { bringDown, bringUp } from './servers.ts';

const examples = join(checkout, 'examples');

/** What is told with: a family, its fleet, and a content for each of the three stories. */
type Setting = {
  readonly family: string;
  readonly engines: string;
  readonly fleet: string;
  readonly folders: Readonly<Record<StoryName, string>>;
  readonly misfit: string;
  readonly harm: string;
};

type StoryName = 'good' | 'misfit' | 'harm';

const settings: readonly Setting[] = [
  {
    ...{ family: 'ips', engines: 'Suricata', fleet: 'fleet.yaml' },
    folders: { good: 'good', misfit: 'astaro', harm: 'blocks-field' },
    misfit:
      'One rule uses a keyword that only the newest Suricata knows: the fault that stopped the traffic of every Astaro customer in 2010. The matrix has to stop it.',
    harm: 'Every engine takes it and every vector passes, but on three of ten devices it drops what customers need. The devices’ own reports have to stop it.',
  },
  {
    ...{ family: 'yara', engines: 'YARA-X', fleet: 'yara-fleet.yaml' },
    folders: { good: 'yara-good', misfit: 'yara-misfit', harm: 'yara-blocks-field' },
    misfit:
      'One rule uses a module that only newer versions of YARA-X have, and one rule refuses the whole file. The matrix has to stop it.',
    harm: 'Every engine takes it and every vector passes, but on three of ten devices it condemns a legitimate file. The devices’ own reports have to stop it.',
  },
];
const policyFile = join(examples, 'demo', 'policy.yaml');
const heartbeatMs = 2_000;
/** Far longer than any story takes: a demo that hangs ends with an error. */
const storyTimeoutMs = 180_000;

/** What a story must have come to, judged by its events alone. `ok` false: the sentence says what was expected. */
type Check = { readonly ok: boolean; readonly expected: string };

type Story = {
  readonly name: StoryName;
  readonly title: string;
  readonly text: (setting: Setting) => string;
  readonly checks: (events: readonly StoredEvent[], state: ReleaseState) => readonly Check[];
  /** What the summary says about it. */
  readonly result: (events: readonly StoredEvent[], state: ReleaseState) => string;
};

const has = (events: readonly StoredEvent[], type: StoredEvent['type']): boolean =>
  events.some((event) => event.type === type);

const stories: readonly Story[] = [
  {
    name: 'good',
    title: 'A good release',
    text: () => 'Two new rules that fit every engine of the field. Every stage has to earn the next one.',
    checks: (events, state) => [
      { ok: state.phase === 'completed', expected: 'the release is completed' },
      {
        ok: events.filter((event) => event.type === 'StagePassed').length === state.policy.stages.length,
        expected: 'every stage passed',
      },
      { ok: !has(events, 'RegressionDetected'), expected: 'the judge found nothing' },
      {
        // On a busy machine some devices answer too late and count as silent, with the release or without it.
        ok:
          total(state.counts, 'harmed') <= 0.1 * total(state.counts, 'enrolled') &&
          total(state.counts, 'installed') >= 0.9 * total(state.counts, 'enrolled'),
        expected: 'nine of ten devices run it, and not one of ten was harmed (or silent: is this machine busy?)',
      },
    ],
    result: (_events, { counts }) =>
      `${total(counts, 'installed')} of ${total(counts, 'enrolled')} devices run it, ${total(counts, 'harmed')} harmed`,
  },
  {
    name: 'misfit',
    title: 'A release that does not fit an engine in the field',
    text: ({ misfit }) => misfit,
    checks: (events, state) => [
      { ok: state.phase === 'blocked', expected: 'the release is blocked' },
      { ok: has(events, 'MatrixFailed'), expected: 'the matrix failed' },
      {
        ok: state.matrix?.results.some((one) => one.verdict === 'fail') === true,
        expected: 'at least one cell is red',
      },
      {
        ok: state.matrix?.results.some((one) => one.verdict === 'pass') === true,
        expected: 'the newest engine takes it',
      },
      {
        ok: !has(events, 'StageOpened') && !has(events, 'ManifestPublished'),
        expected: 'no device was offered anything',
      },
    ],
    result: (_events, state) => {
      const red = state.matrix?.results.filter((one) => one.verdict !== 'pass') ?? [];
      return `${red.length} of ${state.matrix?.cells.length} cells red, 0 devices offered`;
    },
  },
  {
    name: 'harm',
    title: 'A release that passes every test and does harm in the field',
    text: ({ harm }) => harm,
    checks: (events, state) => [
      { ok: state.phase === 'halted', expected: 'the release is halted' },
      { ok: has(events, 'MatrixPassed'), expected: 'every cell of the matrix passed' },
      { ok: state.halt?.by === 'judge', expected: 'the judge halted it' },
      { ok: state.rollout?.stage === 0, expected: 'only the canary was opened' },
      { ok: state.halt?.rollbackVersion !== null, expected: 'the previous content went out as a new version' },
      { ok: total(state.counts, 'harmed') > 0, expected: 'harmed devices were counted' },
      {
        ok: total(state.counts, 'recovered') === total(state.counts, 'harmed') && state.halt?.recovered === true,
        expected: 'every harmed device recovered by itself',
      },
    ],
    result: (events, { counts }) => {
      const freeze = freezeTime(events);
      const devices = `${total(counts, 'offered')} offered, ${total(counts, 'harmed')} harmed, ${total(counts, 'recovered')} recovered`;
      return `${devices}${freeze === null ? '' : `; frozen ${duration(freeze)} after the first harmful report`}`;
    },
  },
];

/** From the first harmful report to the frozen director document (ms); null when there was no halt. */
const freezeTime = (events: readonly StoredEvent[]): number | null => {
  const found = events.find((event) => event.type === 'RegressionDetected');
  const frozen = events.find((event) => event.type === 'ExposureFrozen');
  if (!found?.data.firstHarmAt || !frozen) return null;
  return Math.max(0, frozen.data.frozenAt - found.data.firstHarmAt);
};

type Told = {
  readonly story: Story;
  readonly releaseId: string;
  readonly events: readonly StoredEvent[];
  readonly state: ReleaseState;
  readonly failed: readonly string[];
};

const tell = async (config: Config, setting: Setting, story: Story): Promise<Told> => {
  out(`\n${paint('bold', story.title)}`);
  out(wrap(story.text(setting), '  '));
  const api = openApi(config);
  const folder = setting.folders[story.name];
  const bundle = await bundleFolder(join(examples, 'releases', folder), policyFile);
  const releaseId = `demo-${folder}`;
  const started = await api.post<ReleaseStarted>('/releases', {
    ...{ bundle, releaseId, requestedBy: 'demo', note: story.title.toLowerCase() },
  });
  const view = createLiveView(process.stdout, '  ');
  const options = { timeoutMs: storyTimeoutMs, justStarted: true, ...view };
  const { ended } = await watchRelease(api, started.releaseId, options);
  // From here on only what the log says counts.
  const report = await readStream(config, releaseId);
  const state = foldEvents(report.events);
  if (state === null) throw new Error(`the log has no event of ${releaseId}`);
  const failed = [
    ...(ended ? [] : [`it ends within ${duration(storyTimeoutMs)}`]),
    ...(report.ok ? [] : ['its log is whole']),
    ...story.checks(report.events, state).flatMap((check) => (check.ok ? [] : [check.expected])),
  ];
  sayRedCells(state);
  out(
    `  ${failed.length === 0 ? paint('green', 'as told') : paint('red', 'NOT as told')}: ${story.result(report.events, state)}`,
  );
  for (const expected of failed) out(paint('red', `    expected: ${expected}`));
  return { story, releaseId, events: report.events, state, failed };
};

const sayRedCells = (state: ReleaseState): void => {
  for (const result of redCells(state)) {
    out(`  ${paint('red', result.cellId)}`);
    out(wrap(firstFault(result), '    '));
  }
};

export const addDemoCommand = (program: Command, global: Global): void => {
  program
    .command('demo')
    .description('three releases on real servers and real engines: one good, one blocked, one halted')
    .option('--keep', 'leave everything running at the end')
    .option('--family <name>', 'ips (Suricata from Debian) or yara (YARA-X from npm); else what this machine can have')
    .addHelpText('after', '\nExamples:\n  $ npm run demo -- --keep\n  $ npm run demo -- --family yara')
    .action(async (options: { keep?: boolean; family?: string }) => {
      const setting = await chooseSetting(options.family);
      const stateDir = join(global.config().stateDir, 'demo');
      const config = openConfig(stateDir);
      const code = await runDemo(config, setting, { keep: options.keep === true, progress: stderrProgress() });
      if (code !== 0) global.exitWith(code);
    });
};

/** The family that was asked for; else ips, and yara where Suricata cannot be fetched. Throws SRP_INPUT_FAMILY. */
const chooseSetting = async (asked: string | undefined): Promise<Setting> => {
  const names = settings.map(({ family }) => family);
  if (asked !== undefined && !names.includes(asked)) {
    const message = `there is no demo of the family "${asked}"; expected one of ${names.join(', ')}`;
    throw new SigrelError('SRP_INPUT_FAMILY', message);
  }
  const debian = asked !== undefined || (await haveDebian());
  const family = asked ?? (debian ? 'ips' : 'yara');
  if (!debian) {
    noteWords(
      'Debian’s archive cannot be reached from here, or this is no Linux on x64: the demo is told with the family yara and YARA-X from npm',
    );
  }
  return settings.find((one) => one.family === family) as Setting;
};

/** The packs are here already, or can be fetched. */
const haveDebian = async (): Promise<boolean> => {
  const suricata = (await listPacks()).filter(({ name }) => name === 'suricata');
  return suricata.every(({ build }) => build !== null) || canReachDebian();
};

/** What has to be ended, whatever happens. */
type Stage = {
  simulator: Simulator | null;
  /** What is being started: it is not recorded before it runs, and could not be found to be stopped. */
  starting: Promise<unknown>;
};

/** 0: all as told, 1: not, 130: interrupted. Nothing that was started is left, except with `keep`. */
const runDemo = async (
  config: Config,
  setting: Setting,
  { keep, progress }: { readonly keep: boolean; readonly progress: Progress },
): Promise<number> => {
  const stage: Stage = { simulator: null, starting: Promise.resolve() };
  const interrupted = new Promise<'interrupted'>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve('interrupted'));
  });
  const performance = perform(config, setting, stage, { keep, progress });
  performance.catch(() => {}); // after an interruption its failure is no news
  let kept = false;
  try {
    const ended = await Promise.race([performance, interrupted]);
    if (ended === 'interrupted') {
      note('\ninterrupted: stopping what was started ...');
      await Promise.race([stage.starting.catch(() => {}), sleep(20_000)]);
      return 130;
    }
    kept = keep;
    return ended;
  } finally {
    await stage.simulator?.stop();
    await (kept ? simulateApart(config, []) : bringDown(config));
  }
};

const perform = async (
  config: Config,
  setting: Setting,
  stage: Stage,
  { keep, progress }: { readonly keep: boolean; readonly progress: Progress },
): Promise<number> => {
  const started = Date.now();
  const starting = <T>(work: Promise<T>): Promise<T> => {
    stage.starting = work;
    return work;
  };
  out(paint('bold', `sigrel demo: three releases on real Temporal, Kafka, PostgreSQL and ${setting.engines}`));
  await starting(discard(config));
  await starting(bringUp(config, progress));
  const bundle = await bundleFolder(join(examples, 'families', setting.family), undefined);
  const { family, engines } = await openApi(config).post<FamilyAnswer>('/families', { bundle });
  const file = join(examples, 'demo', setting.fleet);
  const simulator = await starting(simulateFleet(config, { file, family, heartbeatMs, progress }));
  stage.simulator = simulator;
  const segments = new Set(simulator.devices.map(({ engine, failMode }) => `${engine.version} ${failMode}`));
  const fleet = `${simulator.devices.length} devices in ${segments.size} segments run content 1 on`;
  out(wrap(`${fleet} ${engines.join(', ')}`, ''));

  const told: Told[] = [];
  for (const story of stories) told.push(await tell(config, setting, story));

  const halted = told.at(-1);
  const postmortem = join(config.stateDir, `postmortem-${halted?.releaseId}.md`);
  if (halted) await writeFile(postmortem, writePostmortem(halted.events));
  summarise(config, setting, told, { keep, postmortem, started });
  return told.every(({ failed }) => failed.length === 0) ? 0 : 1;
};

/** What an earlier demo left: processes, data, keys. Logs of servers go with them. */
const discard = async (config: Config): Promise<void> => {
  await bringDown(config);
  await discardServers(config.stateDir);
  await rm(config.stateDir, { recursive: true, force: true });
  await mkdir(config.stateDir, { recursive: true });
};

const summarise = (
  config: Config,
  { folders }: Setting,
  told: readonly Told[],
  more: { readonly keep: boolean; readonly postmortem: string; readonly started: number },
): void => {
  const columns = [
    'release',
    'phase',
    'events',
    'time',
    'offered',
    'installed',
    'harmed',
    'recovered',
    'harm to freeze',
  ].map((name, index) => ({ name, right: index > 1 }));
  const rows = told.map(({ releaseId, state, events, failed }) => {
    const freeze = freezeTime(events);
    const fields = ['offered', 'installed', 'harmed', 'recovered'] as const;
    return [
      releaseId,
      failed.length === 0 ? paintPhase(state.phase) : paint('red', `${state.phase}, not as told`),
      String(events.length),
      duration(Date.parse(state.changedAt) - Date.parse(state.startedAt)),
      ...fields.map((field) => String(total(state.counts, field))),
      freeze === null ? '' : duration(freeze),
    ];
  });
  const flag = `--state ${relative(process.cwd(), config.stateDir) || '.'}`;
  const ui = readServers(config.stateDir).temporal?.uiUrl;
  out(`\n${paint('bold', 'Summary')}, as Kafka has it (${duration(Date.now() - more.started)} in all)`);
  out(table(columns, rows));
  out(`\npostmortem of the last release: ${relative(process.cwd(), more.postmortem)}`);
  if (!more.keep) out(`\nIts data are kept. To look deeper, start its servers again:\n  ./sigrel ${flag} up --detach`);
  out(`\nLook deeper:`);
  out(`  ./sigrel ${flag} timeline demo-${folders.harm}`);
  out(`  ./sigrel ${flag} replay demo-${folders.harm} --at 18`);
  out(`  ./sigrel ${flag} evidence demo-${folders.harm}`);
  out(`  ./sigrel ${flag} judge recompute demo-${folders.harm}`);
  out(`  ./sigrel ${flag} matrix show demo-${folders.misfit}`);
  out(`  ./sigrel ${flag} release get demo-${folders.good}`);
  out(`  ./sigrel ${flag} verify demo-${folders.good}`);
  if (more.keep && ui) out(`  ${ui}   Temporal Web UI`);
  out(`  ./sigrel ${flag} ${more.keep ? 'down      stops it' : 'down'}`);
};
