/** A recorded series as a file (`halt-series/1`, halt specification, annex A). */
import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { SigrelError } from '../../domain/errors.ts';
import type { Series } from '../../domain/judge/series.ts';

const bets = z.object({ r: z.array(z.number()).min(1), weight: z.array(z.number()).min(1) });
const start = z.array(z.object({ tick: z.number().int().min(0), mass: z.number().min(0) }));
const key = z.object({ r0: z.number().gt(0), margin: z.boolean(), alpha: z.number() });
const baseline = z.object({ events: z.number(), exposure: z.number() });
const name = z.string().min(1);
const common = { id: name, metric: name, weight: z.number() };
const segments = z.array(name).min(1);
const cell = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('leaf'), ...common, segment: name }),
  z.object({ kind: z.literal('fleet'), ...common, segments }),
  z.object({
    kind: z.literal('frozen'),
    ...common,
    segments,
    r0: z.number(),
    bets,
    baseline: z.union([baseline, z.array(baseline)]),
    start,
  }),
]);
const policy = z.object({
  metrics: z.array(
    z.object({
      id: name,
      trial: z.enum(['device-hour', 'window']),
      delta: z.number().min(0),
      bets: bets.exactOptional(),
    }),
  ),
  segments,
  leaves: z.array(z.object({ metric: name, segment: name })).min(1),
  bets,
  start,
  keys: z.object({ A: key, B: key }),
  hold: z.object({ alpha: z.number() }),
  cells: z.array(cell).min(1),
  promote: z
    .object({
      r1: z.number(),
      delta1: z.record(z.string(), z.number()),
      g: z.array(z.number()).min(1),
      weight: z.array(z.number()).min(1),
      beta: z.number(),
      from: z.number().int().min(0),
      cells: z.array(name),
    })
    .exactOptional(),
});
const text = z.union([z.string(), z.number()]);
const place = { tick: z.number(), cell: z.string() };
const row = z.object({ max: text, leading: z.array(z.string()) });
const values = z.record(z.string(), text);
const latch = z.number().nullable();
const expected = z.object({
  tolerance: z.object({ relative: text, absolute: text }).exactOptional(),
  decision: z
    .object({ hold: z.object(place).nullable(), halt: z.object({ ...place, A: text, B: text }).nullable() })
    .exactOptional(),
  latches: z.array(z.object({ cell: z.string(), A: latch, B: latch })).exactOptional(),
  ticks: z.array(z.object({ tick: z.number(), A: row, B: row })).exactOptional(),
  cells: z.array(z.object({ tick: z.number(), A: values, B: values })).exactOptional(),
  promote: z.object({ ready: z.number().nullable(), ticks: z.array(values) }).exactOptional(),
});
const series = z.object({
  policy,
  ticks: z.array(z.array(z.tuple([z.number(), z.number(), z.number(), z.number()]))).min(1),
  expected: expected.exactOptional(),
});

/** Throws SRP_INPUT_SERIES naming the file, the field, and what is wrong with it. */
export const readSeries = async (path: string): Promise<Series> => {
  const refuse = (what: string): SigrelError => new SigrelError('SRP_INPUT_SERIES', `${path}: ${what}`);
  const written = await readFile(path, 'utf8').catch((cause: Error) => {
    throw refuse(`cannot be read: ${cause.message}`);
  });
  let value: unknown;
  try {
    value = JSON.parse(written);
  } catch (error) {
    throw refuse(`no valid JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
  const parsed = series.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw refuse(`${issue?.path.join('.') || 'the file'}: ${issue?.message}; expected a series, policy and ticks`);
};
