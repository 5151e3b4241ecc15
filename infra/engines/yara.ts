/**
 * YARA 4 by its command line. What was loaded comes from the statistics that it prints before it scans; where one rule is
 * refused the whole file is, and nothing is printed. The words of its errors differ between versions: they are for people.
 */
import { writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { languageOf } from '../../domain/content/language.ts';
import { placeInputs } from './inputs.ts';
import { runIsolated } from './isolated.ts';
import { engineCommand } from './packs.ts';
import { type Adapter, endedBadly, inFolder, lacksMemory, noResult } from './run.ts';

export const runYara: Adapter = (pack, input, { limits, signal }) =>
  inFolder(async (dir) => {
    // Without an input it would not compile: then it looks at a file of its own.
    const empty = { name: 'load-only', bytes: new Uint8Array() };
    const inputs = placeInputs(dir, input.inputs.length > 0 ? input.inputs : [empty]);
    const [rules, list, out] = ['content.yar', 'list', 'out'].map((name) => join(dir, name)) as [
      string,
      string,
      string,
    ];
    writeFileSync(rules, input.rules);
    writeFileSync(list, inputs.map(({ path }) => `${path}\n`).join(''));
    const started = performance.now();
    const ended = await runIsolated(
      [
        ...engineCommand(pack),
        // Its own limit is not always honoured, and begins with the scan: the outer one, as long, ends it at the latest.
        ...['-S', '-w', '-p', '1', '-a', String(Math.ceil(limits.wallMs / 1_000))],
        ...['--scan-list', rules, list],
      ],
      {
        ...{ cwd: dir, limits, outputFile: out, env: { MAGIC: join(pack.dir, 'share', 'magic.mgc') } },
        ...(signal ? { signal } : {}),
      },
    );
    const wallMs = Math.round(performance.now() - started);
    const bad = endedBadly(ended, wallMs);
    if (bad) return bad;
    const lines = (await readFile(out, 'utf8')).split('\n');
    const loaded = lines
      .map((line) => /^number of rules\s*:\s*(\d+)$/.exec(line)?.[1])
      .find((count) => count !== undefined);
    const errors = errorsIn(ended.output);
    const none = { kind: 'completed', skipped: 0, wallMs, peakBytes: ended.peakBytes } as const;
    if (loaded === undefined) {
      // A refusal names a rule or a line. Without one the engine did not start, and without memory nothing is refused.
      const refused = errors.some(({ line, ruleId }) => line !== undefined || ruleId !== undefined);
      if (!refused || errors.some(({ words }) => lacksMemory(words))) {
        return noResult('no-statistics', `exit code ${ended.exit}`, wallMs, ended.output);
      }
      const { rules: expected } = languageOf('yara').parseArtefact(input.rules);
      return { ...none, loaded: 0, failed: Math.max(1, expected.length), alerts: [], errors };
    }
    // It compiled: what it complains about now are inputs that it did not look at, or not to their end.
    const [first] = errors;
    if (first) {
      const late = /timed? ?out/i.test(first.words) || wallMs >= limits.wallMs;
      return noResult(late ? 'timeout' : 'exit', first.words, wallMs);
    }
    if (ended.exit !== 0) return noResult('exit', `exit code ${ended.exit}`, wallMs, ended.output);
    const names = new Map(inputs.map(({ path, name }) => [path, name]));
    const alerts = lines.flatMap((line) => {
      const space = line.indexOf(' ');
      const name = names.get(line.slice(space + 1));
      return name === undefined ? [] : [{ input: name, ruleId: line.slice(0, space), action: 'allowed' as const }];
    });
    return { ...none, loaded: Number(loaded), failed: 0, alerts, errors: [] };
  });

/** `error: rule "r" in r.yar(1): ...`, `r.yar(1): error in rule "r": ...`, `error scanning x: ...`. */
const errorsIn = (output: string) =>
  output
    .split('\n')
    .filter((line) => /\berror\b|could not|timeout/i.test(line))
    .map((line) => {
      const place = /\((\d+)\):/.exec(line)?.[1];
      const rule = /rule "([^"]+)"/.exec(line)?.[1];
      return {
        ...(place === undefined ? {} : { line: Number(place) }),
        ...(rule === undefined ? {} : { ruleId: rule }),
        words: line.replace(/\S*\/(?=[^/\s]+\(\d+\))/, '').trim(),
      };
    });
