/**
 * A fleet whose fate is written down: the device's own cycle (apps/device/cycle.ts) against the real gateway and repository,
 * with chance and content deciding instead of an engine what happens to a device. Open loop: heartbeats come when they are
 * due, whether or not the gateway has answered the ones before.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  beat,
  type Device,
  install,
  keepUnsent,
  mayInstall,
  newDevice,
  type SignedReport,
  say,
} from '../../../apps/device/cycle.ts';
import { readTrustedRoot } from '../../../apps/simulator/simulator.ts';
import type { DirectorDocument } from '../../../domain/director.ts';
import { engineId, type SegmentKey, segmentKey } from '../../../domain/release.ts';
import type { ReportResult, ReportsAnswer } from '../../../domain/telemetry.ts';
import { deviceKey, newestKey, readKeyRing } from '../../../infra/device-auth.ts';
import { openRepository, type Poll } from '../../../infra/tuf/client.ts';
import { keysDirOf, storeDirOf } from '../../../services/all.ts';
import { poisson, type Random, randomOf } from '../halt/random.ts';
import { type Chance, devicesOf, type FamilyPlan, type Fault, type FleetPlan, type Second } from './plan.ts';

type Member = {
  readonly device: Device;
  readonly segment: SegmentKey;
  silentUntil: number;
  bricked: boolean;
};

type Family = {
  readonly name: string;
  readonly members: readonly Member[];
  /** Members that run content whose fault makes something more frequent. */
  readonly victims: Set<Member>;
  readonly look: () => Promise<Poll>;
};

type Said = { readonly device: Device; readonly reports: readonly SignedReport[] };

/** `results` as the gateway gave them, report by report; null: it took none. */
export const keepNotTaken = (said: readonly Said[], results: readonly ReportResult[] | null): void => {
  let at = 0;
  for (const { device, reports } of said) {
    const own = results?.slice(at, at + reports.length);
    keepUnsent(device, own ? reports.filter((_, index) => own[index]?.status === 'limited') : reports);
    at += reports.length;
  }
};

/** So many requests under way are a gateway that does not keep up. */
const mostUnderWay = 200;
const chanceEveryMs = 100;
/** A repository state is looked at this often; its devices share what was found. */
const lookEveryMs = 100;

