/**
 * `npm run bench -- exposure`: how much of the fleet a fault reaches until HOLD and HALT in the whole path, gateway to frozen
 * director, against the least that any rule needs (halt specification, section 16.1). The specification's clock runs sixty
 * times as fast: a tick, its minute, is a second. The fleet is a tenth of its 200,000 devices, so that rates are ten times as
 * high, and as many events come in a tick.
 */
import { randomUUID } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { bringDown, bringUp } from '../../apps/cli/commands/servers.ts';
import { bundleFolder } from '../../apps/cli/content.ts';
import { type Api, openApi, readStream } from '../../apps/cli/context.ts';
import { out, table } from '../../apps/cli/output.ts';
import { watchRelease } from '../../apps/cli/watch.ts';
import { liveJudge } from '../../domain/judge/live.ts';
import { engineId, type SegmentKey, segmentKey, type Verdict } from '../../domain/release.ts';
import { parsePolicy } from '../../events/policy-schema.ts';
import type { Config } from '../../infra/config.ts';
import { acquirePacks } from '../../infra/engines/packs.ts';
import { silent } from '../../infra/kafka/client.ts';
import { readEvidence } from '../../infra/postgres/evidence.ts';
import { createPool, type Pool } from '../../infra/postgres/pool.ts';
import { readServers } from '../../infra/servers/local.ts';
import { stderrProgress, step } from '../../infra/servers/progress.ts';
import { readServices } from '../../infra/servers/services-record.ts';
import type { ReleaseStarted } from '../../services/api/contract.ts';
import { deriveFamily, distribution, find, fresh, inInventory, withEnv } from './common.ts';
import { type Effect, type Reading, readRun } from './exposure/reading.ts';
import type { FamilyPlan, Fault } from './fleet/plan.ts';
import { type Fleet, startFleet } from './fleet/process.ts';
import { nullOf } from './halt/bound.ts';

export type ExposureOptions = {
  /** Of each fault. */
  readonly runs: number;
  readonly devices: number;
};

const progress = stderrProgress();

/** Minutes of the specification in one of the machine's. */
const faster = 60;
const specified = { devices: 200_000, crash: 1e-4, blocked: 5e-5, update: 2e-4, silencePerTrial: (0.02 * 5) / 60 };

const engines = ['yara-x@1.15.0', 'yara-x@1.19.0', 'yara-x@1.20.0'] as const;
/** Engine and fail mode by turns; the last one is "the 2 % segment". */
const shares = [0.4, 0.25, 0.15, 0.1, 0.08, 0.02];

/** The default plan with seconds for minutes. */
const plan = {
  ...{ tickMs: '1s', heartbeatMs: '5s', firstSilenceMs: '10s', silenceMs: '10s', leaseMs: '60s', freshTicks: 10 },
  stages: [
    { name: 'canary', kind: 'canary', size: 8, minMs: '35s', minDevices: 8 },
    { name: '1 %', kind: 'share', size: 0.01, minMs: '35s', minDevices: 20 },
    { name: '5 %', kind: 'share', size: 0.05, minMs: '60s', minDevices: 50 },
    { name: '25 %', kind: 'share', size: 0.25, minMs: '10m', minDevices: 50 },
    { name: 'all', kind: 'all', size: 1, minMs: '60s', minDevices: 50 },
  ],
};
/** Of the release that makes the content's features known: what engines meet for the first time is watched four times longer. */
const quickPlan = {
  ...plan,
  stages: [
    { name: 'canary', kind: 'canary', size: 8, minMs: '1s', minDevices: 8 },
    { name: 'all', kind: 'all', size: 1, minMs: '1s', minDevices: 8 },
  ],
};
const longestRunMs = 300_000;

type Scenario = { readonly name: string; readonly fault: Fault; readonly effect: Effect; readonly small: boolean };

/** Measures and prints; `failed`: the faults whose aim is not reached. */
export const benchExposure = (options: ExposureOptions): Promise<Result> =>
  // Read by the services' process, which is started here.
  withEnv('SIGREL_CLOCK_MS', '250', () => measureAll(options));

