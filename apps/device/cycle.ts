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
  readonly site?: string;
  readonly engine: EngineBuild;
  readonly failMode: FailMode;
  /** Field traffic that it sees. */
  readonly profile: string;
  /** The newest that it was given, and the epoch of the fleet key it was derived from. */
  key: Uint8Array;
  keyEpoch: number;
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

export type SignedReport = DeviceReport & { readonly keyEpoch: number; readonly mac: string };

/** `sequence`: below the first number of this life (sequence-file.ts). Its clock alone will do while that is never set back. */
export const newDevice = (
  description: Pick<Device, 'deviceId' | 'site' | 'engine' | 'failMode' | 'profile' | 'key'> & {
    readonly keyEpoch?: number;
  },
  sequence = Date.now(),
): Device => ({
  keyEpoch: 1,
  ...description,
  ...{ contentVersion: 0, directorVersion: 0, rejected: [], trouble: null, settled: true, outbox: [], sequence },
});

/** Numbers and signs what the device says. */
export const say = (device: Device, body: DeviceReport['body']): SignedReport => {
  device.sequence += 1;
  const { deviceId, site, sequence, keyEpoch } = device;
  const report: DeviceReport = { deviceId, ...(site !== undefined && { site }), sequence, body };
  return { ...report, keyEpoch, mac: signReport(device.key, report) };
};

export type Heartbeat = {
  /** In order; the poll is the last. */
  readonly reports: readonly SignedReport[];
  /** What the device would take, and whether only with an acknowledgement. */
  readonly wants: { readonly content: Content; readonly needsAcknowledgement: boolean } | null;
};

/** document null: nothing is offered (no connection, or expired). */
export const beat = (device: Device, document: DirectorDocument | null): Heartbeat => {
  const { engine, failMode, contentVersion, trouble } = device;
  const id = engineId(engine);
  const segment = segmentKey(id, failMode);
  const decision = document && decideDevice(document, { ...device, engine: id, segment }, bucketOf);
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

/**
 * Reports that no gateway took go out before those of the next heartbeat. A poll is not kept, the next heartbeat has its own; of
 * others that say the same only the first is: so what a device has to say stays short, however long nobody hears it.
 */
export const keepUnsent = (device: Device, reports: readonly SignedReport[]): void => {
  for (const report of reports) {
    const { body } = report;
    const same = (one: SignedReport) => one.body.kind === body.kind && one.body.contentVersion === body.contentVersion;
    if (body.kind !== 'poll' && !device.outbox.some(same)) device.outbox = [...device.outbox, report];
  }
};

/**
 * Whether the device may take what it wants: the document is in force by the device's own clock (`now`), and for what rolls
 * out the acknowledgement is too, which needs no clock: `sinceAskedMs` is what has passed on a monotonic one since before the
 * request went out. A clock that is slow cannot take what has lapsed, a fast one makes the device wait.
 */
export const mayInstall = (
  wants: Heartbeat['wants'],
  answer: ReportResult,
  time: { readonly expiresAt: number; readonly now: number; readonly sinceAskedMs: number },
): boolean =>
  wants !== null &&
  time.expiresAt > time.now &&
  (!wants.needsAcknowledgement || time.sinceAskedMs < (answer.acknowledgedForMs ?? 0));

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
