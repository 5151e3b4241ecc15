/** The bound of the halt specification, section 16.1, in the worlds of its section 15.1. */
import { expect, test } from 'vitest';
import { boundTick, natsOf, poissonInformation, sumUpTo, trialInformation } from '../bench/halt/bound.ts';
import {
  affectedSegments,
  type MetricId,
  metrics,
  segmentSizes,
  ticks,
  updatedDevices,
  type World,
} from '../bench/halt/world.ts';
import { worlds } from '../bench/halt/worlds.ts';
import vectors from '../vectors/halt/vectors.json' with { type: 'json' };

const r0 = 1.5;

const worldOf = (id: string): World => {
  const world = worlds.find((one) => one.id === id);
  if (!world) throw new Error(`there is no world ${id}`);
  return world;
};

/** Nats and affected device-hours of every minute from the onset. */
const minutesOf = (world: World): { readonly nats: number[]; readonly hours: number[] } => {
  const affected = affectedSegments(world);
  const from = Array.from({ length: ticks - world.onset }, (_, minute) => world.onset + minute);
  const nats = from.map((tick) =>
    affected.reduce((sum, segment) => {
      const updated = (at: number) => updatedDevices(world, segment, at);
      const controls = (segmentSizes[segment] ?? 0) - updated(tick);
      const exposure = { treated: updated(tick) / 60, control: controls / 60 };
      const due = tick - world.deadline;
      const ofMetric = metrics.map(({ id, rate, delta }) => {
        if (id === 'silence-first' && world.brick(segment) > 0) {
          const trials = updated(due) - updated(due - 1);
          return trialInformation(trials, Math.min(1, world.brick(segment) + rate), rate, { r0, delta });
        }
        const ratio = world.effect(id as MetricId, segment);
        return poissonInformation({ treated: rate * ratio, control: rate }, exposure, { r0, delta });
      });
      return sum + ofMetric.reduce((a, b) => a + b, 0);
    }, 0),
  );
  const hours = from.map((tick) =>
    affected.reduce((sum, segment) => sum + updatedDevices(world, segment, tick) / 60, 0),
  );
  return { nats, hours };
};

const cells = metrics.length * (segmentSizes.length + 1);

// Minutes, affected device-hours, and those with the search over the cells: the table of section 16.1.
test.each([
  ['A2', 146.6, 5050, 11350],
  ['A3', 54.7, 148, 327],
  ['A4', 177.0, 202, 676],
  ['A5', 79.3, 10.3, 24.1],
  ['A6', 135.2, 64.1, 170],
  ['A7', 148.2, 106, 271],
  ['A8', 168.5, 8687, 21392],
  ['A10', 71.9, 6.3, 8.5],
  ['A11', 74.9, 392, 652],
  ['A12', 2.3, 1923, 4156],
])('%s', (id, minutes, hours, searched) => {
  const found = minutesOf(worldOf(id));
  const at = boundTick(found.nats, natsOf(0.01));
  const late = boundTick(found.nats, natsOf(0.01, cells));
  // The table has three or four digits.
  const near = (got: number, want: number) => expect(Math.abs(got / want - 1)).toBeLessThan(0.011);
  near(at ?? Number.NaN, minutes);
  near(sumUpTo(found.hours, at ?? Number.NaN), hours);
  near(sumUpTo(found.hours, late ?? Number.NaN), searched);
});

test('a brick needs the dead devices of vector V20', () => {
  const { inputs, expected } = vectors.vectors.find(({ id }) => id === 'V20') as {
    inputs: { r0: number; hazardPerHour: number; windowMinutes: number; delta: number; alpha: number };
    expected: { deadDevices: string };
  };
  const p0 = (inputs.hazardPerHour * inputs.windowMinutes) / 60;
  const perDevice = trialInformation(1, 1, p0, inputs);
  expect(natsOf(inputs.alpha) / perDevice).toBeCloseTo(Number(expected.deadDevices), 9);
});

test('the best gain is the best: no other one gives more', () => {
  const rates = { treated: 1e-3, control: 1e-4 };
  const exposure = { treated: 40, control: 160 };
  const delta = 1e-5;
  const at = (g: number) =>
    rates.treated * exposure.treated * Math.log(g) +
    rates.control * exposure.control * Math.log(1 - ((r0 * exposure.treated) / exposure.control) * (g - 1)) -
    delta * exposure.treated * (g - 1);
  const grid = Array.from({ length: 2_000 }, (_, i) => at(1 + (i + 1) * 0.0013)).filter(Number.isFinite);
  const best = poissonInformation(rates, exposure, { r0, delta });
  expect(best).toBeGreaterThanOrEqual(Math.max(...grid));
  expect(best).toBeCloseTo(Math.max(...grid), 5);
});

test('rates within the null and exposure on one side only are no information', () => {
  const exposure = { treated: 10, control: 90 };
  expect(poissonInformation({ treated: 1.5e-4, control: 1e-4 }, exposure, { r0, delta: 0 })).toBe(0);
  expect(poissonInformation({ treated: 1, control: 1e-4 }, { treated: 10, control: 0 }, { r0, delta: 0 })).toBe(0);
  expect(trialInformation(5, 0.001, 0.001, { r0, delta: 0 })).toBe(0);
  expect(boundTick([1, 1], 3)).toBeNull();
});