type Result = { readonly figures: object; readonly failed: readonly string[] };

const measureAll = async (options: ExposureOptions): Promise<Result> => {
  const config = await fresh('exposure');
  const dir = join(config.stateDir, 'input');
  await bringUp(config, progress);
  const api = openApi(config);
  const pool = createPool(readServers(config.stateDir).postgres?.address ?? '', 'bench', silent);
  const loadBefore = loadavg()[0];
  try {
    const folder = await deriveFamily(dir, {
      ...{ example: 'yara', name: 'yara', language: 'yara', modes: ['scan'], engines },
    });
    await api.post('/families', { bundle: await bundleFolder(folder, undefined) });
    const segments = await segmentPlans();
    const keys = segments.map(({ engine, failMode }) => segmentKey(engineId(engine), failMode));
    const families = [{ family: 'yara', devices: options.devices, segments }];
    const { rates, silence } = chancesOf(options.devices);
    const { gateway, repository } = readServices(config.stateDir);
    const fleet = await step(progress, `${options.devices} devices are heard for the first time`, async () => {
      const started = await startFleet({
        ...{ gatewayUrl: gateway?.url ?? '', repositoryUrl: repository?.url ?? '', stateDir: config.stateDir },
        ...{ families, heartbeatMs: 5_000, batch: 100 },
        ...{ seed: 'exposure', rates, silence },
      });
      await inInventory(pool, families);
      return started;
    });
    try {
      const found = await measure({ config, api, pool, fleet, folder, dir, keys, options });
      return report(options, found, keys.length, [loadBefore, loadavg()[0]]);
    } finally {
      await fleet.stop();
    }
  } finally {
    await pool.end();
    await bringDown(config);
  }
};

/** Of this fleet by this machine's clock. */
const chancesOf = (devices: number) => {
  const scale = faster * (specified.devices / devices);
  return {
    rates: {
      crash: specified.crash * scale,
      'blocked-traffic': specified.blocked * scale,
      'update-failure': specified.update * scale,
    },
    silence: { perHeartbeat: specified.silencePerTrial, heartbeats: 3 },
  };
};

const scenariosOf = (devices: number, keys: readonly SegmentKey[]): readonly Scenario[] => {
  const { rates, silence } = chancesOf(devices);
  const small = keys.at(-1) ?? '';
  const worse = (metric: 'crash' | 'blocked-traffic', ratio: number, segment: SegmentKey | null) => ({
    fault: { kind: 'rate', metric, ratio, segment } as const,
    effect: {
      ...{ metric, segments: segment === null ? keys : [segment] },
      ...{ control: rates[metric], treated: ratio * rates[metric] },
    },
  });
  return [
    { name: 'crash × 100, whole fleet', ...worse('crash', 100, null), small: false },
    {
      ...{ name: 'brick of the 2 % segment', fault: { kind: 'brick', segment: small }, small: true },
      effect: { metric: 'silence-first', segments: [small], control: silence.perHeartbeat, treated: 1 },
    },
    { name: 'blocked traffic × 1000, 2 %', ...worse('blocked-traffic', 1_000, small), small: true },
  ];
};

const segmentPlans = async (): Promise<FamilyPlan['segments']> => {
  const packs = await acquirePacks(progress, engines);
  return shares.map((share, index) => {
    const wanted = engines[index >> 1];
    const pack = packs.find(({ build, wanted: version }) => `${build.name}@${version}` === wanted);
    if (!pack) throw new Error(`there is no engine ${wanted}`);
    return { engine: pack.build, failMode: index % 2 === 0 ? 'fail-closed' : 'fail-open', share };
  });
};

type Run = {
  readonly releaseId: string;
  readonly named: string;
  /** From the end of the tick of HOLD to the frozen document. */
  readonly freezeMs: number | null;
  readonly reading: Reading;
};
type Found = { readonly scenario: Scenario; readonly runs: readonly Run[] };

