/**
 * Releases on a real Temporal server whose activities are scripted: workers on all queues that answer at once what a
 * release that goes well would hear, unless a test answers in their place. Everything else is in memory.
 */
import { Context } from '@temporalio/activity';
import { Client, Connection, type WorkflowHandleWithFirstExecutionRunId } from '@temporalio/client';
import { ApplicationFailure, defineSearchAttributeKey, SearchAttributeType } from '@temporalio/common';
import { DefaultLogger, makeTelemetryFilterString, NativeConnection, Runtime, Worker } from '@temporalio/worker';
import { afterAll, beforeAll, inject } from 'vitest';
import type {
  BuildActivities,
  HaltActivities,
  MatrixActivities,
  PublishActivities,
  RecordActivities,
  RolloutActivities,
} from '../../activities/contract.ts';
import type { Command } from '../../domain/decide.ts';
import { releaseWorkflowId } from '../../domain/ids.ts';
import { defaultPolicy, type RolloutPolicy } from '../../domain/policy.ts';
import type { LogRecord } from '../../domain/ports.ts';
import type { Cell, CellResult, Content, StageEvidence, StageOutcome, Verdict } from '../../domain/release.ts';
import { foldEvents, type ReleaseState } from '../../domain/release-state.ts';
import type { ReleaseEventType } from '../../events/catalogue.ts';
import { chainEvents } from '../../events/chain.ts';
import { encodeEvent } from '../../events/codec.ts';
import { policyDigest } from '../../events/policy-schema.ts';
import { type StreamReport, verifyStream } from '../../events/verify.ts';
import { bundleWorkflows } from '../../services/worker.ts';
import { queues } from '../../workflows/queues.ts';
import type { ReleaseOutcome, releaseWorkflow } from '../../workflows/release.ts';
import type { ReleaseInput } from '../../workflows/run.ts';
import { patient } from './patience.ts';
import { counts, sampleVerdict } from './streams.ts';

type Activities = RecordActivities &
  BuildActivities &
  MatrixActivities &
  PublishActivities &
  RolloutActivities &
  HaltActivities;
type Name = keyof Activities;
type Input<N extends Name> = Parameters<Activities[N]>[0];
type Result<N extends Name> = Awaited<ReturnType<Activities[N]>>;

/** An attempt of an activity that waits for what the test says. It ends by itself when its cancellation is noticed. */
export type Call<N extends Name> = {
  readonly input: Input<N>;
  answer(result: Result<N>): void;
  /** Answers what is answered when nobody asks the test. */
  proceed(): Promise<void>;
  /** Does what would be answered, and leaves the call unanswered. */
  proceedUnheard(): Promise<void>;
  fail(error: Error): void;
};

/** What a test says in place of the default. A name in `asked` is answered by the test, call by call, while it holds. */
export type Script = {
  readonly policy?: Partial<RolloutPolicy>;
  readonly answers?: Partial<Activities>;
  readonly asked?: { readonly [N in Name]?: (input: Input<N>) => boolean };
};

export type ScriptedRelease = {
  readonly id: string;
  readonly handle: WorkflowHandleWithFirstExecutionRunId<typeof releaseWorkflow>;
  /** The next call that is asked of the test. */
  asked<N extends Name>(name: N): Promise<Call<N>>;
  /** What happened in which order: names of activities as they were called, names of events as they became durable. */
  readonly happened: readonly (Name | ReleaseEventType)[];
  /** Waits until it happened this many times. */
  until(what: Name | ReleaseEventType, times?: number): Promise<void>;
  /** Waits for a state as the workflow sees it. */
  inPhase(phase: ReleaseState['phase']): Promise<ReleaseState>;
  state(): Promise<ReleaseState>;
  /** Rejects with what the validator says. */
  command(kind: Command['kind'], by?: string, reason?: string): Promise<{ phase: string; seq: number }>;
  regression(verdict?: Verdict): Promise<void>;
  /** The outcome, and the log: whole, without gap or fork, and folded to the same end. */
  end(): Promise<ReleaseOutcome & { readonly types: readonly ReleaseEventType[]; readonly stream: StreamReport }>;
};

export type ScriptedReleases = {
  start(id: string, script?: Script): Promise<ScriptedRelease>;
  /** Does this while no workflow of this file goes on: each meets all that came meanwhile in one task. */
  whileNobodyDecides(work: () => Promise<void>): Promise<void>;
  stop(): Promise<void>;
};

