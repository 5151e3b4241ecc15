/**
 * What people may ask of a release, and when. The workflow's update validators run exactly this function, so that a refused
 * request is refused at once, with a sentence that says what to do instead, and leaves no trace in the log.
 */
import type { ReleaseEvent } from '../events/catalogue.ts';
import { isExposed, isTerminal, type ReleaseState } from './release-state.ts';
import { isSamePerson } from './waiver.ts';

export type Command =
  | { readonly kind: 'approve'; readonly by: string; readonly note: string }
  | { readonly kind: 'pause' | 'resume' | 'promote' | 'halt' | 'cancel'; readonly by: string; readonly reason: string };

export type CommandKind = Command['kind'];

export type Decided =
  | { readonly ok: true; readonly events: readonly ReleaseEvent[] }
  | { readonly ok: false; readonly code: string; readonly message: string };

const refuse = (code: string, message: string): Decided => ({ ok: false, code, message });
const accept = (...events: ReleaseEvent[]): Decided => ({ ok: true, events });

/** The events that a command makes of this state, or why it is refused. `promote` makes none: it is a wish to the watch. */
export const decide = (state: ReleaseState, command: Command): Decided => {
  if (command.by.trim() === '') return refuse('SRP_INPUT_BY', `${command.kind} needs the name of who asks`);
  if (isTerminal(state)) {
    const ended = `release ${state.releaseId} has ended (${state.phase})`;
    return refuse('SRP_RULE_ENDED', `${ended}: nothing can be done to it any more`);
  }
  if (command.kind === 'approve') return approve(state, command.by, command.note);
  if (command.reason.trim() === '') return refuse('SRP_INPUT_REASON', `${command.kind} needs a reason`);
  const where = { stage: state.rollout?.stage ?? -1 };
  const decision = {
    triggeredBy: 'person',
    by: command.by,
    reasonCode: `person-${command.kind}`,
    reason: command.reason,
  } as const;
  const inPhase = (...phases: ReleaseState['phase'][]) => phases.includes(state.phase);
  const wrong = (needed: string) =>
    refuse('SRP_RULE_PHASE', `release ${state.releaseId} is ${state.phase}; ${command.kind} needs ${needed}`);
  switch (command.kind) {
    case 'pause':
      if (!inPhase('rolling', 'held') || !isExposed(state)) return wrong('an open stage');
      return accept({ type: 'RolloutPaused', data: { ...decision, ...where } });
    case 'resume':
      if (!inPhase('paused', 'held')) return wrong('a paused or held rollout');
      return accept({ type: 'RolloutResumed', data: { ...decision, ...where } });
    case 'promote':
      if (!inPhase('rolling') || !isExposed(state)) return wrong('an open stage that is neither paused nor held');
      // Between two stages the wish would be taken for the next one, which nobody has seen yet.
      if ((state.rollout?.passed ?? 0) > where.stage) return wrong('a stage that has not passed yet');
      return accept();
    case 'halt':
      if (inPhase('halting')) return wrong('a rollout that is not being halted already');
      if (!isExposed(state)) return wrong('an open stage; nothing was offered yet: use cancel');
      return accept({ type: 'HaltRequested', data: { ...decision, ...where } });
    case 'cancel':
      if (isExposed(state)) return wrong('a release that was not offered to anybody yet: use halt, which rolls back');
      return accept({ type: 'ReleaseCancelled', data: decision });
  }
};

const approve = (state: ReleaseState, by: string, note: string): Decided => {
  const { approvals } = state;
  if (state.phase !== 'approval' || approvals === null) {
    return refuse(
      'SRP_RULE_PHASE',
      `release ${state.releaseId} does not wait for an approval: it is ${state.phase}. Look at it with: sigrel release get ${state.releaseId}`,
    );
  }
  if (isSamePerson(by, state.requestedBy)) {
    return refuse('SRP_RULE_FOUR_EYES', `${by} requested release ${state.releaseId}: somebody else has to approve it`);
  }
  if (approvals.by.some((one) => isSamePerson(one, by))) {
    return refuse(
      'SRP_RULE_FOUR_EYES',
      `${by} has approved release ${state.releaseId} already: a further approval has to come from somebody else`,
    );
  }
  if (approvals.by.length >= approvals.needed) {
    return refuse('SRP_RULE_PHASE', `release ${state.releaseId} has the approvals that it needs: ${approvals.needed}`);
  }
  const granted = approvals.by.length + 1;
  return accept({ type: 'ApprovalGranted', data: { by, note, granted, needed: approvals.needed } });
};
