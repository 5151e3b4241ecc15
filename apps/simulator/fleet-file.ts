/** A simulated fleet as people write it (examples/demo/fleet.yaml). */
import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { parse } from 'yaml';
import { z } from 'zod';
import { SigrelError } from '../../domain/errors.ts';

const share = z.number().gt(0).lte(1);
const sumOf = (shares: readonly { readonly share: number }[]): number =>
  shares.reduce((sum, one) => sum + one.share, 0);
/** A list whose shares are the whole. */
const shares = <T extends z.ZodType<{ readonly share: number }>>(one: T) =>
  z
    .array(one)
    .min(1)
    .refine((list) => Math.abs(sumOf(list) - 1) < 1e-6, {
      error: ({ input }) => `the shares add up to ${Number(sumOf(input as never).toFixed(6))}, expected 1`,
    });

const segment = z.strictObject({ engine: z.string().min(1), failMode: z.enum(['fail-open', 'fail-closed']), share });
const profile = z.strictObject({ name: z.string().regex(/^[a-z0-9-]+$/, 'expected a-z 0-9 -'), share });
const schema = z.strictObject({
  devices: z.number().int().min(1).max(100_000),
  segments: shares(segment),
  /** What devices see in the field: `<name>.pcap` (traffic) or `<name>.bin` (a file) in this folder. */
  traffic: z.string().min(1),
  profiles: shares(profile),
  /** Devices of one site, which a release may update as one; left out: no device belongs to a site. */
  devicesPerSite: z.number().int().min(1).max(1_000).exactOptional(),
});
const fieldsOf = ([first]: readonly PropertyKey[]): object =>
  first === 'segments' ? segment.shape : first === 'profiles' ? profile.shape : schema.shape;

export type FleetFile = z.output<typeof schema> & {
  /** Profile -> capture. */
  readonly captures: ReadonlyMap<string, Uint8Array>;
};

/** Throws SRP_INPUT_FLEET naming file, field, what it is and what it should be. */
export const readFleetFile = async (path: string): Promise<FleetFile> => {
  const refuse = (what: string): SigrelError => new SigrelError('SRP_INPUT_FLEET', `${path}: ${what}`);
  const text = await readFile(path, 'utf8').catch(() => null);
  if (text === null) throw refuse('there is no such file; see examples/demo/fleet.yaml');
  let written: unknown;
  try {
    written = parse(text);
  } catch (error) {
    throw refuse(`no valid YAML: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`);
  }
  const parsed = schema.safeParse(written);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const expected =
      issue?.code === 'unrecognized_keys' ? `; expected ${Object.keys(fieldsOf(issue.path)).join(', ')}` : '';
    throw refuse(`${issue?.path.map(String).join('.') || 'the file'}: ${issue?.message}${expected}`);
  }
  const { traffic, profiles } = parsed.data;
  const captures = new Map<string, Uint8Array>();
  for (const { name } of profiles) {
    const file = resolve(dirname(path), traffic, `${name}.pcap`);
    const scanned = file.replace(/pcap$/, 'bin');
    const bytes = await readFile(file).catch(() => readFile(scanned).catch(() => null));
    if (bytes === null)
      throw refuse(
        `profile ${name}: there is no capture ${file} (nor a file ${name}.bin); expected one in "traffic" (${traffic})`,
      );
    captures.set(name, bytes);
  }
  return { ...parsed.data, captures };
};