const segment = 'suricata-7.0.10-00000000/fail-open';
const digest = '0'.repeat(64);
const contentOf = (contentVersion: number, releaseId: string): Content => ({
  contentVersion,
  releaseId,
  artefacts: [],
});
export const cellOf = (mode: Cell['mode']): Cell => ({
  cellId: `suricata-7.0.10-00000000/${mode}`,
  engine: { name: 'suricata', version: '7.0.10', packageVersion: '1:7.0.10-1', digest },
  ...{ mode, devices: 3 },
});
export const cellResult = (cell: Cell, verdict: CellResult['verdict'] = 'pass'): CellResult => ({
  ...{ cellId: cell.cellId, verdict, rulesExpected: 2, rulesLoaded: 2, gates: [], wallMs: 1 },
});
/** What the cell's activity answers. */
export const tested = (cell: Cell, verdict: CellResult['verdict'] = 'pass') => ({
  result: cellResult(cell, verdict),
  firstUse: [],
  requalified: null,
});
export const evidence = (stage: number): StageEvidence => ({
  ...{ stage, lastTick: 10 + stage, counts: counts(0, 0), statA: 0.1, statB: 0.1, leading: 'crash/*', waitingFor: [] },
});
export const passed = (stage: number): StageOutcome => ({ outcome: 'passed', evidence: evidence(stage) });
export const holdVerdict: Verdict = { ...sampleVerdict, kind: 'hold' };
/** A failure that is not tried again. */
export const final = (words: string): Error => ApplicationFailure.nonRetryable(words, 'SRP_INPUT_TEST');

const policyOf = (change: Partial<RolloutPolicy> = {}): RolloutPolicy => ({
  ...defaultPolicy,
  stages: [
    { name: 'canary', kind: 'canary', size: 1, minMs: 1, minDevices: 1 },
    { name: 'holdback', kind: 'all', size: 1, minMs: 1, minDevices: 1 },
  ],
  ...change,
});

type World = {
  readonly id: string;
  readonly script: Script;
  readonly happened: (Name | ReleaseEventType)[];
  readonly records: LogRecord[];
  readonly waiting: { readonly name: Name; readonly call: unknown }[];
  /** Called when something happened. */
  readonly listeners: Set<() => void>;
  directorVersion: number;
};

const note = (world: World, ...what: (Name | ReleaseEventType)[]): void => {
  world.happened.push(...what);
  for (const listener of [...world.listeners]) listener();
};

/** Waits until `find` finds something; looks whenever something happened. */
const found = <T>(world: World, find: () => T | undefined, what: string): Promise<T> =>
  new Promise((resolve, reject) => {
    const look = () => {
      const result = find();
      if (result === undefined) return;
      clearTimeout(limit);
      world.listeners.delete(look);
      resolve(result);
    };
    const limit = setTimeout(() => {
      world.listeners.delete(look);
      reject(new Error(`${world.id} waited in vain for ${what}; it happened: ${world.happened.join(', ')}`));
    }, patient.timeout);
    world.listeners.add(look);
    look();
  });

/** What a release that goes well hears. */
const goodAnswers = (world: World): Activities => {
  const { id } = world;
  const director = () => {
    world.directorVersion += 1;
    return { directorVersion: world.directorVersion };
  };
  return {
    recordEvents: async ({ prevHash, events }) => {
      const stored = chainEvents(prevHash, events);
      for (const event of stored) {
        const offset = String(world.records.length);
        world.records.push({ value: encodeEvent(event), partition: 0, offset, appendedAt: 0 });
      }
      note(world, ...stored.map((event) => event.type));
      return { headHash: stored.at(-1)?.hash ?? '' };
    },
    buildRelease: async () => ({
      ok: true,
      bundle: { bundleDigest: digest, rules: 2, vectors: 2, contentVersion: 2, artefacts: [] },
      ...{ gaps: [], excluded: [], waysBack: [] },
    }),
    planMatrix: async () => ({ cells: [cellOf('ids'), cellOf('ips')], fleetDevices: 3 }),
    runMatrixCell: async ({ cell }) => tested(cell),
    compareCells: async () => ({ divergences: [], different: [] }),
    readOverrides: async () => ({ overrides: [] }),
    signRelease: async () => ({
      threshold: 2,
      signatures: ['release-key-1', 'release-key-2'].map((signer) => ({ keyId: signer, signer })),
      ...{ release: contentOf(2, id), rollback: contentOf(3, id), previous: contentOf(1, 'baseline') },
    }),
    publishContent: async () => ({ targetsVersion: 2 }),
    planRollout: async ({ policy }) => ({
      salt: 'salt',
      stages: policy.stages.map(({ name }, index) => ({
        name,
        thresholds: { [segment]: index + 1 },
        devices: { [segment]: index + 1 },
      })),
    }),
    openStage: async () => director(),
    watchStage: async ({ stage }) => passed(stage),
    completeRollout: async () => ({ ...director(), counts: counts(0, 0) }),
    closeTelemetry: async () => {},
    verifyHalt: async () => ({ counts: counts(1, 1), recovered: true, waitedMs: 1 }),
    freezeExposure: async () => ({ ...director(), frozenAt: Date.now() }),
    thawExposure: async () => director(),
    publishRollback: async () => director(),
  };
};