const measure = async (given: {
  readonly config: Config;
  readonly api: Api;
  readonly pool: Pool;
  readonly fleet: Fleet;
  readonly folder: string;
  readonly dir: string;
  readonly keys: readonly SegmentKey[];
  readonly options: ExposureOptions;
}): Promise<readonly Found[]> => {
  const { config, api, pool, fleet, folder, dir, keys, options } = given;
  const policies = { plan: join(dir, 'policy.yaml'), quick: join(dir, 'quick.yaml') };
  await mkdir(dir, { recursive: true });
  await writeFile(policies.plan, stringify(plan));
  await writeFile(policies.quick, stringify(quickPlan));
  const parsed = parsePolicy(plan);
  if (!parsed.ok) throw new Error(parsed.findings.map(({ message }) => message).join('; '));
  const { policy: judge } = liveJudge(parsed.policy, keys);

  await step(progress, 'a release without a fault', async () => {
    const { phase } = await rollOut(api, folder, policies.quick);
    if (phase !== 'completed') throw new Error(`a release without a fault ended as ${phase}`);
  });
  const found: Found[] = [];
  for (const scenario of scenariosOf(options.devices, keys)) {
    const runs: Run[] = [];
    const { effect } = scenario;
    const delta = judge.metrics.find(({ id }) => id === effect.metric)?.delta ?? 0;
    for (let run = 1; run <= options.runs; run += 1) {
      progress(`${scenario.name}: run ${run} of ${options.runs}`);
      fleet.harm(scenario.fault);
      const { releaseId } = await rollOut(api, folder, policies.plan);
      fleet.harm({ kind: 'none' });
      const ticks = await readEvidence(pool, releaseId);
      const { hold, halt } = await decisionsOf(pool, releaseId);
      const { events } = await readStream(config, releaseId);
      const frozenAt = events.flatMap((event) => (event.type === 'ExposureFrozen' ? [event.data.frozenAt] : []))[0];
      const startedAt = Date.parse(find(events, 'RolloutPlanned').occurredAt);
      const frozen = hold === null || frozenAt === undefined ? null : (frozenAt - startedAt) / parsed.policy.tickMs;
      const reading = readRun(ticks, effect, nullOf(judge.keys.B, delta), {
        ...{ cells: judge.cells.length, hold: hold?.tick ?? null, frozen, halt: halt?.tick ?? null },
      });
      runs.push({
        ...{ releaseId, reading, named: halt?.cell ?? 'none' },
        freezeMs: hold === null || frozen === null ? null : (frozen - hold.tick - 1) * parsed.policy.tickMs,
      });
    }
    found.push({ scenario, runs });
  }
  return found;
};

/** Follows a release to its end; one that rolls out for five minutes without a HALT is halted by a person, and is a miss. */
const rollOut = async (
  api: Api,
  folder: string,
  policy: string,
): Promise<{ readonly releaseId: string; readonly phase: string }> => {
  const bundle = await bundleFolder(folder, policy);
  const { releaseId } = await api.post<ReleaseStarted>('/releases', {
    ...{ bundle, releaseId: `bench-${randomUUID().slice(0, 8)}`, requestedBy: 'bench', note: '' },
  });
  for (let given = false; ; ) {
    const { state, ended } = await watchRelease(api, releaseId, {
      timeoutMs: 5_000,
      justStarted: true,
      show: () => {},
    });
    if (ended) return { releaseId, phase: state?.phase ?? 'unknown' };
    const startedAt = Date.parse(state?.rollout?.startedAt ?? '');
    if (given || !(Date.now() - startedAt > longestRunMs) || state?.phase === 'halting') continue;
    given = true;
    await api.post(`/releases/${releaseId}/halt`, { by: 'bench', reason: 'the judge found nothing in five minutes' });
  }
};

