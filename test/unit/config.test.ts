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

test.each([
  [{ SIGREL_KAFKA_BROKER: 'a:1' }, /unknown variable SIGREL_KAFKA_BROKER; known are .*SIGREL_KAFKA_BROKERS/],
  [{ SIGREL_CLOCK_MS: 'fast' }, /SIGREL_CLOCK_MS=fast/],
  [{ SIGREL_TEMPORAL_ADDRESS: 'localhost' }, /SIGREL_TEMPORAL_ADDRESS=localhost: expected host:port/],
])('%o is refused with the variable and what was expected', (env, message) => {
  expect(() => readConfig(env, '/c')).toThrow(message);
});
