/**
 * What the aggregator's state of a fleet costs: a program of its own, started with --expose-gc, so that nothing else counts.
 * A million devices in 12 partitions, one open release in its 5 % stage, heartbeats every 5 minutes as by the default policy.
 * Prints one JSON object.
 */
import { emptyState, foldRecord } from '../../../domain/at-risk.ts';
import { toSnapshot } from '../../../domain/at-risk-snapshot.ts';
import { bucketSpace } from '../../../domain/exposure.ts';
import { defaultPolicy } from '../../../domain/policy.ts';
import { type EngineBuild, engineId, type FailMode, segmentKey } from '../../../domain/release.ts';
import type { TelemetryRecord } from '../../../domain/telemetry.ts';
import { bucketOf } from '../../../infra/cohort.ts';
import { partitionsOf } from '../../../infra/kafka/topics.ts';
import { median } from '../median.ts';

const devices = Number(process.argv[2] ?? 1_000_000);
const partitions = partitionsOf('telemetry.reports.v1');
const minute = 60_000;
const opened = 1_800_000_000_000;
const threshold = Math.floor(0.05 * bucketSpace);
const engines: readonly EngineBuild[] = ['6.0.1', '7.0.10', '8.0.7'].map((version, index) => ({
  ...{ name: 'suricata', version, packageVersion: `1:${version}-1`, digest: String(index).repeat(64) },
}));
const failModes: readonly FailMode[] = ['fail-open', 'fail-closed'];
const thresholds = Object.fromEntries(
  engines.flatMap((engine) => failModes.map((failMode) => [segmentKey(engineId(engine), failMode), threshold])),
);

const collect = (): number => {
  // Buffers of arrays that were outgrown are given back by the collection after the one that found them.
  for (let times = 0; times < 3; times += 1) globalThis.gc?.();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
};

/** Time on the event loop's thread: what others do on the machine does not count. */
const threadMs = (work: () => void): number => {
  const before = process.threadCpuUsage();
  work();
  const { user, system } = process.threadCpuUsage(before);
  return (user + system) / 1_000;
};

const states = Array.from({ length: partitions }, (_, partition) => emptyState(partition, partitions));
const offsets = states.map(() => 0);
const fold = (partition: number, record: TelemetryRecord, at: number): void => {
  const state = states[partition];
  const offset = offsets[partition] ?? 0;
  offsets[partition] = offset + 1;
  if (state) foldRecord(state, record, at, offset, bucketOf);
};
const foldAll = (record: TelemetryRecord, at: number): void => {
  for (let partition = 0; partition < partitions; partition += 1) fold(partition, record, at);
};

/** As it comes from the log: through JSON, so that strings are what a consumer has. */
const poll = (device: number, sequence: number): TelemetryRecord => {
  const deviceId = `device-${String(device).padStart(7, '0')}`;
  const offer =
    sequence === 1 && bucketOf('salt', deviceId) < threshold ? { releaseId: 'r1', contentVersion: 2 } : null;
  const body = {
    ...{ kind: 'poll', engine: engines[device % 3], failMode: failModes[device % 2], contentVersion: 1 },
    ...{ directorVersion: 7, offer },
  };
  return JSON.parse(JSON.stringify({ report: { deviceId, sequence: opened + sequence, body } }));
};

const before = collect();
const tickMs: number[] = [];
const rounds = 4;
for (let at = -5; at < 5 * (rounds - 1); at += 1) {
  const spent = threadMs(() => foldAll({ control: { kind: 'clock' } }, opened + at * minute));
  if (at > 5) tickMs.push(spent);
  if (at === 0) {
    const stage = { kind: 'stage-opened', releaseId: 'r1', family: 'ips', stage: 0, salt: 'salt' } as const;
    const versions = { contentVersion: 2, rollbackVersion: 3 };
    foldAll({ control: { ...stage, ...versions, thresholds, policy: defaultPolicy, startedAt: opened } }, opened + 1);
  }
  // As the aggregator does when the inventory has them.
  for (const { described } of states) described.clear();
  const round = Math.floor(at / 5) + 1;
  for (let device = (at + 5) % 5; device < devices; device += 5) {
    const record = poll(device, round);
    fold(device % partitions, record, opened + at * minute + Math.floor((device / devices) * minute));
  }
}
for (const { described } of states) described.clear();
const after = collect();

let snapshotBytes = 0;
const snapshotMs = states.map((state) =>
  threadMs(() => {
    snapshotBytes += toSnapshot(state).length;
  }),
);
const enrolled = states.reduce(
  (sum, state) =>
    sum +
    [...state.releases.values()].reduce(
      (all, { segments }) => all + segments.reduce((one, { counts }) => one + counts.enrolled, 0),
      0,
    ),
  0,
);
process.stdout.write(
  JSON.stringify({
    ...{ devices, enrolled, bytes: after - before, bytesPerDevice: (after - before) / devices },
    ...{ tickMs: median(tickMs), snapshotMs: median(snapshotMs), worstSnapshotMs: Math.max(...snapshotMs) },
    snapshotBytesPerDevice: snapshotBytes / devices,
  }),
);
