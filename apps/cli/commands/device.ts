/** `sigrel device`: whose reports count, and under which keys. `sigrel dead-letters`: what was refused, from Kafka. */
import type { Command } from 'commander';
import { SigrelError } from '../../../domain/errors.ts';
import { plural } from '../../../domain/timeline.ts';
import { type KeyRing, newestKey, readKeyRing, rotateKey } from '../../../infra/device-auth.ts';
import { createKafka, silent } from '../../../infra/kafka/client.ts';
import { readDeadLetters } from '../../../infra/kafka/dead-letters.ts';
import type { RevocationAnswer, RevocationsAnswer } from '../../../services/api/contract.ts';
import { keysDirOf } from '../../../services/names.ts';
import { brokersOf } from '../context.ts';
import type { Global } from '../global.ts';
import { defaultBy, parseCount, parsePerson, parseReason } from '../options.ts';
import { out, outJson, outWords, table, visibleText, wrap } from '../output.ts';

type Said = { readonly by: string; readonly reason: string; readonly json?: boolean };

export const addDeviceCommands = (program: Command, global: Global): void => {
  const device = program.command('device').description('whose reports count');
  const decide = (kind: 'revoke' | 'restore', description: string, example: string): void => {
    device
      .command(kind)
      .argument('<id>', 'the device')
      .description(description)
      .requiredOption('--reason <text>', 'why', parseReason)
      .option('--by <person>', 'who decides', parsePerson, defaultBy())
      .option('--json', 'for programs')
      .addHelpText('after', `\nExample:\n  $ sigrel device ${kind} fw-0017 --reason "${example}" --by ann`)
      .action(async (id: string, { json, ...said }: Said) => {
        const path = `/devices/${encodeURIComponent(id)}/${kind}`;
        const answer = await global.api().post<RevocationAnswer>(path, said);
        if (json) return outJson(answer);
        outWords(
          kind === 'revoke'
            ? `${id} is revoked: its reports are refused, and it is offered no rolling content, from the next second on`
            : `${id} is heard again from the next second on`,
        );
        if (!answer.known) out(wrap(`no device ${id} has polled or was imported yet: is that its name?`, '  '));
      });
  };
  decide('revoke', 'refuse the reports of a device whose key may be in wrong hands', 'stolen from the branch office');
  decide('restore', 'take the reports of a revoked device again', 'found, and installed anew');
  device
    .command('list')
    .description('revoked devices; with --all also those that were restored')
    .option('--all', 'restored ones too')
    .option('--json', 'for programs')
    .addHelpText('after', '\nExample:\n  $ sigrel device list --all')
    .action(async (options: { all?: boolean; json?: boolean }) => {
      const { revocations } = await global.api().get<RevocationsAnswer>('/devices/revocations');
      const shown = revocations.filter(({ restored }) => options.all || restored === null);
      if (options.json) return outJson({ revocations: shown });
      if (shown.length === 0) return out('no device is revoked');
      const columns = ['device', 'revoked', 'by', 'restored', 'by', 'reason'].map((name) => ({ name }));
      out(
        table(
          columns,
          shown.map(({ deviceId, at, by, reason, restored }) => [
            ...[deviceId, minute(at), by, restored ? minute(restored.at) : '', restored?.by ?? ''],
            restored ? `${reason}; restored: ${restored.reason}` : reason,
          ]),
        ),
      );
    });
  device
    .command('keys')
    .description('epochs of the fleet key, and until when reports under them are accepted')
    .option('--json', 'for programs')
    .addHelpText('after', '\nExample:\n  $ sigrel device keys')
    .action(async (options: { json?: boolean }) => {
      showKeys(await readKeyRing(keysDirOf(global.config().stateDir)), options.json);
    });
  device
    .command('rotate-key')
    .description('make a new fleet key; devices with a key of an older epoch are heard until their time is over')
    .option('--accept-old <days>', 'how long reports under the older keys are accepted; 0 refuses them at once', '30')
    .option('--json', 'for programs')
    .addHelpText(
      'after',
      `
How devices get their keys: not from sigrel, which sends no key to anybody. Who provisions devices
derives the key of each from the fleet key of the newest epoch, which is in keys/fleet-keys.json of
the state folder: HKDF-SHA256, 32 bytes, no salt, info "sigrel/device/v1", a line feed and the id of
the device ("deviceKey" in infra/device-auth.ts), and installs it with the number of the epoch. The
fleet key itself goes to no device. The simulated fleet takes its new keys by itself.

Example:
  $ sigrel device rotate-key --accept-old 14`,
    )
    .action(async (options: { acceptOld: string; json?: boolean }) => {
      const days = Number(options.acceptOld);
      if (options.acceptOld.trim() === '' || !(days >= 0 && days <= 3_650)) {
        const message = `--accept-old ${options.acceptOld}: expected days, from 0 to 3650`;
        throw new SigrelError('SRP_INPUT_DAYS', message);
      }
      const ring = await rotateKey(keysDirOf(global.config().stateDir), days * 24 * 3_600_000, Date.now());
      showKeys(ring, options.json);
      if (!options.json)
        outWords(
          `give every device its key of epoch ${newestKey(ring).epoch} (--help says how); a running gateway takes it from the next second on`,
        );
    });

  program
    .command('dead-letters')
    .description('reports that the gateway refused, with the reason, read from Kafka; newest last')
    .option('--limit <n>', 'the last so many', parseCount(100_000), 20)
    .option('--json', 'for programs')
    .addHelpText('after', '\nExample:\n  $ sigrel dead-letters --limit 100')
    .action(async ({ limit, ...options }: { limit: number; json?: boolean }) => {
      const config = global.config();
      const kafka = createKafka({ brokers: brokersOf(config), clientId: 'sigrel-cli', log: silent });
      const { letters, total } = await readDeadLetters(kafka, config.kafka.topicPrefix, limit);
      if (options.json) return outJson({ total, letters });
      if (letters.length === 0) return out('nothing was refused');
      for (const { at, reason, received } of letters) {
        outWords(`${at.slice(0, 19).replace('T', ' ')} ${visibleText(reason)}`);
        if (received !== '') out(wrap(visibleText(received).slice(0, 400), '  '));
      }
      out(`${letters.length} of ${plural(total, 'dead letter')}`);
    });
};

const minute = (time: string): string => time.slice(0, 16).replace('T', ' ');

const showKeys = (ring: KeyRing, json: boolean | undefined): void => {
  const keys = ring.map(({ epoch, acceptedUntil }) => ({
    epoch,
    acceptedUntil: acceptedUntil === null ? null : new Date(acceptedUntil).toISOString(),
  }));
  if (json) {
    outJson({ keys });
    return;
  }
  const columns = [{ name: 'epoch', right: true }, { name: 'accepted until' }];
  out(
    table(
      columns,
      keys.map(({ epoch, acceptedUntil }) => [
        String(epoch),
        acceptedUntil === null ? 'no end is set' : minute(acceptedUntil),
      ]),
    ),
  );
};
