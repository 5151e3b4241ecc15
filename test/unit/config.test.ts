import { expect, test } from 'vitest';
import { readConfig } from '../../infra/config.ts';

test('without variables everything has a default and no address is given', () => {
  expect(readConfig({ HOME: '/x' }, '/checkout')).toMatchObject({
    stateDir: '/checkout/.sigrel',
    temporal: { address: undefined, namespace: 'default' },
    clockMs: 1000,
  });
});

test('several brokers are split', () => {
  expect(readConfig({ SIGREL_KAFKA_BROKERS: 'a:1,b:2' }, '/c').kafka.brokers).toEqual(['a:1', 'b:2']);
});

test('the rates of the gateway are settings, each with its default', () => {
  const rates = { deviceRate: { perSecond: 10, burst: 120 }, deadLetterRate: { perSecond: 100, burst: 2_000 } };
  expect(readConfig({}, '/c').gatewayRates).toEqual(rates);
  const env = { SIGREL_DEVICE_REPORTS_PER_SECOND: '2.5', SIGREL_DEAD_LETTERS_AT_ONCE: '7' };
  expect(readConfig(env, '/c').gatewayRates).toEqual({
    deviceRate: { perSecond: 2.5, burst: 120 },
    deadLetterRate: { perSecond: 100, burst: 7 },
  });
});

test.each([
  // A device that is well could not say so any more.
  [{ SIGREL_DEVICE_REPORTS_PER_SECOND: '0.5' }, /SIGREL_DEVICE_REPORTS_PER_SECOND=0.5: .*>=1/],
  [{ SIGREL_DEVICE_REPORTS_AT_ONCE: '1.5' }, /SIGREL_DEVICE_REPORTS_AT_ONCE=1.5: .*int/],
  [{ SIGREL_DEAD_LETTERS_AT_ONCE: 'many' }, /SIGREL_DEAD_LETTERS_AT_ONCE=many/],
  [{ SIGREL_KAFKA_BROKER: 'a:1' }, /unknown variable SIGREL_KAFKA_BROKER; known are .*SIGREL_KAFKA_BROKERS/],
  [{ SIGREL_CLOCK_MS: 'fast' }, /SIGREL_CLOCK_MS=fast/],
  [{ SIGREL_TEMPORAL_ADDRESS: 'localhost' }, /SIGREL_TEMPORAL_ADDRESS=localhost: expected host:port/],
])('%o is refused with the variable and what was expected', (env, message) => {
  expect(() => readConfig(env, '/c')).toThrow(message);
});
