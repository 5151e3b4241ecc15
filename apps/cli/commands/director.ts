/**
 * `sigrel director`: break-glass. Freezes, thaws and shows a family with nothing but the online keys and the file store: no
 * api, no servers, no services. What it does stands in the store; nothing of it is in Kafka.
 */
import { randomUUID } from 'node:crypto';
import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import { notFrozen } from '../../../domain/director.ts';
import type { DirectorStore } from '../../../domain/ports.ts';
import { describeFreeze } from '../../../domain/timeline.ts';
import { createFileBlobs } from '../../../infra/store/blobs.ts';
import { createDirectorStore } from '../../../infra/tuf/director-store.ts';
import type { Global } from '../global.ts';
import { defaultBy, parsePerson, parseReason } from '../options.ts';
import { noteWords, out, outJson, outWords, table, wrap } from '../output.ts';
import { sayReplaced } from './freeze.ts';

type Place = { readonly store?: string; readonly keys?: string; readonly json?: boolean };

export const addDirectorCommands = (program: Command, global: Global): void => {
  const director = program
    .command('director')
    .description('break-glass: stop a family with the online keys and the file store alone');
  const open = ({ store, keys }: Place): DirectorStore => {
    const { stateDir } = store && keys ? { stateDir: '' } : global.config();
    const dir = resolve(store ?? join(stateDir, 'store'));
    const keysDir = resolve(keys ?? join(stateDir, 'keys'));
    return createDirectorStore({ dir, keysDir, blobs: createFileBlobs(join(dir, 'blobs')), now: Date.now });
  };
  const place = (command: Command): Command =>
    command
      .argument('<family>', 'e.g. ips')
      .option('--store <folder>', 'the file store (default: store/ of the state folder)')
      .option('--keys <folder>', 'the online keys (default: keys/ of the state folder)')
      .option('--json', 'for programs');

  place(director.command('freeze'))
    .description('nobody newly takes anything of this family; takes the place of any other freeze')
    .requiredOption('--reason <text>', 'why; it stands in the store', parseReason)
    .option('--by <name>', 'who does it', parsePerson, defaultBy())
    .addHelpText(
      'after',
      '\nExample:\n  $ sigrel director freeze ips --store /srv/store --keys /media/keys --reason "halt!"',
    )
    .action(async (family: string, options: Place & { by: string; reason: string }) => {
      const { by, reason } = options;
      const store = open(options);
      const at = new Date().toISOString();
      // Nothing that is only told may be in the way of a freeze.
      const replaced = (await store.read(family).catch(() => null))?.freeze ?? null;
      const freeze = { freezeId: `break-glass/${randomUUID()}`, reason, by, at, until: null };
      const { document, publishedAt } = await store.freeze(family, freeze).catch(async (error) => {
        await sayMarker(store, family, freeze.freezeId);
        throw error;
      });
      if (options.json)
        return outJson({ family, freeze, replaced, directorVersion: document.directorVersion, publishedAt });
      outWords(`frozen until "sigrel director thaw ${family}": nobody newly takes anything of ${family}`);
      sayReplaced(replaced);
    });

  place(director.command('thaw'))
    .description('lift whatever freeze stands; it grants nothing: leases are renewed on evidence')
    .addHelpText('after', '\nExample:\n  $ sigrel director thaw ips --store /srv/store --keys /media/keys')
    .action(async (family: string, options: Place) => {
      const { thawed, freeze, document } = await open(options).thaw(family, null);
      if (!thawed || freeze === null) throw notFrozen(family);
      if (options.json) return outJson({ family, thawed, freeze, directorVersion: document.directorVersion });
      outWords(`thawed: what rolls out of ${family} goes on when its lease is renewed`);
      out(wrap(`it was frozen ${describeFreeze(freeze)}`, '  '));
    });

  place(director.command('show'))
    .description('what devices are told now')
    .addHelpText('after', '\nExample:\n  $ sigrel director show ips --json | jq .document.mode')
    .action(async (family: string, options: Place) => {
      const { document, expiresAt, stopped, freeze } = await open(options).read(family);
      if (options.json) return outJson({ document, expiresAt: new Date(expiresAt).toISOString(), stopped, freeze });
      const { mode, directorVersion, steady, rollout, rollback } = document;
      const rows = [
        ...(freeze ? [['frozen', describeFreeze(freeze)]] : []),
        ['mode', `${mode}${freeze ? ', of which nothing is granted while it is frozen' : ''}`],
        ['version', String(directorVersion)],
        expiryOf(expiresAt, Date.now()),
        ['steady', `content ${steady.contentVersion} of ${steady.releaseId}`],
        ...(rollout ? [['rollout', `content ${rollout.content.contentVersion} of ${rollout.content.releaseId}`]] : []),
        ...(rollout ? Object.entries(rollout.thresholds).map(([segment, one]) => [segment, shareOf(one)]) : []),
        ...(rollback ? [['rollback', `content ${rollback.contentVersion}`]] : []),
        ...(stopped ? [['stopped', 'by its release: nothing raises or renews exposure']] : []),
      ];
      out(table([{ name: family }, { name: '' }], rows));
    });
};

/** A thaw leaves a document that is over by every clock: its date says nothing. */
const expiryOf = (expiresAt: number, now: number): readonly [string, string] => {
  if (expiresAt === 0) return ['expired', 'by every clock, until its lease is renewed on fresh evidence'];
  return [expiresAt > now ? 'expires' : 'expired', new Date(expiresAt).toISOString()];
};

/** Share of the buckets. */
const shareOf = (threshold: number): string => `${((100 * threshold) / 2 ** 32).toFixed(3)} %`;

/** The freeze failed half-way: whoever did it has to know what stands. */
const sayMarker = async (store: DirectorStore, family: string, freezeId: string): Promise<void> => {
  const read = await store.read(family).catch(() => null);
  if (read?.freeze?.freezeId !== freezeId || read.document.freezeId === freezeId) return;
  const [, end] = expiryOf(read.expiresAt, Date.now());
  noteWords(`the marker stands: nothing renews the lease (its end: ${end}); the document could not be changed:`);
};
