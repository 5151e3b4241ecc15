/** `sigrel family`, `sigrel release`. */
import type { Command } from 'commander';
import type { FamilyFreeze } from '../../../domain/director.ts';
import type { ReleaseState } from '../../../domain/release-state.ts';
import { describeFreeze, duration, plural, total } from '../../../domain/timeline.ts';
import type {
  CommandAnswer,
  FamilyAnswer,
  ReleaseAnswer,
  ReleaseRequest,
  ReleaseStarted,
  ReleasesAnswer,
} from '../../../services/api/contract.ts';
import { bundleFolder } from '../content.ts';
import type { Global } from '../global.ts';
import {
  defaultBy,
  parseCount,
  parseNote,
  parsePerson,
  parseReason,
  parseReleaseId,
  parseTimeout,
} from '../options.ts';
import { note, noteWords, out, outJson, outWords, paint, table, wrap } from '../output.ts';
import { exitCodeOf, liveOf, paintPhase, renderRelease, statusLine } from '../view.ts';
import { createLiveView, watchRelease } from '../watch.ts';

export const addReleaseCommands = (program: Command, global: Global): void => {
  const family = program.command('family').description('families of content');
  family
    .command('init')
    .argument('<folder>', 'a family: family.yaml, policy.yaml, rules/, vectors.yaml, vectors/, controls/')
    .description('create a family with this content as its baseline, for every engine there is')
    .option('--json', 'for programs')
    .addHelpText('after', '\nExample:\n  $ sigrel family init examples/families/ips')
    .action(async (folder: string, options: { json?: boolean }) => {
      const bundle = await bundleFolder(folder, undefined);
      const answer = await global.api().post<FamilyAnswer>('/families', { bundle });
      if (options.json) return outJson(answer);
      outWords(`family ${answer.family} is there, content ${answer.contentVersion} for ${answer.engines.join(', ')}`);
    });
  family
    .command('list')
    .description('families that were initialised')
    .option('--json', 'for programs')
    .addHelpText('after', '\nExample:\n  $ sigrel family list')
    .action(async (options: { json?: boolean }) => {
      const answer = await global.api().get<{ families: readonly string[] }>('/families');
      if (options.json) return outJson(answer);
      out(answer.families.length === 0 ? 'no family yet: sigrel family init FOLDER' : answer.families.join('\n'));
    });

  const release = program.command('release').description('releases: start, watch, steer');
  addStart(release, global);
  addReading(release, global);
  addSteering(release, global);
};

const addStart = (release: Command, global: Global): void => {
  release
    .command('start')
    .argument('<folder>', 'the content to release')
    .description('start a release of this content')
    .option('--id <id>', 'id of the release; a second start with the same id starts nothing', parseReleaseId)
    .option('--policy <file>', 'rollout policy to use instead of the content’s own policy.yaml')
    .option('--note <text>', 'why, for people', parseNote, '')
    .option('--by <name>', 'who asks', parsePerson, defaultBy())
    .option('-w, --watch', 'follow it until it ends')
    .option('--timeout <time>', 'with --watch: give up waiting after this time', parseTimeout)
    .option('--json', 'for programs')
    .addHelpText(
      'after',
      '\nExample:\n  $ sigrel release start examples/releases/good --policy examples/demo/policy.yaml -w\n\nExit codes with --watch: 0 completed, 3 blocked, halted, failed or cancelled, 4 waited in vain.',
    )
    .action(async (folder: string, options: StartOptions) => {
      const request: ReleaseRequest = {
        bundle: await bundleFolder(folder, options.policy),
        requestedBy: options.by,
        note: options.note,
        ...(options.id === undefined ? {} : { releaseId: options.id }),
      };
      const started = await global.api().post<ReleaseStarted>('/releases', request);
      if (!options.watch) {
        if (options.json) return outJson(started);
        outWords(`release ${started.releaseId} of ${started.family} is started; follow it with:`);
        out(`  sigrel release get -w ${started.releaseId}`);
        return;
      }
      await follow(global, started.releaseId, { ...options, justStarted: true });
    });
};

type StartOptions = {
  readonly id?: string;
  readonly policy?: string;
  readonly note: string;
  readonly by: string;
  readonly watch?: boolean;
  readonly timeout?: number;
  readonly json?: boolean;
};

