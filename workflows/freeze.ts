/**
 * The freeze of a family: at once, for whatever rolls out, until a person thaws it or its time is over. It shares no code
 * with a release, and its bundle holds nothing of one: what keeps a release from stopping does not keep this from it.
 *
 * Exposure down never waits: frozen first, then recorded. Exposure up waits for the log: recorded first, then thawed, into a
 * lease that is over; when the store refuses that, what stands instead is recorded after it. When this workflow is
 * terminated, the freeze stands.
 */
import {
  allHandlersFinished,
  CancellationScope,
  condition,
  defineQuery,
  defineUpdate,
  proxyActivities,
  setHandler,
  workflowInfo,
} from '@temporalio/workflow';
import type { FreezeActivities, StandingFreeze } from '../activities/contract.ts';
import type { FamilyFreeze } from '../domain/director.ts';
import { freezeQueue } from '../domain/ids.ts';
import type { Actor, FamilyEvent, FamilyEvents } from '../events/catalogue.ts';

export type FreezeRequest = { readonly by: string; readonly reason: string; readonly until: string | null };
export type ThawRequest = { readonly by: string; readonly reason: string };
export type FreezeAnswer = {
  readonly freeze: FamilyFreeze;
  readonly directorVersion: number;
  readonly frozenAt: number;
};
export type ThawAnswer = { readonly thawed: boolean; readonly freezeId: string };

/** Freezes, or takes the place of the freeze before; answers when it is in force. */
export const freeze = defineUpdate<FreezeAnswer, [FreezeRequest]>('freeze');
/** Answers when it is thawed; not when somebody froze it again meanwhile. */
export const thaw = defineUpdate<ThawAnswer, [ThawRequest]>('thaw');
export const standing = defineQuery<FreezeAnswer | null>('standing');

// Tried again quickly and for ever, whatever is wrong: a missing key comes back, and until then its marker stands.
const { freezeFamily, thawFamily } = proxyActivities<FreezeActivities>({
  taskQueue: freezeQueue,
  startToCloseTimeout: 15_000,
  retry: { initialInterval: 100, backoffCoefficient: 1.5, maximumInterval: 1_000 },
});
const { recordFamilyEvent } = proxyActivities<FreezeActivities>({
  taskQueue: freezeQueue,
  startToCloseTimeout: 15_000,
  retry: { initialInterval: 250, backoffCoefficient: 2, maximumInterval: 5_000 },
});

export function freezeWorkflow(family: string): Promise<ThawAnswer> {
  // Who cancels it in Temporal would leave a freeze that nobody looks after: it is ended by a thaw, or by its time.
  return CancellationScope.nonCancellable(() => holdFreeze(family));
}

type State = {
  /** The freezes that were asked for; the last one counts. */
  readonly asked: FamilyFreeze[];
  /** What is in force, and how many of those asked for it has dealt with. */
  inForce: FreezeAnswer | null;
  done: number;
  thaw: ThawRequest | null;
  ended: ThawAnswer | null;
};

const holdFreeze = async (family: string): Promise<ThawAnswer> => {
  const state: State = { asked: [], inForce: null, done: 0, thaw: null, ended: null };
  listen(state);
  const record = createRecord();
  for (;;) {
    await condition(() => state.asked.length > 0);
    const number = state.asked.length;
    const freeze = state.asked[number - 1];
    if (freeze === undefined) throw new Error('a freeze without a request');
    const { freezeId, until } = freeze;
    const again = () => state.asked.length > number;

    const frozen = await freezeFamily({ family, freeze });
    state.inForce = { freeze, ...frozen };
    state.done = number;
    const { at: _at, ...said } = freeze;
    const who: Actor = { kind: 'person', id: freeze.by };
    void record(eventOf(family, who, { type: 'FamilyFrozen', data: { ...said, ...frozen } }));

    const over = () => state.thaw !== null || again();
    if (until === null) await condition(over);
    else await condition(over, Math.max(1, Date.parse(until) - Date.now()));
    if (again()) continue;

    const asked = state.thaw;
    const by = asked ?? { by: 'freeze', reason: `its time was over at ${until}` };
    const actor: Actor = asked ? { kind: 'person', id: asked.by } : { kind: 'workflow', id: 'freeze' };
    let durable = false;
    void record(eventOf(family, actor, { type: 'FamilyThawed', data: { freezeId, ...by } })).then(() => {
      durable = true;
    });
    await condition(() => durable || again());
    if (again()) continue;
    // Who freezes again does not wait for a thaw that is tried again and again: by the store's rule it cannot lift the new one.
    const thawing = new CancellationScope();
    const answer = await Promise.race([
      thawing.run(() => thawFamily({ family, freezeId })),
      condition(again).then(() => null),
    ]);
    if (answer === null || again()) {
      thawing.cancel();
      continue;
    }
    const { thawed, stands } = answer;
    state.ended = { thawed, freezeId };
    if (stands) {
      durable = false;
      void record(correctionOf(family, freezeId, stands)).then(() => {
        durable = true;
      });
    }
    await condition(() => (durable && allHandlersFinished()) || again());
    if (!again()) return state.ended;
    state.ended = null;
  }
};

const listen = (state: State): void => {
  setHandler(standing, () => state.inForce);
  setHandler(freeze, async (request) => {
    const { workflowId, runId } = workflowInfo();
    const number = state.asked.length + 1;
    state.asked.push({ freezeId: `${workflowId}/${runId}#${number}`, at: new Date().toISOString(), ...request });
    state.thaw = null;
    await condition(() => state.done >= number);
    if (state.inForce === null) throw new Error('a freeze was dealt with and is not in force');
    return state.inForce;
  });
  setHandler(thaw, async (request) => {
    state.thaw = request;
    const before = state.asked.length;
    await condition(() => state.ended !== null || state.asked.length > before);
    return state.ended ?? { thawed: false, freezeId: state.inForce?.freeze.freezeId ?? '' };
  });
};

/** One event after the other, each for as long as it takes. */
const createRecord = (): ((event: FamilyEvent) => Promise<void>) => {
  let last = Promise.resolve();
  return (event) => {
    last = last.then(() => recordFamilyEvent(event));
    return last;
  };
};

type Said = {
  [T in 'FamilyFrozen' | 'FamilyThawed']: { readonly type: T; readonly data: FamilyEvents[T] };
}['FamilyFrozen' | 'FamilyThawed'];

/** The log said that the family was thawed: what stands, by whoever it is, is said after it. */
const correctionOf = (family: string, refused: string, stands: StandingFreeze): FamilyEvent => {
  const { at, ...said } = stands;
  const data = { ...said, frozenAt: Date.parse(at) };
  const event = eventOf(family, { kind: 'person', id: stands.by }, { type: 'FamilyFrozen', data });
  return { ...event, eventId: `${refused}/stands/FamilyFrozen` };
};

/** A repetition has the same id. */
const eventOf = (family: string, actor: Actor, event: Said): FamilyEvent => ({
  ...event,
  ...{ eventId: `${event.data.freezeId}/${event.type}`, family, schemaVersion: 1, actor },
  occurredAt: new Date().toISOString(),
});