/** One attempt of an activity: noted, then answered by the script, by the test or by default. */
const attempt = async <N extends Name>(world: World, name: N, input: Input<N>): Promise<Result<N>> => {
  const perform = async (): Promise<Result<N>> => {
    const answer = (world.script.answers?.[name] ?? goodAnswers(world)[name]) as (
      input: Input<N>,
    ) => Promise<Result<N>>;
    return answer(input);
  };
  if (!world.script.asked?.[name]?.(input)) {
    note(world, name);
    return perform();
  }
  const { cancelled, heartbeat } = Context.current();
  // As in the real ones: only these hear of their cancellation.
  const hears = name === 'watchStage' || name === 'verifyHalt' || name === 'runMatrixCell';
  const beat = hears ? setInterval(() => heartbeat(), 100) : undefined;
  try {
    const said = new Promise<Result<N>>((resolve, reject) => {
      const call: Call<N> = {
        ...{ input, answer: resolve, fail: reject },
        proceed: () => perform().then(resolve, reject),
        proceedUnheard: () => perform().then(() => {}),
      };
      world.waiting.push({ name, call });
    });
    note(world, name);
    return await Promise.race([said, cancelled]);
  } finally {
    clearInterval(beat);
  }
};

const activityNames: Readonly<Record<Exclude<keyof typeof queues, never>, readonly Name[]>> = {
  release: [
    'recordEvents',
    'planRollout',
    'openStage',
    'watchStage',
    'completeRollout',
    'closeTelemetry',
    'verifyHalt',
  ],
  build: ['buildRelease'],
  engines: ['planMatrix', 'runMatrixCell', 'compareCells', 'readOverrides'],
  publish: ['signRelease', 'publishContent'],
  halt: ['freezeExposure', 'thawExposure', 'publishRollback'],
};

/** Those of one test file, in a namespace of its own: they start before its tests and stop after them. */
export const scriptedReleasesOf = (namespace: string): Omit<ScriptedReleases, 'stop'> => {
  let opened: ScriptedReleases | undefined;
  beforeAll(async () => {
    opened = await startScriptedReleases(inject('temporalAddress'), namespace);
  });
  afterAll(async () => {
    await opened?.stop();
  });
  const releases = (): ScriptedReleases => {
    if (opened === undefined) throw new Error(`the releases of ${namespace} have not started`);
    return opened;
  };
  return {
    start: (id, script) => releases().start(id, script),
    whileNobodyDecides: (work) => releases().whileNobodyDecides(work),
  };
};

