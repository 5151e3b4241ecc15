/** The benchmarks' fleet: what the gateway did not take is no load that was carried, and is said again. */
import { expect, test } from 'vitest';
import { newDevice, say } from '../../apps/device/cycle.ts';
import { createCounter, keepNotTaken } from '../bench/fleet/fleet.ts';
import { engineA } from '../support/devices.ts';

const device = (deviceId: string) =>
  newDevice({ deviceId, engine: engineA, failMode: 'fail-open', profile: 'scripted', key: new Uint8Array(32) });

test('only what the gateway has is counted as accepted', () => {
  const count = createCounter();
  const results = (['accepted', 'duplicate', 'limited', 'rejected', 'limited'] as const).map((status) => ({ status }));
  count.answered(results, 1);
  count.answered(null, 1);
  expect(count.take()).toMatchObject({ accepted: 2, limited: 2, refused: 1, failed: 1 });
  expect(count.take()).toMatchObject({ accepted: 0, limited: 0, refused: 0, failed: 0 });
});

test('each device says again what was limited, and everything when nothing was taken', () => {
  const [a, b] = [device('a'), device('b')];
  const crash = (of: typeof a) => say(of, { kind: 'crash', contentVersion: 1, words: 'by chance' });
  const healthy = (of: typeof a) => say(of, { kind: 'healthy', contentVersion: 1 });
  const said = [a, b].map((one) => ({ device: one, reports: [healthy(one), crash(one)] }));
  const results = (['accepted', 'limited', 'limited', 'duplicate'] as const).map((status) => ({ status }));
  keepNotTaken(said, results);
  expect([a, b].map(({ outbox }) => outbox.map(({ body }) => body.kind))).toEqual([['crash'], ['healthy']]);
  keepNotTaken(said, null);
  expect([a, b].map(({ outbox }) => outbox.length)).toEqual([2, 2]);
});
