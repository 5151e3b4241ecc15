/**
 * kafkajs 2.2.4 re-arms an idle timer for ever: `throttledUntil` starts at -1, so an empty request queue calls setTimeout
 * with a large negative delay, 1 ms in practice (and a TimeoutNegativeWarning each time since Node 24). Measured on one
 * idle queue: 4,405 checks and 276 ms CPU in 5 s, against 1 ms with this guard. Nothing is pending, so nothing is checked;
 * `push` schedules a check again.
 */
import { createRequire } from 'node:module';
import { SigrelError } from '../../domain/errors.ts';

type QueuePrototype = { scheduleCheckPendingRequests: () => void };
type Queue = QueuePrototype & { readonly pending: readonly unknown[] };

const guarded = Symbol.for('sigrel.kafkajs.idle-timer-guard');

const isPrototype = (value: unknown): value is QueuePrototype =>
  typeof value === 'object' &&
  value !== null &&
  'scheduleCheckPendingRequests' in value &&
  typeof value.scheduleCheckPendingRequests === 'function' &&
  `${value.scheduleCheckPendingRequests}`.includes('throttledUntil');

/** Applied once per process, before the first client. Throws SRP_BUG_KAFKAJS_SHAPE when kafkajs is no longer the one above. */
export const guardIdleTimer = (): void => {
  const loaded: unknown = createRequire(import.meta.url)('kafkajs/src/network/requestQueue/index.js');
  const prototype: unknown = typeof loaded === 'function' ? loaded.prototype : undefined;
  if (typeof prototype === 'object' && prototype !== null && guarded in prototype) return;
  if (!isPrototype(prototype)) {
    throw new SigrelError(
      'SRP_BUG_KAFKAJS_SHAPE',
      'the installed kafkajs is not the expected 2.2.4: its request queue looks different. Install with `npm ci`, or check whether the idle-timer guard is still needed',
    );
  }
  const original = prototype.scheduleCheckPendingRequests;
  prototype.scheduleCheckPendingRequests = function (this: Queue) {
    if (this.pending.length > 0) original.call(this);
  };
  Object.defineProperty(prototype, guarded, { value: true });
};
