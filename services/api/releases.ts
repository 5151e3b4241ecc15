/** What people ask of sigrel: checks the request, then starts or updates a workflow. Nothing here writes to Kafka or PostgreSQL. */
import {
  type Client,
  isGrpcServiceError,
  WorkflowExecutionAlreadyStartedError,
  WorkflowNotFoundError,
  WorkflowUpdateFailedError,
  WorkflowUpdateRPCTimeoutOrCancelledError,
} from '@temporalio/client';
import { ApplicationFailure, defineSearchAttributeKey, SearchAttributeType } from '@temporalio/common';
import type { FamilyFacts, UnreadableFamily } from '../../domain/alarms.ts';
import type { Family } from '../../domain/content/family.ts';
import type { ContentFinding } from '../../domain/content/rules.ts';
import { type Command, decide } from '../../domain/decide.ts';
import { SigrelError } from '../../domain/errors.ts';
import { releaseWorkflowId } from '../../domain/ids.ts';
import { fitRules } from '../../domain/matrix/fit.ts';
import { enginesOf } from '../../domain/matrix/plan.ts';
import type {
  BlobStore,
  DirectorStore,
  EngineCatalogue,
  EngineRunner,
  EvidenceReader,
  Inventory,
} from '../../domain/ports.ts';
import type { Content, EngineBuild, Finding, Verdict } from '../../domain/release.ts';
import { isTerminal, phases, terminalPhases } from '../../domain/release-state.ts';
import { parsePolicy, policyDigest } from '../../events/policy-schema.ts';
import { decodeBundle } from '../../infra/content/bundle.ts';
import { parseFamily } from '../../infra/content/load-family.ts';
import type { Pool } from '../../infra/postgres/pool.ts';
import { readRelease } from '../../infra/postgres/releases.ts';
import { queues } from '../../workflows/queues.ts';
import type { releaseWorkflow } from '../../workflows/release.ts';
import type { ReleaseInput } from '../../workflows/run.ts';
import type { CommandAnswer, ReleaseStarted } from './contract.ts';

export type ApiPorts = {
  readonly temporal: Client;
  readonly pool: Pool;
  readonly blobs: BlobStore;
  readonly director: DirectorStore;
  readonly evidence: EvidenceReader;
  readonly inventory: Inventory;
  readonly catalogue: EngineCatalogue;
  readonly engines: EngineRunner;
  readonly facts: () => Promise<readonly (FamilyFacts | UnreadableFamily)[]>;
  readonly now: () => number;
};

/** Content or policy that was refused: findings with their places. */
export class RefusedContent extends SigrelError {
  readonly findings: readonly (Finding | ContentFinding)[];

  constructor(what: string, findings: readonly (Finding | ContentFinding)[]) {
    const count = findings.length === 1 ? 'one finding' : `${findings.length} findings`;
    super('SRP_INPUT_CONTENT', `the ${what} has ${count}; nothing was started`);
    this.findings = findings;
  }
}

const readBundle = (base64: string): { family: Family; bytes: Uint8Array } => {
  const bytes = Buffer.from(base64, 'base64');
  const read = parseFamily(decodeBundle(bytes));
  if (!read.ok) throw new RefusedContent('content', read.findings);
  return { family: read.family, bytes };
};

const readPolicy = (family: Family) => {
  const parsed = parsePolicy(family.policy);
  if (!parsed.ok) throw new RefusedContent('policy', parsed.findings);
  return parsed.policy;
};

/**
 * Baseline content 1 for every engine of the support contract and of the devices that are enrolled already; with `misfit: cut`
 * what of it the engine loads. Repeating it with the same content changes nothing.
 */
export const initialiseFamily = async (
  ports: ApiPorts,
  request: { readonly bundle: string },
): Promise<{ family: string; content: Content }> => {
  const { family } = readBundle(request.bundle);
  readPolicy(family);
  const promised = await Promise.all(family.support.map(({ engine }) => ports.catalogue.find(engine)));
  const enrolled = (await ports.inventory.groups()).map(({ engine }) => engine);
  const engines = enginesOf([
    ...promised.filter((engine) => engine !== null),
    ...enrolled.filter(({ name }) => family.language.engines.includes(name)),
  ]);
  if (engines.length === 0) {
    const message = `the family ${family.name} has no engine: name the versions that customers run in support.yaml`;
    throw new SigrelError('SRP_INPUT_SUPPORT', message);
  }
  const artefacts: { readonly engine: EngineBuild; readonly bytes: Uint8Array }[] = [];
  for (const engine of engines) {
    // What an engine does not load would be what every release goes back to.
    const cut =
      family.misfit === 'cut' ? await fitRules(ports.engines, engine, family, new AbortController().signal) : null;
    artefacts.push({ engine, bytes: family.language.artefact(cut?.rules ?? family.rules) });
  }
  const content = await ports.director.initialiseFamily(family.name, artefacts);
  return { family: family.name, content };
};

