/**
 * ClamAV by clamscan. What was loaded comes from its summary; its exit code is 0 also when nothing was loaded. One bad line
 * refuses its whole file; a signature for another functional level is passed over without a word.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { clamavSections } from '../../domain/content/clamav.ts';
import { languageOf } from '../../domain/content/language.ts';
import { placeInputs } from './inputs.ts';
import { runIsolated } from './isolated.ts';
import { engineCommand } from './packs.ts';
import { type Adapter, endedBadly, inFolder, lacksMemory, noResult } from './run.ts';

export const runClamav: Adapter = (pack, input, { limits, signal }) =>
  inFolder(async (dir) => {
    const empty = { name: 'load-only', bytes: Uint8Array.of(0) };
    const inputs = placeInputs(dir, input.inputs.length > 0 ? input.inputs : [empty]);
    const [database, list, out] = ['database', 'list', 'out'].map((name) => join(dir, name)) as [
      string,
      string,
      string,
    ];
    mkdirSync(database);
    for (const { name, bytes } of clamavSections(input.rules)) writeFileSync(join(database, name), bytes);
    writeFileSync(list, inputs.map(({ path }) => `${path}\n`).join(''));
    const started = performance.now();
    const ended = await runIsolated(
      [
        ...engineCommand(pack),
        // Always a database of ours: without it the machine's own would be read.
        ...['-d', database, '--file-list', list, '--tempdir', dir, '--allmatch', '--bytecode=no', '--stdout'],
        // A file that was not looked at to its end must not count as clean.
        ...['--alert-exceeds-max=yes', `--max-scantime=${limits.wallMs}`, '--max-filesize=100M', '--max-scansize=400M'],
      ],
      { cwd: dir, limits, outputFile: out, ...(signal ? { signal } : {}) },
    );
    const wallMs = Math.round(performance.now() - started);
    const bad = endedBadly(ended, wallMs);
    if (bad) return bad;
    const text = await readFile(out, 'utf8');
    const lines = text.split('\n');
    const known = lines.map((line) => /^Known viruses: (\d+)$/.exec(line)?.[1]).find((count) => count !== undefined);
    const expected = languageOf('clamav').parseArtefact(input.rules).rules.length;
    // Its library says on the other output what is wrong; the program itself only that something is.
    const errors = `${ended.output}\n${text}`
      .split('\n')
      .filter((line) => /(?:LibClamAV )?(?:Error|ERROR): /.test(line))
      .map((line) => ({
        words: line
          .replace(/^.*?(?:Error|ERROR): /, '')
          .replaceAll(`${dir}/`, '')
          .trim(),
      }));
    const none = { kind: 'completed', wallMs, peakBytes: ended.peakBytes } as const;
    const loaded = Number(known ?? 0);
    // It counts what it read before the bad line, also of other files, and then looks at nothing.
    const scanned = lines.some((line) => /^Scanned files: [1-9]/.test(line));
    if (ended.exit === 2 && errors.length > 0 && !scanned) {
      const short = errors.find(({ words }) => lacksMemory(words));
      if (short) return noResult('no-statistics', short.words, wallMs);
      return { ...none, loaded: 0, failed: Math.max(1, expected), skipped: 0, alerts: [], errors };
    }
    // 0: nothing found, 1: something; anything else is a failure, also one without a word.
    if (known === undefined || (ended.exit !== 0 && ended.exit !== 1)) {
      const reason = known === undefined ? 'no-statistics' : 'exit';
      return noResult(reason, `exit code ${ended.exit}`, wallMs, `${text.slice(-500)}${ended.output}`);
    }
    // One that it cannot open it passes over, with or without a warning; of an empty one it says so.
    const told = new Set(lines.map((line) => /^(.*): (?:OK|Empty file|\S+ FOUND)$/.exec(line)?.[1]));
    const missed = inputs.find(({ path }) => !told.has(path));
    if (missed) return noResult('no-statistics', `it did not look at ${missed.name}`, wallMs, ended.output);
    const names = new Map(inputs.map(({ path, name }) => [path, name]));
    // With several engines of its own inside, it may tell the same match more than once.
    const found = [...new Set(lines)].flatMap((line) => {
      const [, path = '', signature = ''] = /^(.*): (\S+) FOUND$/.exec(line) ?? [];
      const name = names.get(path);
      return name === undefined ? [] : [{ input: name, ruleId: nameOf(signature), action: 'allowed' as const }];
    });
    const exceeded = found.find(({ ruleId }) => ruleId.startsWith('Heuristics.Limits.Exceeded'));
    if (exceeded) return noResult('timeout', `${exceeded.input}: ${exceeded.ruleId}`, wallMs);
    return { ...none, loaded, failed: 0, skipped: Math.max(0, expected - loaded), alerts: found, errors };
  });

/** As the signature is written: what is not in an official database gets an ending. */
const nameOf = (signature: string): string => signature.replace(/\.UNOFFICIAL$/, '');
