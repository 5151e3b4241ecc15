/**
 * The gateway: authenticates and checks what devices report, writes it into the telemetry log, and only then answers. A poll
 * that asks for rolling content is acknowledged when Kafka has it: this is how the server knows who was offered what.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import Fastify from 'fastify';
import { isNew, markSeen, nothingSeen, type Seen } from '../domain/sequence.ts';
import type { DeviceReport, ReportResult, ReportsAnswer } from '../domain/telemetry.ts';
import { checkReport, deviceKey } from '../infra/device-auth.ts';
import type { Log } from '../infra/kafka/client.ts';
import type { GatewayLog, RefusedReport } from '../infra/kafka/telemetry-log.ts';
import { firstIssue, requestSchema, signedReportSchema } from './report-schema.ts';

export type Gateway = { readonly url: string; stop(): Promise<void> };

type Checked =
  | { readonly kind: 'fresh' | 'duplicate'; readonly report: DeviceReport }
  | { readonly kind: 'refused'; readonly reason: string };

/** What is remembered of a device that proved itself: for telling repeats at once; the aggregator drops them for good. */
type Known = { readonly key: Uint8Array; readonly seen: Seen; offered: { sequence: number; until: number } | null };

const receivedLimit = 4_096;

/** `clockMs`: how often a clock record goes into every partition; `ackMs`: how long an acknowledgement holds. */
export const startGateway = async (options: {
  readonly telemetry: GatewayLog;
  readonly fleetKey: Uint8Array;
  readonly port: number;
  readonly clockMs: number;
  readonly ackMs: number;
  readonly log: Log;
}): Promise<Gateway> => {
  const { telemetry, fleetKey, ackMs, log } = options;
  const devices = new Map<string, Known>();

  const check = (received: unknown): Checked => {
    const parsed = signedReportSchema.safeParse(received);
    if (!parsed.success) return { kind: 'refused', reason: firstIssue(parsed.error) };
    const { mac, ...report } = parsed.data;
    // A key is kept only for a device that proved that it has it: invented names cost no memory.
    const known = devices.get(report.deviceId);
    const key = known?.key ?? deviceKey(fleetKey, report.deviceId);
    if (!checkReport(key, report, mac)) {
      return { kind: 'refused', reason: `the MAC is not that of this report under the key of ${report.deviceId}` };
    }
    if (known === undefined) devices.set(report.deviceId, { key, seen: nothingSeen(), offered: null });
    else if (!isNew(known.seen, report.sequence)) return { kind: 'duplicate', report };
    return { kind: 'fresh', report };
  };

  /** After the log has the report: an offer holds from now, a repeated one as long as it did. */
  const answer = (checked: Checked, now: number): ReportResult => {
    if (checked.kind === 'refused') return { status: 'rejected', reason: checked.reason };
    const { report } = checked;
    const known = devices.get(report.deviceId);
    if (known !== undefined && checked.kind === 'fresh') {
      markSeen(known.seen, report.sequence);
      if (report.body.kind === 'poll' && report.body.offer !== null) {
        known.offered = { sequence: report.sequence, until: now + ackMs };
      }
    }
    const status = checked.kind === 'fresh' ? 'accepted' : 'duplicate';
    return known?.offered?.sequence === report.sequence
      ? { status, acknowledgedUntil: known.offered.until }
      : { status };
  };

  const server = Fastify({ bodyLimit: 4 * 1_048_576, forceCloseConnections: true });
  server.post('/v1/reports', async (request, reply) => {
    const parsed = requestSchema.safeParse(request.body);
    if (!parsed.success) {
      return reply
        .code(400)
        .type('application/problem+json')
        .send(problem(400, 'unreadable request', 'SRP_INPUT_REPORTS', firstIssue(parsed.error)));
    }
    const { reports } = parsed.data;
    const checked = reports.map(check);
    const refused = checked.flatMap((one, index): RefusedReport[] =>
      one.kind === 'refused'
        ? [{ reason: one.reason, received: JSON.stringify(reports[index]).slice(0, receivedLimit) }]
        : [],
    );
    // Kept for people: whether that works is no matter of the devices whose reports are genuine.
    telemetry.refuse(refused).catch((error: Error) => {
      log('warn', { refused: refused.length, error: error.message }, 'refused reports were not kept');
    });
    try {
      await telemetry.append(checked.flatMap((one) => (one.kind === 'fresh' ? [one.report] : [])));
    } catch (error) {
      // The device sends the same reports again; whatever reached the log is dropped there as a repeat.
      const detail = error instanceof Error ? error.message : String(error);
      log('warn', { reports: reports.length, error: detail }, 'reports were not acknowledged');
      return reply
        .code(503)
        .type('application/problem+json')
        .send(problem(503, 'the telemetry log is not available', 'SRP_DEP_KAFKA', detail));
    }
    if (refused.length > 0)
      log('info', { refused: refused.length, reason: refused[0]?.reason }, 'reports were refused');
    const now = Date.now();
    const found: ReportsAnswer = { results: checked.map((one) => answer(one, now)) };
    return found;
  });

  const url = await server.listen({ host: '127.0.0.1', port: options.port });
  const stopping = new AbortController();
  const clock = runClock(telemetry, options.clockMs, log, stopping.signal);
  return {
    url,
    stop: async () => {
      stopping.abort();
      await Promise.all([server.close(), clock]);
    },
  };
};

const problem = (status: number, title: string, code: string, detail: string) => ({
  type: 'about:blank',
  title,
  status,
  code,
  detail,
});

/**
 * A clock record in every partition, so that an idle one closes its ticks too. Missed while the log is away. Paced by monotonic
 * time: an hour that is set back is no hour without one.
 */
const runClock = async (telemetry: GatewayLog, clockMs: number, log: Log, signal: AbortSignal): Promise<void> => {
  let next = performance.now();
  let working = true;
  while (!signal.aborted) {
    const error = await telemetry.control({ kind: 'clock' }).then(
      () => null,
      (failure: Error) => failure,
    );
    if (working && error)
      log('error', { error: error.message }, 'the clock stopped: no tick closes until Kafka is back');
    if (!working && !error) log('info', {}, 'the clock goes on');
    working = error === null;
    next = Math.max(next + clockMs, performance.now());
    await sleep(Math.max(0, next - performance.now()), undefined, { signal }).catch(() => {});
  }
};
