/** Freeze and thaw of a family on request: starts, updates or asks its workflow, and needs neither Kafka nor PostgreSQL. */
import { WithStartWorkflowOperation, WorkflowNotFoundError } from '@temporalio/client';
import { defineSearchAttributeKey, SearchAttributeType } from '@temporalio/common';
import { notFrozen } from '../../domain/director.ts';
import { SigrelError } from '../../domain/errors.ts';
import { freezeQueue, freezeWorkflowId } from '../../domain/ids.ts';
import type {
  FreezeRequest,
  FreezeAnswer as Frozen,
  freezeWorkflow,
  ThawAnswer as Thawed,
  ThawRequest,
} from '../../workflows/freeze.ts';
import type { FreezeAnswer, ThawAnswer } from './contract.ts';
import { type ApiPorts, unreachable } from './releases.ts';

type FreezePorts = Pick<ApiPorts, 'temporal' | 'director' | 'now'>;

const answerMs = 20_000;

/**
 * Resolves when the freeze is in force; one that stands is replaced. Throws SRP_MISSING_FAMILY, SRP_INPUT_UNTIL, and
 * SRP_DEP_TEMPORAL when no answer comes: the freeze may take effect nevertheless.
 */
export const freezeFamily = async (
  ports: FreezePorts,
  family: string,
  request: FreezeRequest,
): Promise<FreezeAnswer> => {
  const { temporal, director, now } = ports;
  const { freeze: replaced } = await director.read(family);
  if (request.until !== null && Date.parse(request.until) <= now()) {
    throw new SigrelError('SRP_INPUT_UNTIL', `${request.until} is over already: a freeze needs an end in the future`);
  }
  const startWorkflowOperation = new WithStartWorkflowOperation<typeof freezeWorkflow>('freezeWorkflow', {
    workflowId: freezeWorkflowId(family),
    taskQueue: freezeQueue,
    workflowIdConflictPolicy: 'USE_EXISTING',
    workflowIdReusePolicy: 'ALLOW_DUPLICATE',
    args: [family],
    typedSearchAttributes: [
      { key: defineSearchAttributeKey('SigrelFamily', SearchAttributeType.KEYWORD), value: family },
    ],
    staticSummary: `freeze of ${family}`,
  });
  try {
    const frozen = await temporal.withDeadline(Date.now() + answerMs, () =>
      temporal.workflow.executeUpdateWithStart<typeof freezeWorkflow, Frozen, [FreezeRequest]>('freeze', {
        startWorkflowOperation,
        args: [request],
      }),
    );
    return { family, ...frozen, replaced };
  } catch (error) {
    throw unreachable(error);
  }
};

/** Throws SRP_RULE_NOT_FROZEN, and SRP_RULE_BREAK_GLASS when the freeze that stands is nobody's workflow. */
export const thawFamily = async (ports: FreezePorts, family: string, request: ThawRequest): Promise<ThawAnswer> => {
  const { temporal, director } = ports;
  await director.read(family);
  const handle = temporal.workflow.getHandle<typeof freezeWorkflow>(freezeWorkflowId(family));
  try {
    const { thawed } = await temporal.withDeadline(Date.now() + answerMs, () =>
      handle.executeUpdate<Thawed, [ThawRequest]>('thaw', { args: [request] }),
    );
    return { family, thawed, freeze: (await director.read(family)).freeze };
  } catch (error) {
    if (!(error instanceof WorkflowNotFoundError)) throw unreachable(error);
  }
  const { freeze } = await director.read(family);
  if (freeze === null) throw notFrozen(family);
  throw new SigrelError(
    'SRP_RULE_BREAK_GLASS',
    `family "${family}" was frozen by ${freeze.by} without a workflow (${freeze.reason}): lift it with "sigrel director thaw ${family}"`,
  );
};
