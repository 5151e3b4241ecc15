import { createRequire } from 'node:module';
import { afterEach, expect, test, vi } from 'vitest';
import { guardIdleTimer } from '../../infra/kafka/kafkajs-guard.ts';

type RequestQueue = {
  push(request: { entry: { correlationId: number }; expectResponse: boolean; sendRequest: () => void }): void;
  checkPendingRequests(): void;
  throttledUntil: number;
  inflight: Map<number, unknown>;
};
const Queue = createRequire(import.meta.url)('kafkajs/src/network/requestQueue/index.js') as new (options: {
  maxInFlightRequests: number;
  requestTimeout: number;
  enforceRequestTimeout: boolean;
  clientId: string;
  broker: string;
  logger: { debug(): void };
}) => RequestQueue;

const queue = (maxInFlightRequests: number) =>
  new Queue({
    maxInFlightRequests,
    requestTimeout: 1000,
    enforceRequestTimeout: false,
    clientId: 'test',
    broker: 'test:1',
    logger: { debug: () => {} },
  });

afterEach(() => vi.useRealTimers());

test('an idle queue arms no timer; guarding twice changes nothing', () => {
  guardIdleTimer();
  guardIdleTimer();
  vi.useFakeTimers();
  queue(1).checkPendingRequests();
  expect(vi.getTimerCount()).toBe(0);
});

test('a request that had to wait is still sent when its turn comes', () => {
  guardIdleTimer();
  vi.useFakeTimers();
  const one = queue(1);
  const sent: number[] = [];
  for (const correlationId of [1, 2]) {
    one.push({ entry: { correlationId }, expectResponse: true, sendRequest: () => sent.push(correlationId) });
  }
  expect(sent).toEqual([1]);
  one.inflight.delete(1);
  vi.advanceTimersByTime(50);
  expect(sent).toEqual([1, 2]);
  expect(vi.getTimerCount()).toBe(0);
});

test('a throttled queue sends after the throttle', () => {
  guardIdleTimer();
  vi.useFakeTimers();
  const one = queue(5);
  one.throttledUntil = Date.now() + 500;
  const sent: number[] = [];
  one.push({ entry: { correlationId: 1 }, expectResponse: true, sendRequest: () => sent.push(1) });
  vi.advanceTimersByTime(400);
  expect(sent).toEqual([]);
  vi.advanceTimersByTime(200);
  expect(sent).toEqual([1]);
});
