/** What an SRE sees of a release in Temporal's Web UI: search attributes, memo and current details. */
import { defineSearchAttributeKey, SearchAttributeType } from '@temporalio/common';
import { setCurrentDetails, upsertMemo, upsertSearchAttributes } from '@temporalio/workflow';
import { isExposed, type ReleaseState } from '../domain/release-state.ts';

const stateKey = defineSearchAttributeKey('SigrelState', SearchAttributeType.KEYWORD);
const haltReasonKey = defineSearchAttributeKey('SigrelHaltReason', SearchAttributeType.KEYWORD);
const stageKey = defineSearchAttributeKey('SigrelStage', SearchAttributeType.INT);

/** Returns a function that publishes a state when what is shown has changed. */
export const createDisplay = (): ((state: ReleaseState) => void) => {
  let shown = '';
  return (state) => {
    const summary = summarise(state);
    if (summary === shown) return;
    shown = summary;
    upsertSearchAttributes([
      { key: stateKey, value: state.phase },
      ...(isExposed(state) ? [{ key: stageKey, value: state.rollout?.stage ?? 0 }] : []),
      ...(state.halt ? [{ key: haltReasonKey, value: state.halt.reasonCode }] : []),
    ]);
    upsertMemo({ summary });
    setCurrentDetails(
      [
        `**${summary}**`,
        '',
        `- family ${state.family}, requested by ${state.requestedBy}${state.note === '' ? '' : `: ${state.note}`}`,
        ...(state.build ? [`- content ${state.build.contentVersion}: ${state.build.rules} rules`] : []),
        ...(state.matrix ? [`- matrix ${state.matrix.verdict}: ${state.matrix.cells.length} cells`] : []),
        ...(state.hold ? [`- held: ${state.hold.reason}`] : []),
        ...(state.halt ? [`- halted by ${state.halt.by}: ${state.halt.reason}`] : []),
        ...(state.end ? [`- ended: ${state.end.reason}`] : []),
      ].join('\n'),
    );
  };
};

const summarise = (state: ReleaseState): string => {
  const { rollout } = state;
  const stage = rollout?.stages[rollout.stage];
  const of = rollout && stage ? `, stage ${rollout.stage + 1} of ${rollout.stages.length} (${stage.name})` : '';
  return `${state.phase}${of}${state.end ? `: ${state.end.reasonCode}` : ''}`;
};
