/** The source bundle: what a release was made from, as one immutable blob. The same files give the same bytes. */
import type { SourceFile } from '../../domain/content/family.ts';
import { SigrelError } from '../../domain/errors.ts';
import { canonicalJson } from '../../events/canonical-json.ts';

export const encodeBundle = (files: readonly SourceFile[]): Uint8Array => {
  const sorted = files.toSorted((a, b) => (a.path < b.path ? -1 : 1));
  return new TextEncoder().encode(
    canonicalJson({
      files: sorted.map(({ path, bytes }) => ({ path, base64: Buffer.from(bytes).toString('base64') })),
    }),
  );
};

/** Throws SRP_INTEGRITY_BUNDLE when the bytes are not exactly what `encodeBundle` makes of some files. */
export const decodeBundle = (bytes: Uint8Array): SourceFile[] => {
  const refuse = (what: string, cause?: unknown): SigrelError =>
    new SigrelError(
      'SRP_INTEGRITY_BUNDLE',
      `the source bundle ${what}: it was damaged or something else made it; make it again from the family's folder`,
      cause === undefined ? {} : { cause },
    );
  let files: SourceFile[];
  try {
    const { files: list }: { files: { path: unknown; base64: unknown }[] } = JSON.parse(
      new TextDecoder().decode(bytes),
    );
    files = list.map(({ path, base64 }) => {
      if (typeof path !== 'string' || typeof base64 !== 'string') throw new TypeError('path and base64 are text');
      return { path, bytes: new Uint8Array(Buffer.from(base64, 'base64')) };
    });
  } catch (cause) {
    throw refuse('is no list of files', cause);
  }
  const seen = new Set<string>();
  for (const { path } of files) {
    if (!isInside(path)) throw refuse(`names ${JSON.stringify(path)}, which is no path inside a family`);
    if (seen.has(path)) throw refuse(`has ${path} twice`);
    seen.add(path);
  }
  // One set of files, one digest: no second spelling of the same content is let in.
  if (!Buffer.from(bytes).equals(encodeBundle(files))) throw refuse('is not in its canonical form');
  return files;
};

const isInside = (path: string): boolean =>
  !/[\\\0]/.test(path) && path.split('/').every((part) => part !== '' && part !== '.' && part !== '..');
