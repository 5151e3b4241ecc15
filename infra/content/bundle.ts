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

/** Throws SRP_INTEGRITY_BUNDLE when the bytes are no bundle. */
export const decodeBundle = (bytes: Uint8Array): SourceFile[] => {
  try {
    const { files }: { files: { path: unknown; base64: unknown }[] } = JSON.parse(new TextDecoder().decode(bytes));
    return files.map(({ path, base64 }) => {
      if (typeof path !== 'string' || typeof base64 !== 'string') throw new TypeError('path and base64 are text');
      return { path, bytes: new Uint8Array(Buffer.from(base64, 'base64')) };
    });
  } catch (cause) {
    throw new SigrelError(
      'SRP_INTEGRITY_BUNDLE',
      'the source bundle is no list of files: it was damaged or is something else',
      {
        cause,
      },
    );
  }
};