/**
 * Starts a release. Throws SRP_INPUT_CONTENT (RefusedContent), SRP_MISSING_FAMILY, SRP_RULE_FAMILY_BUSY,
 * SRP_RULE_RELEASE_EXISTS; nothing has changed then.
 */
export const startRelease = async (
  ports: ApiPorts,
  request: {
    readonly releaseId?: string | undefined;
    readonly family?: string | undefined;
    readonly bundle: string;
    readonly requestedBy: string;
    readonly note: string;
  },
): Promise<ReleaseStarted> => {
  const { family, bytes } = readBundle(request.bundle);
  const policy = readPolicy(family);
  if (request.family !== undefined && request.family !== family.name) {
    throw new SigrelError(
      'SRP_INPUT_FAMILY',
      `the content is of family "${family.name}", not of "${request.family}"; nothing was started`,
    );
  }
  await ports.director.read(family.name);
  const releaseId = request.releaseId ?? `${family.name}-${timeId(ports.now())}`;
  await refuseSecond(ports, family.name, releaseId);
  const groups = await ports.inventory.groups();
  if (!groups.some(({ engine }) => family.language.engines.includes(engine.name))) {
    throw new SigrelError(
      'SRP_RULE_NO_FLEET',
      'no device of this kind is enrolled, so there is nobody to release to; nothing was started. Wait until "sigrel fleet status" shows the fleet, or simulate one: sigrel fleet simulate --detach',
    );
  }
  const input: ReleaseInput = {
    releaseId,
    family: family.name,
    requestedBy: request.requestedBy,
    note: request.note,
    sourceDigest: await ports.blobs.put(bytes),
    policy,
    policyDigest: policyDigest(policy),
    carried: null,
  };
  const workflowId = releaseWorkflowId(releaseId);
  try {
    await ports.temporal.workflow.start<typeof releaseWorkflow>('releaseWorkflow', {
      workflowId,
      taskQueue: queues.release,
      workflowIdReusePolicy: 'REJECT_DUPLICATE',
      args: [input],
      typedSearchAttributes: [
        { key: defineSearchAttributeKey('SigrelReleaseId', SearchAttributeType.KEYWORD), value: releaseId },
        { key: defineSearchAttributeKey('SigrelFamily', SearchAttributeType.KEYWORD), value: family.name },
        { key: defineSearchAttributeKey('SigrelState', SearchAttributeType.KEYWORD), value: 'triggered' },
      ],
      staticSummary: `release of ${family.name}`,
      staticDetails: `requested by ${request.requestedBy}${request.note === '' ? '' : `: ${request.note}`}`,
    });
  } catch (error) {
    if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw unreachable(error);
    throw exists(releaseId);
  }
  return { releaseId, family: family.name, workflowId };
};

const exists = (releaseId: string): SigrelError =>
  new SigrelError(
    'SRP_RULE_RELEASE_EXISTS',
    `there is a release ${releaseId} already; nothing was started. Look at it with: sigrel release get ${releaseId}. For another release choose another id`,
  );

