/**
 * The release workflow is the only writer of its stream: it numbers events itself and hands them to `recordEvents`, which
 * is retried until it succeeded. Temporal is the outbox. Events that are emitted while one call is under way go together
 * with the next one.
 */
import { CancellationScope, condition, workflowInfo } from '@temporalio/workflow';
import { evolve, type ReleaseState } from '../domain/release-state.ts';
import type { Actor, NumberedEvent, ReleaseEvent } from '../events/catalogue.ts';
import { insist, record } from './activities.ts';

/** What a run hands to the next one (continue-as-new). */
export type Recorded = { readonly state: ReleaseState | null; readonly seq: number; readonly headHash: string | null };

export type Recorder = {
  /** Numbers the events, folds them into the state at once, and records them in the background. */
  emit(actor: Actor, ...events: readonly ReleaseEvent[]): void;
  /** Resolves when everything emitted so far is durable in the log. What raises exposure waits for this. */
  flush(): Promise<void>;
  /** True when everything emitted so far is durable in the log. */
  readonly isDurable: () => boolean;
  readonly state: () => ReleaseState | null;
  readonly recorded: () => Recorded;
};

/** The process or person that an event is owed to, when nobody else is named. */
export const byWorkflow: Actor = { kind: 'workflow', id: 'release' };

const schemaVersion = 1;

/** `onChange` sees every new state. */
export const createRecorder = (
  releaseId: string,
  from: Recorded,
  onChange: (state: ReleaseState) => void,
): Recorder => {
  let { state, seq, headHash } = from;
  let pending: NumberedEvent[] = [];
  let durable = seq;
  let writing = false;

  const write = async (): Promise<void> => {
    writing = true;
    while (pending.length > 0) {
      const events = pending;
      pending = [];
      const names = events.length === 1 ? (events[0]?.type ?? '') : `${events[0]?.type} and ${events.length - 1} more`;
      const input = { prevHash: headHash, events };
      const result = await insist(() => record.recordEvents.executeWithOptions({ summary: names }, [input]));
      headHash = result.headHash;
      durable += events.length;
    }
    writing = false;
  };

  return {
    emit: (actor, ...events) => {
      const { workflowId, runId } = workflowInfo();
      for (const event of events) {
        seq += 1;
        const numbered = writable({
          ...event,
          // Identity is (stream, number): the same on every attempt and in every run.
          eventId: `${releaseId}#${seq}`,
          streamId: releaseId,
          seq,
          schemaVersion,
          occurredAt: new Date().toISOString(),
          actor,
          causationId: seq > 1 ? `${releaseId}#${seq - 1}` : null,
          correlationId: releaseId,
          workflow: { workflowId, runId },
        });
        state = evolve(state, numbered);
        pending.push(numbered);
      }
      if (state !== null) onChange(state);
      // A cancelled release still records what happened to it.
      if (!writing && pending.length > 0) void CancellationScope.nonCancellable(write);
    },
    flush: async () => {
      const target = seq;
      await condition(() => durable >= target);
    },
    isDurable: () => durable === seq,
    state: () => state,
    recorded: () => ({ state, seq, headHash }),
  };
};

/** What people and engines write may hold half a surrogate pair (text that was cut): the log refuses it, for ever. */
const writable = (event: NumberedEvent): NumberedEvent =>
  JSON.parse(JSON.stringify(event), (_key, value) => (typeof value === 'string' ? value.toWellFormed() : value));
