/** What the result of a cell depends on, as digests: nothing is used again after any of it has changed. */
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Family } from '../../domain/content/family.ts';
import type { Rule } from '../../domain/content/rules.ts';
import { canonicalJson } from '../../events/canonical-json.ts';
import { pythonVersion } from '../engines/pypi.ts';

export const digestOf = (value: unknown): string => createHash('sha256').update(canonicalJson(value)).digest('hex');

export const digestOfBytes = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** What engines are shown to tell good from bad by. */
export const controlsDigest = ({ controls, language }: Pick<Family, 'controls' | 'language'>): string => {
  const artefact = (list: readonly Rule[]) => digestOfBytes(language.artefact(list));
  const { good, bad, skip, input } = controls;
  return digestOf({ good: artefact(good), bad: artefact(bad), skip: artefact(skip), input: digestOfBytes(input) });
};

/** Vectors, controls, differences, own goodware and budgets: everything of a family but the text of its rules. */
export const testDigest = (family: Family): string => {
  const { vectors, goodware, differences, budgets, language, rules } = family;
  const named = (list: readonly { readonly name: string; readonly bytes: Uint8Array }[]) =>
    list.map(({ name, bytes }) => ({ name, sha256: digestOfBytes(bytes) }));
  return digestOf({
    language: language.name,
    vectors: vectors.map(({ name, bytes, mustMatch }) => ({ name, sha256: digestOfBytes(bytes), mustMatch })),
    goodware: named(goodware),
    ...{ differences, budgets, rules: rules.length },
    controls: controlsDigest(family),
  });
};

let runner: Promise<string> | undefined;

/**
 * SHA-256 over what runs engines and grades what they say, our code and the runtimes of engines that are libraries: with
 * another one a cell is tested anew.
 */
export const runnerDigest = (): Promise<string> => {
  runner ??= (async () => {
    const root = join(import.meta.dirname, '..', '..');
    const all = createHash('sha256');
    for (const folder of [join('infra', 'engines'), join('domain', 'matrix'), join('domain', 'content')]) {
      for (const name of (await readdir(join(root, folder))).sort()) {
        all.update(`${folder} ${name}\n`).update(await readFile(join(root, folder, name)));
      }
    }
    const processes = join('infra', 'servers', 'processes.ts'); // where programs are found
    all.update(`${processes}\n`).update(await readFile(join(root, processes)));
    all.update(`node ${process.version}\n`).update(pythonVersion());
    return all.digest('hex');
  })();
  return runner;
};
