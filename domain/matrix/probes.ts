/**
 * Inputs that the matrix adds to a family's own vectors, since rules differ between engines where nobody thought of a
 * vector: values that do not exist in a shortened or empty file (YARA 4.0.5 takes `not <undefined>` for true), and inputs
 * on which a slow rule shows itself. What a rule does on them is not right or wrong, but the same on every engine or declared.
 */
import type { Family } from '../content/family.ts';
import type { EngineFile } from '../ports.ts';

/** Names end or begin as no vector's may (family-fields). Only for languages that look at files. */
export const probesOf = (family: Pick<Family, 'language' | 'vectors'>): readonly EngineFile[] => {
  if (family.language.looksAt !== 'files') return [];
  const halves = family.vectors
    .filter(({ bytes }) => bytes.length > 1)
    .map(({ name, bytes }) => ({ name: `${name}.half`, bytes: bytes.subarray(0, Math.floor(bytes.length / 2)) }));
  return [...halves, { name: 'empty', bytes: new Uint8Array() }, { name: 'worst-60k', bytes: sixtyThousand }];
};

const sixtyThousand = new Uint8Array(60_000).fill(0x61);