export const runFleet = async (
  plan: FleetPlan,
  options: {
    readonly fault: () => Fault;
    readonly signal: AbortSignal;
    readonly enrolled: () => void;
    readonly second: (second: Second) => void;
  },
): Promise<void> => {
  const { heartbeatMs, batch, rates, silence } = plan;
  const { fault, signal } = options;
  const random = randomOf(plan.seed, 0);
  const fleetKey = newestKey(await readKeyRing(keysDirOf(plan.stateDir))).key;
  const root = await readTrustedRoot(storeDirOf(plan.stateDir));
  const families = await Promise.all(plan.families.map((family) => openFamily(plan, family, fleetKey, root)));
  const count = createCounter();
  let underWay = 0;

  /** What is not taken, or not yet, goes out with the next heartbeat of its device. */
  const post = async (said: readonly Said[]): Promise<readonly ReportResult[] | null> => {
    const results = await send(said.flatMap(({ reports }) => reports));
    keepNotTaken(said, results);
    return results;
  };
  const send = async (reports: readonly SignedReport[]): Promise<readonly ReportResult[] | null> => {
    if (reports.length === 0) return [];
    const started = performance.now();
    underWay += 1;
    try {
      const response = await fetch(`${plan.gatewayUrl}/v1/reports`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ reports }),
        signal: AbortSignal.timeout(15_000),
      });
      const { results } = response.ok ? ((await response.json()) as ReportsAnswer) : { results: null };
      count.answered(results, performance.now() - started);
      return results;
    } catch {
      count.answered(null, performance.now() - started);
      return null;
    } finally {
      underWay -= 1;
    }
  };

  const heartbeat = async (family: Family, members: readonly Member[]): Promise<boolean> => {
    if (underWay >= mostUnderWay) {
      count.skip();
      return false;
    }
    const seen = await family.look();
    const now = Date.now();
    const document = seen.kind === 'document' && seen.expiresAt > now ? seen.document : null;
    const awake = members.filter((member) => isAwake(member, document, now));
    const beats = awake.map(({ device }) => ({ device, ...beat(device, document) }));
    const asked = performance.now();
    const results = await post(beats);
    for (const member of awake) {
      if (random() < silence.perHeartbeat) member.silentUntil = now + (silence.heartbeats + 0.5) * heartbeatMs;
    }
    if (results === null || seen.kind !== 'document') return false;
    let at = 0;
    const after: Said[] = [];
    for (const [index, member] of awake.entries()) {
      const { reports, wants } = beats[index] ?? { reports: [], wants: null };
      at += reports.length;
      const answer = results[at - 1];
      const time = { expiresAt: seen.expiresAt, now: Date.now(), sinceAskedMs: performance.now() - asked };
      if (wants && answer && mayInstall(wants, answer, time)) {
        after.push({ device: member.device, reports: takeContent(family, member, wants, seen.document, fault()) });
      }
    }
    await post(after);
    return true;
  };

  /** Events of a tenth of a second, in the whole fleet and, more of them, among those that run faulty content. */
  const chance = async (): Promise<void> => {
    const hours = chanceEveryMs / 3_600_000;
    const now = Date.now();
    const current = fault();
    for (const { members, victims } of families) {
      const said: Said[] = [];
      const strike = (among: readonly Member[], metric: Chance, rate: number) => {
        for (let n = poisson(random, rate * hours * among.length); n > 0; n--) {
          const member = among[Math.floor(random() * among.length)];
          if (!member || member.bricked || member.silentUntil > now) continue;
          said.push({ device: member.device, reports: [trouble(member.device, metric)] });
        }
      };
      for (const metric of Object.keys(rates) as Chance[]) strike(members, metric, rates[metric]);
      if (current.kind === 'rate' && victims.size > 0) {
        strike([...victims], current.metric, (current.ratio - 1) * rates[current.metric]);
      }
      await post(said);
    }
  };

  const groups = families.flatMap((family) =>
    chunk(family.members, batch).map((members) => ({ family, members, heard: false })),
  );
  // Families take turns, so that each of them is heard evenly over a heartbeat.
  const order = groups.map((_, index) => groups[(index * coprimeStep(groups.length)) % groups.length]);
  let missing = groups.length;
  const started = Date.now();
  const running = new Set<Promise<unknown>>();
  const run = (work: Promise<unknown>) => {
    running.add(work);
    work.finally(() => running.delete(work));
  };
  const every = async (ms: number, work: (round: number) => Promise<unknown>): Promise<void> => {
    for (let round = 0; !signal.aborted; round += 1) {
      await sleep(Math.max(0, started + round * ms - Date.now()), undefined, { signal }).catch(() => {});
      if (!signal.aborted) run(work(round));
    }
  };
  await Promise.all([
    every(heartbeatMs / groups.length, async (round) => {
      const group = order[round % order.length];
      if (!group) return;
      const heard = await heartbeat(group.family, group.members);
      if (!heard || group.heard) return;
      group.heard = true;
      missing -= 1;
      if (missing === 0) options.enrolled();
    }),
    every(chanceEveryMs, chance),
    every(1_000, async () => options.second(count.take())),
  ]);
  await Promise.all(running);
};

/** Whether it sends anything now. What was bricked is repaired once the way back is there. */
const isAwake = (member: Member, document: DirectorDocument | null, now: number): boolean => {
  if (member.bricked && document !== null && document.mode !== 'rolling' && document.mode !== 'frozen') {
    member.bricked = false;
  }
  return !member.bricked && member.silentUntil <= now;
};

const takeContent = (
  { victims }: Family,
  member: Member,
  { content, needsAcknowledgement }: NonNullable<ReturnType<typeof beat>['wants']>,
  document: DirectorDocument,
  fault: Fault,
): readonly SignedReport[] => {
  const { device } = member;
  victims.delete(member);
  if (!needsAcknowledgement) {
    // What is steady again after a halt is the old bytes with a new version. That the whole fleet says so twice would be a
    // multiple of the load that is asked for.
    if (content.contentVersion === document.steady.contentVersion) {
      device.contentVersion = content.contentVersion;
      return [];
    }
    return install(device, content, { outcome: 'healthy' });
  }
  if (fault.kind === 'blocks') {
    return install(device, content, { outcome: 'blocked-traffic', words: 'name lookup: no answer' });
  }
  if (fault.kind === 'brick' && fault.segment === member.segment) {
    member.bricked = true;
    device.contentVersion = content.contentVersion;
    return [];
  }
  if (fault.kind === 'rate' && (fault.segment === null || fault.segment === member.segment)) victims.add(member);
  return install(device, content, { outcome: 'healthy' });
};

