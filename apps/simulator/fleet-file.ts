/** A simulated fleet as people write it (examples/demo/fleet.yaml). */
import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { parse } from 'yaml';
import { z } from 'zod';
import { SigrelError } from '../../domain/errors.ts';

const share = z.number().gt(0).lte(1);
const addsUp = (shares: readonly { readonly share: number }[]): boolean =>
  Math.abs(shares.reduce((sum, one) => sum + one.share, 0) - 1) < 1e-6;

const schema = z.strictObject({
  devices: z.number().int().min(1).max(100_000),
  segments: z
    .array(z.strictObject({ engine: z.string().min(1), failMode: z.enum(['fail-open', 'fail-closed']), share }))
    .min(1)
    .refine(addsUp, 'the shares of the segments do not add up to 1'),
  /** Field traffic: `<name>.pcap` in `traffic`. */
  traffic: z.string().min(1),
  profiles: z
    .array(z.strictObject({ name: z.string().regex(/^[a-z0-9-]+$/, 'expected a-z 0-9 -'), share }))
    .min(1)
    .refine(addsUp, 'the shares of the profiles do not add up to 1'),
});

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
    throw refuse(`${issue?.path.map(String).join('.') || 'the file'}: ${issue?.message}`);
  }
  const { traffic, profiles } = parsed.data;
  const captures = new Map<string, Uint8Array>();
  for (const { name } of profiles) {
    const file = resolve(dirname(path), traffic, `${name}.pcap`);
    const bytes = await readFile(file).catch(() => null);
    if (bytes === null) throw refuse(`profile ${name}: there is no capture ${file}`);
    captures.set(name, bytes);
  }
  return { ...parsed.data, captures };
};