/** Watches to the end: the view goes to standard error, the result to standard output. */
const follow = async (
  global: Global,
  releaseId: string,
  options: { readonly timeout?: number; readonly json?: boolean; readonly justStarted: boolean },
): Promise<void> => {
  const view = createLiveView(process.stderr);
  const timeoutMs = options.timeout ?? Number.POSITIVE_INFINITY;
  const { justStarted } = options;
  const watched = await watchRelease(global.api(), releaseId, { timeoutMs, justStarted, ...view });
  const { state, ended, seenAt, lost } = watched;
  const age = `as it was ${duration(Date.now() - seenAt)} ago: the services have not answered since`;
  if (options.json) outJson(state && { ...state, seenAt: new Date(seenAt).toISOString() });
  // One terminal shows both: what is to be seen was drawn there already.
  else if (state && !(process.stdout.isTTY && process.stderr.isTTY)) {
    if (lost) outWords(paint('yellow', age));
    out(renderRelease(state));
  }
  if (!ended) {
    const waited = `release ${releaseId} has not ended after ${duration(timeoutMs)}`;
    noteWords(lost && state ? `${waited}, as far as is known; it is shown ${age}` : `${waited}; it goes on`);
    return global.exitWith(4);
  }
  if (state) global.exitWith(exitCodeOf(state));
};

const addReading = (release: Command, global: Global): void => {
  release
    .command('list')
    .description('releases, newest first')
    .option('--family <name>', 'of this family only')
    .option('--phase <phases>', 'open, ended, or phases with commas, e.g. halted,blocked')
    .option('--limit <n>', 'at most so many', parseCount(1_000), 50)
    .option('--json', 'for programs')
    .addHelpText('after', '\nExample:\n  $ sigrel release list --phase halted,blocked')
    .action(async (options: { family?: string; phase?: string; limit: number; json?: boolean }) => {
      const query = new URLSearchParams({ limit: String(options.limit) });
      if (options.family) query.set('family', options.family);
      if (options.phase) query.set('phase', options.phase);
      const { releases } = await global.api().get<ReleasesAnswer>(`/releases?${query}`);
      if (options.json) return outJson({ releases });
      if (releases.length === 0) {
        const all = options.family === undefined && options.phase === undefined;
        return out(all ? 'no release yet: sigrel release start FOLDER' : 'no release matches');
      }
      const columns = ['release', 'started', 'devices', 'harmed', 'phase'].map((name) => ({
        name,
        right: name === 'devices' || name === 'harmed',
      }));
      out(table(columns, releases.map(listRow)));
    });

  release
    .command('get')
    .argument('<id>', 'the release')
    .description('everything about a release')
    .option('-w, --watch', 'follow it until it ends')
    .option('--timeout <time>', 'with --watch: give up waiting after this time', parseTimeout)
    .option('--json', 'for programs')
    .addHelpText(
      'after',
      '\nExample:\n  $ sigrel release get -w --timeout 10m ips-20261124-101500\n\nExit codes with --watch: 0 completed, 3 blocked, halted, failed or cancelled, 4 waited in vain.',
    )
    .action(async (id: string, options: { watch?: boolean; timeout?: number; json?: boolean }) => {
      if (options.watch) return follow(global, id, { ...options, justStarted: false });
      const answer = await global.api().get<ReleaseAnswer>(`/releases/${encodeURIComponent(id)}`);
      if (options.json) return outJson(answer);
      out(renderRelease(answer.release, liveOf(answer)));
      if (answer.workflowUrl) out(`\n  ${paint('dim', 'workflow')}  ${answer.workflowUrl}`);
      if (answer.quarantined > 0) {
        note(paint('red', `${plural(answer.quarantined, 'record')} of its log are no part of it: sigrel verify ${id}`));
      }
    });

  release
    .command('status')
    .argument('<id>', 'the release')
    .description('in short, with an exit code: 0 under way or completed, 3 blocked, halted, failed or cancelled')
    .option('--json', 'for programs')
    .addHelpText('after', '\nExample:\n  $ sigrel release status ips-20261124-101500 || echo look at it')
    .action(async (id: string, options: { json?: boolean }) => {
      const { release: state, judge } = await global.api().get<ReleaseAnswer>(`/releases/${encodeURIComponent(id)}`);
      if (options.json) outJson({ releaseId: id, phase: state.phase, seq: state.seq, end: state.end });
      else outWords(statusLine(state, judge));
      global.exitWith(exitCodeOf(state));
    });
};

