/**
 * What a device does once per heartbeat: it looks at the verified director document, says what it runs, asks to be offered
 * what rolls out, and installs only what was acknowledged. It fails static: without a document it keeps what runs.
 */
import { decideDevice } from '../../domain/device.ts';
import type { DirectorDocument } from '../../domain/director.ts';
import { type Content, type EngineBuild, engineId, type FailMode, segmentKey } from '../../domain/release.ts';
import type { DeviceReport, ReportResult } from '../../domain/telemetry.ts';
import { bucketOf } from '../../infra/cohort.ts';
import { signReport } from '../../infra/device-auth.ts';

/** What content does on this device's engine and traffic, as the engine itself says. */
export type Trial =
  | { readonly outcome: 'healthy' }
  | { readonly outcome: 'load-failure' | 'blocked-traffic'; readonly words: string };

export type Device = {
  readonly deviceId: string;
  readonly engine: EngineBuild;
  readonly failMode: FailMode;
  /** Field traffic that it sees. */
  readonly profile: string;
  readonly key: Uint8Array;
  /** 0: nothing yet. */
  contentVersion: number;
  directorVersion: number;
  sequence: number;
  /** Content that was tried and reverted from: it is not tried again. */
  rejected: readonly number[];
  /** What is wrong with what runs; said with every heartbeat. */
  trouble: Extract<Trial, { words: string }> | null;
  /** `healthy` was said for what runs. */
  settled: boolean;
  /** Reports that no gateway has taken yet. */
  outbox: readonly SignedReport[];
};

export type SignedReport = DeviceReport & { readonly mac: string };

export const newDevice = (
  description: Pick<Device, 'deviceId' | 'engine' | 'failMode' | 'profile' | 'key'>,
): Device => ({
  ...description,
  ...{ contentVersion: 0, directorVersion: 0, rejected: [], trouble: null, settled: true, outbox: [] },
  // Begins above every number of an earlier life, which the gateway has seen: reports come slower than one a millisecond.
  sequence: Date.now(),
});

/** Numbers and signs what the device says. */
export const say = (device: Device, body: DeviceReport['body']): SignedReport => {
  device.sequence += 1;
  const report: DeviceReport = { deviceId: device.deviceId, sequence: device.sequence, body };
  return { ...report, mac: signReport(device.key, report) };
};

export type Heartbeat = {
  /** In order; the poll is the last. */
  readonly reports: readonly SignedReport[];
  /** What the device would take, and whether only with an acknowledgement. */
  readonly wants: { readonly content: Content; readonly needsAcknowledgement: boolean } | null;
};

/** document null: nothing is offered (no connection, or expired). */
export const beat = (device: Device, document: DirectorDocument | null): Heartbeat => {
  const { deviceId, engine, failMode, contentVersion, rejected, trouble } = device;
  const id = engineId(engine);
  const segment = segmentKey(id, failMode);
  const decision =
    document && decideDevice(document, { deviceId, engine: id, segment, contentVersion, rejected }, bucketOf);
  const wants = decision?.action === 'install' ? decision : null;
  device.directorVersion = document?.directorVersion ?? device.directorVersion;
  const reports = [...device.outbox];
  device.outbox = [];
  if (trouble) reports.push(say(device, { kind: trouble.outcome, contentVersion, words: trouble.words }));
  else if (!device.settled) {
    device.settled = true;
    reports.push(say(device, { kind: 'healthy', contentVersion }));
  }
  const { content } = wants ?? {};
  const offer =
    wants?.needsAcknowledgement && content
      ? { releaseId: content.releaseId, contentVersion: content.contentVersion }
      : null;
  const { directorVersion } = device;
  reports.push(say(device, { kind: 'poll', engine, failMode, contentVersion, directorVersion, offer }));
  return { reports, wants };
};

/** Reports that no gateway took go out before those of the next heartbeat; the oldest are given up first. */
export const keepUnsent = (device: Device, reports: readonly SignedReport[]): void => {
  device.outbox = [...device.outbox, ...reports].slice(-outboxLimit);
};

const outboxLimit = 50;

/** Whether the device may take what it wants now: acknowledged, and the document (the lease) still in force. */
export const mayInstall = (wants: Heartbeat['wants'], answer: ReportResult, expiresAt: number, now: number): boolean =>
  wants !== null && expiresAt > now && (!wants.needsAcknowledgement || (answer.acknowledgedUntil ?? 0) > now);

/** Takes the content and says what came of it. Content that does not load is left again at once. */
export const install = (device: Device, content: Content, trial: Trial): readonly SignedReport[] => {
  const { contentVersion } = content;
  if (trial.outcome === 'load-failure') {
    device.rejected = [...device.rejected, contentVersion];
    return [
      say(device, { kind: 'load-failure', contentVersion, words: trial.words }),
      say(device, { kind: 'reverted', contentVersion: device.contentVersion }),
    ];
  }
  device.contentVersion = contentVersion;
  device.trouble = trial.outcome === 'healthy' ? null : trial;
  device.settled = false;
  const installed = say(device, { kind: 'installed', contentVersion });
  if (trial.outcome === 'healthy') return [installed];
  return [installed, say(device, { kind: trial.outcome, contentVersion, words: trial.words })];
};

/** Content that could not be fetched or did not verify: the device keeps what it has and says so. */
export const failUpdate = (device: Device, content: Content, words: string): readonly SignedReport[] => [
  say(device, { kind: 'update-failure', contentVersion: content.contentVersion, words }),
];