const decisionsOf = async (pool: Pool, releaseId: string) => {
  // A release can have a HOLD of more than one cell: enrolment stops at the first.
  const { rows } = await pool.query<{ verdict: Verdict }>(
    'select verdict from decisions where release_id = $1 order by tick',
    [releaseId],
  );
  const of = (kind: Verdict['kind']) => rows.find(({ verdict }) => verdict.kind === kind)?.verdict ?? null;
  return { hold: of('hold'), halt: of('halt') };
};

// ---- what is said

const aim = 1.3;
/** Two ticks of the plan: what a decision needs to reach the fleet is part of no statistic. */
const mostFreezeMs = 2_000;

const report = (
  options: ExposureOptions,
  found: readonly Found[],
  segments: number,
  machineLoad: readonly (number | undefined)[],
) => {
  const rows = found.map(({ scenario, runs }) => {
    const median = (of: (run: Run) => number | undefined): number =>
      distribution(runs.map((run) => of(run) ?? Number.POSITIVE_INFINITY)).median;
    const bound = median(({ reading }) => reading.bound);
    const searched = median(({ reading }) => reading.searched);
    /** Against the bound that the aim names: when the decision falls, and when it has reached the fleet. */
    const ratiosOf = (aims: number) => ({
      ratio: median(({ reading }) => reading.hold?.deviceHours) / aims,
      frozenRatio: median(({ reading }) => reading.frozen?.deviceHours) / aims,
    });
    return {
      ...{ name: scenario.name, small: scenario.small, runs: runs.length, bound, searched },
      hold: median(({ reading }) => reading.hold?.deviceHours),
      frozen: median(({ reading }) => reading.frozen?.deviceHours),
      halt: median(({ reading }) => reading.halt?.deviceHours),
      devices: {
        hold: median(({ reading }) => reading.hold?.devices),
        halt: median(({ reading }) => reading.halt?.devices),
      },
      harmed: {
        hold: median(({ reading }) => reading.hold?.harmed),
        halt: median(({ reading }) => reading.halt?.harmed),
      },
      freezeMs: median((run) => run.freezeMs ?? undefined),
      missed: runs.filter(({ reading }) => reading.halt === null).length,
      named: runs.filter(({ named }) => named.startsWith(scenario.effect.metric)).length,
      ...ratiosOf(scenario.small ? searched : bound),
    };
  });
  const columns = [
    ...['fault', 'runs', 'bound', 'searched', 'HOLD', 'frozen', 'HALT', 'devices', 'harmed'],
    ...['HOLD/bound', 'frozen/bound'],
  ].map((name, index) => ({ name, right: index > 0 }));
  const figure = (value: number) => (Number.isFinite(value) ? value.toPrecision(3) : '–');
  out(
    table(
      columns,
      rows.map((row) => [
        ...[row.name, String(row.runs), figure(row.bound), figure(row.searched), figure(row.hold), figure(row.frozen)],
        ...[figure(row.halt), `${row.devices.hold}, ${row.devices.halt}`, `${row.harmed.hold}, ${row.harmed.halt}`],
        ...[figure(row.ratio), figure(row.frozenRatio)],
      ]),
    ),
  );
  out(
    `medians; device-hours of served devices in the affected segments, a second standing for a minute; ${options.devices} devices in ${segments} segments; devices and harmed at HOLD, HALT; the bound of the last two columns is the searched one for a small segment; load of the machine ${machineLoad.map((load) => load?.toFixed(1)).join(' before, ')} after`,
  );
  const failed = rows.flatMap(({ name, ratio, small, freezeMs }) => [
    ...(ratio <= aim ? [] : [`${name}: ${figure(ratio)} × the bound${small ? ' with the search' : ''}, aim ${aim}`]),
    ...(freezeMs <= mostFreezeMs ? [] : [`${name}: frozen ${figure(freezeMs)} ms after HOLD, aim ${mostFreezeMs} ms`]),
  ]);
  for (const why of failed) out(`not reached: ${why}`);
  return {
    figures: {
      unit: 'device-hours',
      faster,
      devices: options.devices,
      segments,
      machineLoad,
      faults: rows,
      found,
      failed,
    },
    failed,
  };
};
