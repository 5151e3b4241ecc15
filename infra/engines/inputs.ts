/** What an engine looks at, as files in a folder of the run. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SigrelError } from '../../domain/errors.ts';
import type { EngineFile } from '../../domain/ports.ts';

/** Throws SRP_INPUT_CAPTURE for a name that cannot be a file's or is used twice in one run. */
export const checkNames = (inputs: readonly EngineFile[]): void => {
  const seen = new Set<string>();
  for (const { name } of inputs) {
    if (!/^[\w-][\w.-]*$/.test(name)) {
      throw new SigrelError(
        'SRP_INPUT_CAPTURE',
        `input name "${name}"; expected letters, digits, dash, dot, underscore`,
      );
    }
    if (seen.has(name)) throw new SigrelError('SRP_INPUT_CAPTURE', `input name "${name}" is used twice in one run`);
    seen.add(name);
  }
};

/** Each input's path: where it lies, or written below `dir`. At once: a pool of threads takes longer than small files do. */
export const placeInputs = (
  dir: string,
  inputs: readonly EngineFile[],
): readonly { readonly name: string; readonly path: string }[] => {
  checkNames(inputs);
  const folder = join(dir, 'inputs');
  mkdirSync(folder);
  return inputs.map((input) => {
    const path = 'path' in input ? input.path : join(folder, input.name);
    if ('bytes' in input) writeFileSync(path, input.bytes);
    return { name: input.name, path };
  });
};
