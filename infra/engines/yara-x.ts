/**
 * YARA-X as a library: a small program (yara-x-npm.mjs, yara-x-pypi.py) compiles the rules and scans every input in a process
 * of its own. Compilation is all or nothing, and not every version counts its rules: a sentinel, appended under a name that
 * nobody can know, must match on every input, else there is no result.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { languageOf } from '../../domain/content/language.ts';
import { placeInputs } from './inputs.ts';
import { runIsolated } from './isolated.ts';
import { type Adapter, endedBadly, inFolder, noResult } from './run.ts';

/** What the program writes, one JSON value per line. */
type Said =
  | { readonly refused: string }
  | { readonly compiled: true; readonly count: number | null }
  | { readonly input: string; readonly ms: number; readonly matches: readonly string[] }
  | { readonly input: string; readonly failed: string };

const heapMb = 1_024;

export const runYaraX: Adapter = (pack, input, { limits, signal }) =>
  inFolder(async (dir) => {
    const empty = { name: 'load-only', bytes: new Uint8Array() };
    const inputs = placeInputs(dir, input.inputs.length > 0 ? input.inputs : [empty]);
    const sentinel = `sigrel_sentinel_${randomBytes(8).toString('hex')}`;
    const [rules, job, out] = ['content.yar', 'job.json', 'out'].map((name) => join(dir, name)) as [
      string,
      string,
      string,
    ];
    const { rules: own } = languageOf('yara').parseArtefact(input.rules);
    const always = `rule ${sentinel} { condition: true }\n`;
    // Beside a global rule that does not match nothing of its namespace does: then the sentinel has one of its own.
    const apart = own.some(({ features }) => features.includes('global')) ? always : null;
    writeFileSync(rules, apart ? input.rules : Buffer.concat([input.rules, Buffer.from(`\n${always}`)]));
    writeFileSync(out, '');
    const seconds = Math.max(1, Math.ceil(limits.wallMs / 1_000));
    writeFileSync(job, JSON.stringify({ pack: pack.dir, rules, apart, inputs, out, seconds }));
    const python = existsSync(join(pack.dir, 'site'));
    const program = (name: string) => join(import.meta.dirname, name);
    const started = performance.now();
    const ended = await runIsolated(
      python
        ? ['python3', '-I', '-B', program('yara-x-pypi.py'), job]
        : [process.execPath, `--max-old-space-size=${heapMb}`, program('yara-x-npm.mjs'), job],
      // Both reserve far more address space than they use.
      { cwd: dir, limits: { ...limits, addressSpaceBytes: null }, ...(signal ? { signal } : {}) },
    );
    const wallMs = Math.round(performance.now() - started);
    const bad = endedBadly(ended, wallMs);
    if (bad) return bad;
    const said = (await readFile(out, 'utf8'))
      .split('\n')
      .filter((line) => line !== '')
      .map((line): Said => JSON.parse(line));
    const none = { kind: 'completed', skipped: 0, wallMs, peakBytes: ended.peakBytes } as const;
    const expected = own.length;
    const [compiled] = said;
    if (compiled && 'refused' in compiled) {
      const errors = [errorOf(compiled.refused)];
      return { ...none, loaded: 0, failed: Math.max(1, expected), alerts: [], errors };
    }
    if (!compiled || !('compiled' in compiled) || ended.exit !== 0) {
      return noResult(ended.exit === 0 ? 'no-statistics' : 'exit', `exit code ${ended.exit}`, wallMs, ended.output);
    }
    const alerts: { input: string; ruleId: string; action: 'allowed' }[] = [];
    for (const { name } of inputs) {
      const found = said.find((one) => 'input' in one && one.input === name);
      if (!found || !('input' in found)) return noResult('no-statistics', `it said nothing about ${name}`, wallMs);
      if ('failed' in found) {
        return noResult(/time/i.test(found.failed) ? 'timeout' : 'exit', `${name}: ${found.failed}`, wallMs);
      }
      // Older versions give an empty result when their time is over, and no error.
      if (found.ms >= seconds * 1_000) return noResult('timeout', `${name}: scanned for ${found.ms} ms`, wallMs);
      if (!found.matches.includes(sentinel)) {
        return noResult('no-statistics', `${name}: not even the rule that always matches did`, wallMs);
      }
      for (const ruleId of found.matches)
        if (ruleId !== sentinel) alerts.push({ input: name, ruleId, action: 'allowed' });
    }
    const loaded = compiled.count === null ? expected : compiled.count - 1;
    return { ...none, loaded, failed: 0, alerts, errors: [] };
  });

/** The first line says what is wrong; `line:12:5` or `--> 12:5` where. */
const errorOf = (words: string) => {
  const place = /(?:line|-->)[ :]*(\d+):\d+/.exec(words)?.[1];
  const text = words.replaceAll(/\s+/g, ' ').trim().slice(0, 400);
  return { ...(place === undefined ? {} : { line: Number(place) }), words: text };
};