const listRow = (state: ReleaseState): string[] => [
  state.releaseId,
  state.startedAt.slice(0, 19).replace('T', ' '),
  String(total(state.counts, 'installed')),
  String(total(state.counts, 'harmed')),
  `${paintPhase(state.phase)}${state.end && state.phase !== 'completed' ? `: ${state.end.reason}` : ''}`,
];

const steering = {
  pause: 'stop the rollout where it is; nobody newly takes the release',
  resume: 'go on after a pause, or after the judge held the release',
  promote: 'do not wait for the minimum time of this stage; every other condition stands',
  halt: 'stop the release for good and roll back who has it',
  cancel: 'end a release that was not offered to anybody yet',
} as const;

/** What has happened when the answer comes. */
const steered: Readonly<Record<keyof typeof steering, string>> = {
  pause: 'nobody newly takes the release',
  resume: 'the rollout goes on as soon as its evidence is fresh',
  promote: 'the stage passes as soon as every other condition is met',
  halt: 'exposure is frozen, and the rollback is on its way',
  cancel: 'the release is cancelled',
};

/** null: none, or nobody can tell at the moment. */
const standingFreeze = async (global: Global, id: string): Promise<FamilyFreeze | null> => {
  const asked = global.api().get<ReleaseAnswer>(`/releases/${encodeURIComponent(id)}`);
  return (await asked.catch(() => null))?.director?.freeze ?? null;
};

/** Somebody has resumed it; that is not yet to say that it goes on. */
const sayResumed = ({ releaseId, phase, seq }: CommandAnswer, freeze: FamilyFreeze | null): void => {
  const recorded = `the resume is recorded; release ${releaseId} is at event ${seq}`;
  if (freeze !== null) {
    outWords(`${recorded}, and still stopped: its family is frozen`);
    out(wrap(`${describeFreeze(freeze)}. The rollout goes on when that is over`, '  '));
  } else if (phase === 'held') outWords(`${recorded}, and what held the stage before the pause still does`);
  else outWords(`done: ${steered.resume}; release ${releaseId} is at event ${seq}`);
};

const addSteering = (release: Command, global: Global): void => {
  const told = (answer: CommandAnswer, done: string, json: boolean | undefined): void => {
    if (json) outJson(answer);
    else outWords(`done: ${done}; release ${answer.releaseId} is at event ${answer.seq}`);
  };
  release
    .command('approve')
    .argument('<id>', 'the release')
    .description('approve a release that waits for it; the requester cannot')
    .option('--by <name>', 'who approves', parsePerson, defaultBy())
    .option('--note <text>', 'for people', parseNote, '')
    .option('--json', 'for programs')
    .addHelpText(
      'after',
      '\nExample:\n  $ sigrel release approve ips-20261124-101500 --by otto --note "matrix looked at"',
    )
    .action(async (id: string, options: { by: string; note: string; json?: boolean }) => {
      const { by, note: text } = options;
      const path = `/releases/${encodeURIComponent(id)}/approve`;
      told(await global.api().post<CommandAnswer>(path, { by, note: text }), `approved by ${by}`, options.json);
    });
  for (const [kind, description] of Object.entries(steering)) {
    release
      .command(kind)
      .argument('<id>', 'the release')
      .description(description)
      .requiredOption('--reason <text>', 'why; it stands in the log', parseReason)
      .option('--by <name>', 'who asks', parsePerson, defaultBy())
      .option('--json', 'for programs')
      .addHelpText('after', `\nExample:\n  $ sigrel release ${kind} ips-20261124-101500 --reason "customer reports"`)
      .action(async (id: string, options: { by: string; reason: string; json?: boolean }) => {
        const path = `/releases/${encodeURIComponent(id)}/${kind}`;
        const answer = await global.api().post<CommandAnswer>(path, { by: options.by, reason: options.reason });
        if (kind !== 'resume') return told(answer, steered[kind as keyof typeof steering], options.json);
        const freeze = await standingFreeze(global, id);
        if (options.json) outJson({ ...answer, freeze });
        else sayResumed(answer, freeze);
      });
  }
};
