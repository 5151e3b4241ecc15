/** `sigrel freeze`, `thaw`: a whole family, whatever of it rolls out. `sigrel alarms`: what somebody has to look at. */
import type { Command } from 'commander';
import type { FamilyFreeze } from '../../../domain/director.ts';
import { SigrelError } from '../../../domain/errors.ts';
import { describeFreeze, duration } from '../../../domain/timeline.ts';
import type { AlarmsAnswer, FreezeAnswer, ThawAnswer } from '../../../services/api/contract.ts';
import type { Global } from '../global.ts';
import { defaultBy, parsePerson, parseReason, parseUntil } from '../options.ts';
import { noteWords, out, outJson, outWords, paint, table, wrap } from '../output.ts';

type Decision = { readonly by: string; readonly reason: string; readonly json?: boolean };

export const addFreezeCommands = (program: Command, global: Global): void => {
  const pathOf = (family: string, what: string) => `/families/${encodeURIComponent(family)}/${what}`;
  program
    .command('freeze')
    .argument('<family>', 'e.g. ips')
    .description('nobody newly takes anything of this family until it is thawed, whatever its releases do')
    .requiredOption('--reason <text>', 'why; it stands in the log', parseReason)
    .option('--by <name>', 'who asks', parsePerson, defaultBy())
    .option('--until <end>', 'thaw by itself after 30m, 24h, 7d, or at a moment', parseUntil)
    .option('--json', 'for programs')
    .addHelpText(
      'after',
      '\nExample:\n  $ sigrel freeze ips --reason "customers call" --until 24h\n\nWithout api or Temporal: sigrel director freeze',
    )
    .action(async (family: string, { json, until = null, ...asked }: Decision & { until?: string | null }) => {
      const ask = async () => global.api().post<FreezeAnswer>(pathOf(family, 'freeze'), { ...asked, until });
      const answer = await ask().catch((error: unknown) => {
        if (error instanceof SigrelError && error.code.startsWith('SRP_DEP_')) {
          noteWords(`to stop ${family} without any service: sigrel director freeze ${family} --reason …`);
        }
        throw error;
      });
      if (json) return outJson(answer);
      const end = answer.freeze.until === null ? `until "sigrel thaw ${family}"` : `until ${answer.freeze.until}`;
      outWords(`frozen ${end}: nobody newly takes anything of ${family} (director version ${answer.directorVersion})`);
      sayReplaced(answer.replaced);
    });
  program
    .command('thaw')
    .argument('<family>', 'e.g. ips')
    .description('lift the freeze; what rolls out goes on when its lease is renewed, on fresh evidence')
    .requiredOption('--reason <text>', 'why; it stands in the log', parseReason)
    .option('--by <name>', 'who asks', parsePerson, defaultBy())
    .option('--json', 'for programs')
    .addHelpText('after', '\nExample:\n  $ sigrel thaw ips --reason "it was something else"')
    .action(async (family: string, { json, ...asked }: Decision) => {
      const answer = await global.api().post<ThawAnswer>(pathOf(family, 'thaw'), asked);
      const { freeze, thawed } = answer;
      if (!thawed && freeze !== null) global.exitWith(3);
      if (json) return outJson(answer);
      if (thawed) outWords(`thawed: what rolls out of ${family} goes on when its lease is renewed`);
      else if (freeze === null) outWords(`${family} was not frozen any more: somebody had lifted it by hand`);
      else outWords(`still frozen by ${freeze.by}: ${freeze.reason}`);
    });
  program
    .command('alarms')
    .description('what somebody has to look at, with exit code 3; then what is frozen, held or paused')
    .option('--json', 'for programs')
    .addHelpText('after', '\nExample:\n  $ sigrel alarms --json | jq .alarms[].words')
    .action(async (options: { json?: boolean }) => {
      const { alarms, stops } = await global.api().get<AlarmsAnswer>('/alarms');
      if (alarms.length > 0) global.exitWith(3);
      if (options.json) return outJson({ alarms, stops });
      out(alarms.length === 0 ? 'no alarm' : renderAlarms(alarms, Date.now()));
      if (stops.length > 0) out(`\n${renderStops(stops)}`);
    });
};

/** Of two freezes the last one counts: what the one before said is over, its end included. */
export const sayReplaced = (replaced: FamilyFreeze | null): void => {
  if (replaced !== null) out(wrap(`it takes the place of the freeze ${describeFreeze(replaced)}`, '  '));
};

export const renderStops = (stops: AlarmsAnswer['stops']): string =>
  table(
    ['stopped', 'unchanged for', 'until (UTC)', 'what'].map((name) => ({ name })),
    stops.map(({ kind, observed, until, words }) => [
      ...[paint('yellow', kind), duration(observed), until?.slice(0, 16).replace('T', ' ') ?? '', words],
    ]),
  );

export const renderAlarms = (alarms: AlarmsAnswer['alarms'], now: number): string =>
  table(
    ['alarm', 'for', 'age', 'limit', 'what'].map((name) => ({ name })),
    alarms.map(({ kind, since, observed, limit, words }) => [
      ...[paint('red', kind), duration(Math.max(0, now - since)), duration(observed), duration(limit), words],
    ]),
  );