/** One release of a family at a time: two would compare their devices with each other's. */
const refuseSecond = async (ports: ApiPorts, family: string, releaseId: string): Promise<void> => {
  if ((await describe(ports, releaseId)) !== null) throw exists(releaseId);
  // Temporal forgets what ended long ago; the log does not, and an id names one stream for ever.
  if ((await readRelease(ports.pool, releaseId)) !== null) throw exists(releaseId);
  const query = `SigrelFamily = '${family}' AND WorkflowType = 'releaseWorkflow' AND ExecutionStatus = 'Running'`;
  try {
    for await (const open of ports.temporal.workflow.list({ query })) {
      const other = open.workflowId.replace(/^release\//, '');
      // Temporal's list is a little behind, and a release that has ended still closes its telemetry.
      const known = await readRelease(ports.pool, other);
      if (known !== null && isTerminal(known.state)) continue;
      throw new SigrelError(
        'SRP_RULE_FAMILY_BUSY',
        `family ${family} has release ${other} under way; nothing was started. Wait for its end (sigrel release get -w ${other}), or halt or cancel it`,
        { details: { release: other } },
      );
    }
  } catch (error) {
    throw unreachable(error);
  }
};

/** 20261124-205815: sorts by time and can be said on the telephone. */
const timeId = (now: number): string =>
  new Date(now).toISOString().slice(0, 19).replaceAll(/[-:]/g, '').replace('T', '-');

/** What a person asks of a release. Throws SRP_MISSING_RELEASE, or why it is refused (domain/decide.ts). */
export const commandRelease = async (ports: ApiPorts, releaseId: string, command: Command): Promise<CommandAnswer> => {
  const { kind, ...request } = command;
  const handle = ports.temporal.workflow.getHandle(releaseWorkflowId(releaseId));
  try {
    const answer = await ports.temporal.withDeadline(Date.now() + commandTimeoutMs, () =>
      handle.executeUpdate<{ phase: string; seq: number }, [unknown]>(kind, { args: [request] }),
    );
    return { releaseId, ...answer };
  } catch (error) {
    if (error instanceof WorkflowUpdateFailedError && error.cause instanceof ApplicationFailure) {
      throw new SigrelError(error.cause.type ?? 'SRP_RULE_REFUSED', error.cause.message);
    }
    if (error instanceof WorkflowNotFoundError) throw await notOpen(ports, releaseId, command);
    throw unreachable(error);
  }
};

const commandTimeoutMs = 20_000;

/** The workflow has ended, or never was. */
const notOpen = async (ports: ApiPorts, releaseId: string, command: Command): Promise<SigrelError> => {
  const known = await readRelease(ports.pool, releaseId);
  if (known === null) return missing(releaseId);
  const decided = decide(known.state, command);
  if (!decided.ok) return new SigrelError(decided.code, decided.message);
  return new SigrelError('SRP_RULE_ENDED', `release ${releaseId} has ended: nothing can be done to it any more`);
};

export const missing = (releaseId: string): SigrelError =>
  new SigrelError('SRP_MISSING_RELEASE', `there is no release ${releaseId}. List them with: sigrel release list`, {
    details: { release: releaseId },
  });

/** The judge's HALT, said to the release. Resolves when the release has it or has ended. */
export const signalRegression = async (temporal: Client, releaseId: string, verdict: Verdict): Promise<void> => {
  if (verdict.kind !== 'halt') return; // a HOLD is seen by the watch over the stage
  try {
    await temporal.workflow.getHandle(releaseWorkflowId(releaseId)).signal('regressionVerdict', verdict);
  } catch (error) {
    if (!(error instanceof WorkflowNotFoundError)) throw error;
  }
};

const describe = async (ports: ApiPorts, releaseId: string): Promise<string | null> => {
  try {
    return (await ports.temporal.workflow.getHandle(releaseWorkflowId(releaseId)).describe()).status.name;
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return null;
    throw unreachable(error);
  }
};

/** Phases of a filter as people write it: `open`, `ended`, or names with commas. Throws SRP_INPUT_PHASE. */
export const phasesOf = (written: string | undefined): readonly string[] | undefined => {
  if (written === undefined) return undefined;
  if (written === 'ended') return terminalPhases;
  if (written === 'open') return phases.filter((phase) => !terminalPhases.includes(phase));
  const wanted = written.split(',');
  const unknown = wanted.find((name) => !phases.some((phase) => phase === name));
  if (unknown === undefined) return wanted;
  throw new SigrelError(
    'SRP_INPUT_PHASE',
    `"${unknown}" is no phase; expected open, ended, or of: ${phases.join(', ')}`,
  );
};

export const unreachable = (error: unknown): unknown => {
  if (error instanceof SigrelError) return error;
  if (isGrpcServiceError(error) || error instanceof WorkflowUpdateRPCTimeoutOrCancelledError) {
    const words = isGrpcServiceError(error) ? error.details || error.message : error.message;
    return new SigrelError(
      'SRP_DEP_TEMPORAL',
      `Temporal or its worker does not answer: ${words}. Try again; a repeat is safe`,
      {
        cause: error,
      },
    );
  }
  return error;
};
