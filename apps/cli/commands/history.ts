/** `sigrel timeline`, `verify`, `replay`, `postmortem`: from Kafka alone. */
import { writeFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { SigrelError } from '../../../domain/errors.ts';
import { writePostmortem } from '../../../domain/postmortem.ts';
import { foldEvents } from '../../../domain/release-state.ts';
import { describeEvent, duration, plural } from '../../../domain/timeline.ts';
import type { StoredEvent } from '../../../events/catalogue.ts';
import { readEvents, readStream } from '../context.ts';
import type { Global } from '../global.ts';
import { noteWords, out, outJson, outWords, paint, table, wrap } from '../output.ts';
import { renderRelease } from '../view.ts';

export const addHistoryCommands = (program: Command, global: Global): void => {
  program
    .command('timeline')
    .argument('<id>', 'the release')
    .description('every event of a release, read from Kafka')
    .option('--json', 'the stored events, for programs')
    .addHelpText('after', '\nExample:\n  $ sigrel timeline ips-20261124-101500')
    .action(async (id: string, options: { json?: boolean }) => {
      const events = await readEvents(global.config(), id);
      if (options.json) return outJson(events);
      out(renderTimeline(events));
    });

  program
    .command('verify')
    .argument('<id>', 'the release')
    .description('is the stream of a release whole: hashes, chain, numbers, forks; exit code 1 when it is not')
    .option('--json', 'for programs')
    .addHelpText('after', '\nExample:\n  $ sigrel verify ips-20261124-101500 && echo whole')
    .action(async (id: string, options: { json?: boolean }) => {
      const { ok, events, records, duplicates, findings } = await readStream(global.config(), id);
      const head = events.at(-1);
      if (options.json) {
        outJson({ releaseId: id, ok, events: events.length, records, duplicates, headHash: head?.hash, findings });
      } else {
        const repeats = duplicates === 0 ? 'no repeats' : `${plural(duplicates, 'equal repeat')} left out`;
        const verdict = ok ? paint('green', 'whole') : paint('red', 'not whole');
        outWords(
          `${id}: ${verdict}. ${plural(records, 'record')}, ${plural(events.length, 'event')} in an unbroken chain, ${repeats}`,
        );
        if (head) outWords(`last event #${head.seq} ${head.type}, hash ${head.hash}`);
        for (const { kind, seq, partition, offset, words } of findings) {
          const place = `${seq === null ? '' : ` at #${seq}`} (partition ${partition}, offset ${offset})`;
          out(wrap(paint('red', `${kind}${place}: ${words}`), '  '));
        }
      }
      if (!ok) global.exitWith(1);
    });

  program
    .command('replay')
    .argument('<id>', 'the release')
    .description('the state of a release at any moment, folded from its events')
    .option('--at <moment>', 'number of an event, or a time (ISO 8601, e.g. 2026-11-24T10:15:03Z)')
    .option('--json', 'for programs')
    .addHelpText(
      'after',
      '\nExamples:\n  $ sigrel replay ips-20261124-101500 --at 17\n  $ sigrel replay ips-20261124-101500 --at 2026-11-24T10:15:03Z',
    )
    .action(async (id: string, options: { at?: string; json?: boolean }) => {
      const events = await readEvents(global.config(), id);
      const until = eventsUntil(events, options.at);
      const state = foldEvents(until);
      const last = until.at(-1);
      if (state === null || last === undefined) {
        const [first] = events;
        throw new SigrelError('SRP_INPUT_AT', `release ${id} begins at ${first?.occurredAt}, after ${options.at}`);
      }
      if (options.json) return outJson(state);
      noteWords(`after event #${last.seq} of ${events.length}: ${last.type} at ${last.occurredAt}`);
      out(renderRelease(state));
    });

  program
    .command('postmortem')
    .argument('<id>', 'the release')
    .description('a first postmortem in Markdown, every number with its event')
    .option('-o, --output <file>', 'write it there instead of printing it')
    .option('--json', 'what it is written from, for programs: state and events')
    .addHelpText('after', '\nExample:\n  $ sigrel postmortem ips-20261124-101500 -o postmortem.md')
    .action(async (id: string, options: { output?: string; json?: boolean }) => {
      const events = await readEvents(global.config(), id);
      if (options.json) return outJson({ state: foldEvents(events), events });
      const text = writePostmortem(events);
      if (options.output === undefined) return void process.stdout.write(text);
      await writeFile(options.output, text).catch((cause: Error) => {
        throw new SigrelError('SRP_INPUT_OUTPUT', `${options.output} cannot be written: ${cause.message}`, { cause });
      });
      out(`written to ${options.output}`);
    });
};

const renderTimeline = (events: readonly StoredEvent[]): string => {
  const [first] = events;
  const start = Date.parse(first?.occurredAt ?? '');
  const columns = ['#', 'time (UTC)', 'since', 'event', 'what'].map((name) => ({
    name,
    right: name === '#' || name === 'since',
  }));
  return table(
    columns,
    events.map((event) => [
      String(event.seq),
      event.occurredAt.slice(11, 23),
      `+${duration(Date.parse(event.occurredAt) - start)}`,
      paintType(event.type),
      describeEvent(event),
    ]),
  );
};

const paintType = (type: StoredEvent['type']): string => {
  if (/Failed|Errored|Regression|Halt|Frozen|Voided|Refused/.test(type)) return paint('red', type);
  if (/Completed|Passed/.test(type)) return paint('green', type);
  if (/Held|Paused|Lapsed|Cancelled/.test(type)) return paint('yellow', type);
  return type;
};

/** Throws SRP_INPUT_AT for what is neither a number of an event nor a time. */
const eventsUntil = (events: readonly StoredEvent[], at: string | undefined): readonly StoredEvent[] => {
  if (at === undefined) return events;
  if (/^#?-?[\d.]+$/.test(at)) {
    const seq = Number(at.replace('#', ''));
    if (Number.isInteger(seq) && seq >= 1 && seq <= events.length) return events.slice(0, seq);
    throw new SigrelError('SRP_INPUT_AT', `there is no event ${at}: the release has the events 1 to ${events.length}`);
  }
  const time = Date.parse(at);
  if (Number.isNaN(time)) {
    throw new SigrelError(
      'SRP_INPUT_AT',
      `"${at}" is neither the number of an event nor a time like 2026-11-24T10:15:03Z`,
    );
  }
  return events.filter((event) => Date.parse(event.occurredAt) <= time);
};