const trouble = (device: Device, kind: Chance): SignedReport =>
  say(device, { kind, contentVersion: device.contentVersion, words: 'by chance' });

// ---- the start

const openFamily = async (
  plan: FleetPlan,
  familyPlan: FamilyPlan,
  fleetKey: Uint8Array,
  trustedRoot: Uint8Array,
): Promise<Family> => {
  const { family, segments } = familyPlan;
  const counts = devicesOf(familyPlan);
  const dir = join(plan.stateDir, 'scripted-fleet', family);
  const client = await openRepository({ baseUrl: plan.repositoryUrl, dir, trustedRoot });
  const first = await client.poll(family);
  if (first.kind !== 'document') throw new Error(`the repository offers no family ${family}: ${first.why}`);
  const members = segments.flatMap(({ engine, failMode }, index) =>
    Array.from({ length: counts[index] ?? 0 }, (_, number): Member => {
      const deviceId = `${family}-${index}-${number}`;
      const key = deviceKey(fleetKey, deviceId);
      const device = newDevice({ deviceId, engine, failMode, profile: 'scripted', key });
      // It has the steady content already, as an old device has.
      device.contentVersion = first.document.steady.contentVersion;
      return { device, segment: segmentKey(engineId(engine), failMode), silentUntil: 0, bricked: false };
    }),
  );
  shuffle(members, randomOf(plan.seed, 1));
  return { name: family, members, victims: new Set(), look: sharedLook(plan, client, family) };
};

/** One look at a time, and while the timestamp is the same bytes so is all that it signs for. */
const sharedLook = (
  { repositoryUrl }: FleetPlan,
  client: Awaited<ReturnType<typeof openRepository>>,
  family: string,
): (() => Promise<Poll>) => {
  let timestamp = '';
  let last: Poll = { kind: 'no-offer', why: 'not looked at yet' };
  let lookedAt = 0;
  let running: Promise<Poll> | null = null;
  const look = async (): Promise<Poll> => {
    const bytes = await fetch(`${repositoryUrl}/metadata/timestamp.json`)
      .then((response) => response.text())
      .catch(() => timestamp);
    if (bytes !== timestamp || last.kind !== 'document') {
      timestamp = bytes;
      last = await client.poll(family);
    }
    lookedAt = performance.now();
    return last;
  };
  return async () => {
    if (performance.now() - lookedAt < lookEveryMs) return last;
    running ??= look().finally(() => {
      running = null;
    });
    return running;
  };
};

// ---- small things

const chunk = <T>(list: readonly T[], size: number): readonly (readonly T[])[] =>
  Array.from({ length: Math.ceil(list.length / size) }, (_, index) => list.slice(index * size, (index + 1) * size));

/** Visits every place of a ring of this length once, far apart. */
const coprimeStep = (length: number): number => {
  const divides = (a: number, b: number): number => (b === 0 ? a : divides(b, a % b));
  let step = Math.max(1, Math.floor(length * 0.618));
  while (divides(step, length) !== 1) step += 1;
  return step;
};

const shuffle = <T>(list: T[], random: Random): void => {
  for (let last = list.length - 1; last > 0; last--) {
    const other = Math.floor(random() * (last + 1));
    const [a, b] = [list[last], list[other]];
    if (a === undefined || b === undefined) continue;
    list[last] = b;
    list[other] = a;
  }
};

export const createCounter = () => {
  let answers: number[] = [];
  let [accepted, refused, limited, failed, skipped] = [0, 0, 0, 0, 0];
  return {
    answered: (results: readonly ReportResult[] | null, ms: number): void => {
      answers.push(ms);
      if (results === null) failed += 1;
      for (const { status } of results ?? []) {
        if (status === 'rejected') refused += 1;
        else if (status === 'limited') limited += 1;
        else accepted += 1;
      }
    },
    skip: (): void => {
      skipped += 1;
    },
    take: (): Second => {
      const sorted = answers.toSorted((a, b) => a - b);
      const answerMs = { median: sorted[sorted.length >> 1] ?? 0, worst: sorted.at(-1) ?? 0 };
      const second = { accepted, refused, limited, failed, skipped, answerMs };
      answers = [];
      [accepted, refused, limited, failed, skipped] = [0, 0, 0, 0, 0];
      return second;
    },
  };
};