/** One set of workers for every release of a test file. */
export const startScriptedReleases = async (address: string, namespace: string): Promise<ScriptedReleases> => {
  Runtime.install({
    logger: new DefaultLogger('ERROR'),
    telemetryOptions: { logging: { filter: makeTelemetryFilterString({ core: 'ERROR', other: 'ERROR' }) } },
    shutdownSignals: [],
  });
  const [workflowBundle, connection, clientConnection] = await Promise.all([
    bundleWorkflows(),
    NativeConnection.connect({ address }),
    Connection.connect({ address }),
  ]);
  const client = new Client({ connection: clientConnection, namespace });
  const worlds = new Map<string, World>();

  /** Activities know their release by its id; the recorder's events by the stream that they belong to. */
  const dispatch = (name: Name) => async (input: Input<Name>) => {
    const id = 'events' in input ? input.events[0]?.streamId : input.releaseId;
    const world = worlds.get(id ?? '');
    if (!world) throw final(`no test knows the release ${id}`);
    return attempt(world, name, input);
  };
  const workers = await Promise.all(
    Object.entries(activityNames).map(([queue, names]) =>
      Worker.create({
        ...{ connection, namespace, taskQueue: queue },
        activities: Object.fromEntries(names.map((name) => [name, dispatch(name)])),
        // An attempt that is not wanted any more hears of it with its next heartbeat.
        maxHeartbeatThrottleInterval: 100,
        shutdownGraceTime: 1,
      }),
    ),
  );
  const runs = workers.map((worker) => worker.run());
  const startDecider = async () => {
    const worker = await Worker.create({ connection, namespace, taskQueue: queues.release, workflowBundle });
    const run = worker.run();
    return {
      stop: async () => {
        if (worker.getState() === 'RUNNING') worker.shutdown();
        await run;
      },
    };
  };
  let decider = await startDecider();

  const start = async (id: string, script: Script = {}): Promise<ScriptedRelease> => {
    const world: World = {
      ...{ id, script, happened: [], records: [], waiting: [], listeners: new Set(), directorVersion: 1 },
    };
    worlds.set(id, world);
    const policy = policyOf(script.policy);
    const input: ReleaseInput = {
      ...{ releaseId: id, family: id, requestedBy: 'rita', note: '', sourceDigest: digest, policy, carried: null },
      policyDigest: policyDigest(policy),
    };
    const keyword = (name: string, value: string) => ({
      key: defineSearchAttributeKey(name, SearchAttributeType.KEYWORD),
      value,
    });
    const handle = await client.workflow.start<typeof releaseWorkflow>('releaseWorkflow', {
      workflowId: releaseWorkflowId(id),
      taskQueue: queues.release,
      args: [input],
      typedSearchAttributes: [
        keyword('SigrelReleaseId', id),
        keyword('SigrelFamily', id),
        keyword('SigrelState', 'triggered'),
      ],
    });
    const ofLatestRun = client.workflow.getHandle<typeof releaseWorkflow>(releaseWorkflowId(id));
    const state = async () => {
      const current = await ofLatestRun.query<ReleaseState | null>('currentState');
      if (current === null) throw new Error(`${id} has not begun`);
      return current;
    };
    return {
      ...{ id, handle, happened: world.happened, state },
      asked: <N extends Name>(name: N) =>
        found(
          world,
          () => {
            const index = world.waiting.findIndex((one) => one.name === name);
            return index < 0 ? undefined : (world.waiting.splice(index, 1)[0]?.call as Call<N>);
          },
          `a call of ${name}`,
        ),
      until: async (what, times = 1) => {
        const enough = () => (world.happened.filter((one) => one === what).length >= times ? true : undefined);
        await found(world, enough, `${what}, ${times} times`);
      },
      inPhase: async (phase) => {
        const limit = Date.now() + patient.timeout;
        for (;;) {
          const current = await state();
          if (current.phase === phase) return current;
          if (Date.now() > limit) throw new Error(`${id} is ${current.phase}, and never was ${phase}`);
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
      },
      command: (kind, by = 'sam', reason = 'because') =>
        ofLatestRun.executeUpdate<{ phase: string; seq: number }, [unknown]>(kind, {
          args: [kind === 'approve' ? { by, note: reason } : { by, reason }],
        }),
      regression: async (verdict = sampleVerdict) => ofLatestRun.signal('regressionVerdict', verdict),
      end: async () => {
        const outcome = await handle.result();
        const stream = verifyStream(id, world.records);
        if (!stream.ok) throw new Error(`${id}: ${JSON.stringify(stream.findings)}`);
        const phase = foldEvents(stream.events)?.phase;
        if (phase !== outcome.phase) throw new Error(`${id} ended as ${outcome.phase}, its log as ${phase}`);
        return { ...outcome, stream, types: stream.events.map((event) => event.type) };
      },
    };
  };

  return {
    start,
    whileNobodyDecides: async (work) => {
      await decider.stop();
      await work().finally(async () => {
        decider = await startDecider();
      });
    },
    stop: async () => {
      for (const worker of workers) if (worker.getState() === 'RUNNING') worker.shutdown();
      await Promise.allSettled([...runs, decider.stop()]);
      await connection.close();
      await clientConnection.close();
    },
  };
};
