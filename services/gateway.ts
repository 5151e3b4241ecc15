/**
 * The gateway: authenticates and checks what devices report, writes it into the telemetry log, and only then answers. A poll
 * that asks for rolling content is acknowledged when Kafka has it: this is how the server knows who was offered what.
 *
 * Nothing is lost without a word: every report that came is answered as accepted, duplicate, rejected (and kept as a dead
 * letter, or counted where there are too many), limited, or not taken (503); /v1/status has the sums.
 */
import type { IncomingMessage } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import Fastify, { type FastifyError, type FastifyReply, type FastifyRequest } from 'fastify';
import type { AskingPoll } from '../domain/offer.ts';
import type { Acknowledgements, DeviceSites } from '../domain/ports.ts';
import type { DeviceReport, ReportResult, ReportsAnswer } from '../domain/telemetry.ts';
import { defaultRates, type GatewayRates } from '../infra/config.ts';
import type { KeyRing } from '../infra/device-auth.ts';
import type { Log } from '../infra/kafka/client.ts';
import type { GatewayLog } from '../infra/kafka/telemetry-log.ts';
import { within } from '../infra/within.ts';
import { createDeadLetters, type DeadLetterCounts } from './dead-letters.ts';
import { type Checked, createReportCheck, type Looked, type Refusal, refuse } from './report-check.ts';
import { firstIssue, requestSchema } from './report-schema.ts';

export type Gateway = { readonly url: string; status(): GatewayStatus; stop(): Promise<void> };

/** `received` is the sum of the five others, of requests that were answered. */
export type GatewayStatus = {
  readonly reports: Readonly<
    Record<'received' | 'accepted' | 'duplicate' | 'rejected' | 'limited' | 'unavailable', number>
  >;
  readonly rejected: Readonly<Record<Refusal, number>>;
  readonly deadLetters: DeadLetterCounts;
  /** Requests refused before their reports were looked at: unreadable (400, 413, 415), or too much in flight (503). */
  readonly requests: Readonly<Record<'unreadable' | 'overloaded', number>>;
  readonly bytesInFlight: number;
  /** Offers that were in the log and not acknowledged, because it could not be kept that they were. */
  readonly unacknowledged: number;
  /** Devices that proved themselves since the start, or the last of them. */
  readonly devices: number;
  readonly revokedDevices: number;
  /** How far (ms) the clock here is behind Kafka's; null: not known yet. Nothing is acknowledged above a second. */
  readonly clockBehindMs: number | null;
  readonly keyEpochs: readonly number[];
};

/** What is granted at this moment: how long (ms) this device may take what its poll asks for; 0: not at all. */
export type OfferCheck = () => Promise<(device: Pick<DeviceReport, 'deviceId' | 'site'>, poll: AskingPoll) => number>;
type Fresh = Extract<Checked, { kind: 'fresh' | 'duplicate' }>;
type Granted = Awaited<ReturnType<OfferCheck>>;

export type GatewayLimits = GatewayRates & {
  /** Of one request. */
  readonly bodyBytes: number;
  /** Of all requests until Kafka has their reports: some 100,000 reports, which is what fits into Kafka's time limit. */
  readonly bytesInFlight: number;
  /** Devices of which key, sequence and rate are remembered; of a forgotten one the fold still drops repeats. */
  readonly devices: number;
};

export const defaultLimits: GatewayLimits = {
  ...defaultRates,
  bodyBytes: 4 * 2 ** 20,
  bytesInFlight: 32 * 2 ** 20,
  devices: 500_000,
};

const retryAfterSeconds = 1;
/** How far behind the log's clock this one may be: a lease that has run out would be taken for one that has not. */
const behindLimitMs = 1_000;
/** What does not answer must not keep devices waiting: they ask again with their next poll. */
const lookUpWithinMs = 2_000;
/** Nothing packed with gzip unpacks to more than so many times its length. */
const gzipExpandsAtMost = 1_032;

/**
 * `clockMs`: how often a clock record goes into every partition; `ackMs`: how long an acknowledgement holds; `keys` and
 * `revoked` are read before the first report is taken and every `refreshMs`: what was read last goes on to hold while they
 * cannot be. Throws when they cannot be read at the start.
 */
export const startGateway = async (options: {
  readonly telemetry: GatewayLog;
  readonly keys: () => Promise<KeyRing>;
  /** Device -> why. */
  readonly revoked: () => Promise<ReadonlyMap<string, string>>;
  readonly sites: DeviceSites;
  readonly acknowledgements: Acknowledgements;
  readonly offers: OfferCheck;
  readonly port: number;
  readonly clockMs: number;
  readonly ackMs: number;
  readonly refreshMs?: number;
  readonly limits?: Partial<GatewayLimits>;
  readonly log: Log;
}): Promise<Gateway> => {
  const { telemetry, ackMs, log } = options;
  const limits = { ...defaultLimits, ...options.limits };
  const deadLetters = createDeadLetters(telemetry, limits.deadLetterRate, log);
  const counts = { received: 0, accepted: 0, duplicate: 0, rejected: 0, limited: 0, unavailable: 0 };
  const rejected: Record<Refusal, number> = { schema: 0, 'key-epoch': 0, mac: 0, revoked: 0, site: 0, description: 0 };
  const requests = { unreadable: 0, overloaded: 0 };
  const underWay = new WeakMap<IncomingMessage, PromiseLike<unknown>>();
  /** What each request has of `bytesInFlight`, from its beginning to its end. */
  const reserved = new WeakMap<IncomingMessage, number>();
  let bytesInFlight = 0;
  let unacknowledged = 0;
  let behindMs = Number.POSITIVE_INFINITY;
  let keyReads = 0;
  let keysOfRead = 0;
  let keys = await options.keys();
  let revoked = await options.revoked();
  const { devices, deviceRate } = limits;
  const reportCheck = createReportCheck({ keys: () => keys, revoked: () => revoked, devices, deviceRate });

  const readKeys = async (): Promise<void> => {
    keyReads += 1;
    const read = keyReads;
    const ring = await options.keys();
    // A reading that began earlier and took longer has nothing newer.
    if (read < keysOfRead) return;
    keys = ring;
    keysOfRead = read;
  };

  /**
   * What lacks something is looked up and checked again: the key ring, when a device has a newer key than was read last, and
   * where a device stands that is heard for the first time. Without an answer nothing is wrong with the report: it comes again.
   */
  const check = async (received: readonly unknown[], now: number): Promise<readonly Checked[]> => {
    const checkAgain = (looked: readonly Looked[], kind: Looked['kind']): readonly Looked[] =>
      looked.map((one, index) => (one.kind === kind ? reportCheck.check(received[index], now) : one));
    let looked: readonly Looked[] = received.map((one) => reportCheck.check(one, now));
    let ringRead = true;
    if (looked.some(({ kind }) => kind === 'ahead')) {
      try {
        await within(lookUpWithinMs, readKeys());
      } catch (error) {
        ringRead = false;
        log('warn', { error: String(error) }, 'a device has a key of a newer epoch, and the keys could not be read');
      }
      looked = checkAgain(looked, 'ahead');
    }
    const unplaced = looked.flatMap((one) => (one.kind === 'unplaced' ? [one.report] : []));
    if (unplaced.length > 0) {
      try {
        const said = unplaced.map(({ deviceId, site }) => ({ deviceId, site: site ?? null }));
        reportCheck.place(await within(lookUpWithinMs, options.sites.pin(said)));
      } catch (error) {
        log('warn', { reports: unplaced.length, error: String(error) }, 'where devices stand could not be looked up');
      }
      looked = checkAgain(looked, 'unplaced');
    }
    return looked.map((one) => {
      if (one.kind === 'ahead') return ringRead ? refuse('key-epoch', one.reason) : comeAgain(one.reason);
      if (one.kind !== 'unplaced') return one;
      return comeAgain(`it cannot be looked up where ${one.report.deviceId} stands: the database is not available`);
    });
  };

  /** Offers of these polls hold until then; one of a poll that comes again as long as it did. */
  const keepOffers = async (polls: readonly Fresh[], until: number): Promise<void> => {
    const offers = polls.map(({ report: { deviceId, sequence } }) => ({ deviceId, sequence, until }));
    const granted = await within(lookUpWithinMs, options.acknowledgements.grant(offers));
    const byDevice = new Map(granted.map((one) => [one.deviceId, one]));
    for (const { report, known } of polls) {
      const to = byDevice.get(report.deviceId);
      if (to && to.sequence >= (known.offered?.sequence ?? -1)) known.offered = to;
    }
  };

  /**
   * Before the log has them: that a poll was withdrawn is kept as an offer without time. The log will drop its repeat, so that a
   * gateway to which it is new must not acknowledge it. What cannot be kept is not written either, and comes again.
   */
  const keepWithdrawn = async (checked: readonly Checked[]): Promise<readonly Checked[]> => {
    const withdrawn = checked.flatMap((one) => (one.kind === 'fresh' && one.withdrawn ? [one] : []));
    if (withdrawn.length === 0) return checked;
    try {
      await keepOffers(withdrawn, Date.now());
      return checked;
    } catch (error) {
      log('warn', { polls: withdrawn.length, error: String(error) }, 'polls that are granted nothing were not taken');
      return checked.map((one) => {
        if (one.kind !== 'fresh' || !one.withdrawn) return one;
        reportCheck.markLost(one);
        return comeAgain(
          `it cannot be kept that ${one.report.deviceId} was not granted what it asks for: the database is not available`,
        );
      });
    }
  };

  /** After the log has them. */
  const acknowledge = async (checked: readonly Checked[]): Promise<void> => {
    const offered = checked.flatMap((one) =>
      one.kind === 'fresh' && one.report.body.kind === 'poll' && one.report.body.offer !== null ? [one] : [],
    );
    if (offered.length === 0) return;
    try {
      await keepOffers(offered, Date.now() + ackMs);
    } catch (error) {
      unacknowledged += offered.length;
      log('warn', { offers: offered.length, error: String(error) }, 'offers were not acknowledged');
    }
  };

  /** After the log has the report, and neither longer than its first acknowledgement nor than its lease (`leftMs`). */
  const answer = (checked: Checked, leftMs: number, now: number): ReportResult => {
    if (checked.kind === 'refused') return { status: 'rejected', reason: checked.reason };
    if (checked.kind === 'limited') {
      const { retryAfterMs, reason } = checked;
      return { status: 'limited', retryAfterMs, ...(reason !== null && { reason }) };
    }
    const { report, known, kind } = checked;
    const status = kind === 'fresh' ? 'accepted' : 'duplicate';
    if (known.offered?.sequence !== report.sequence) return { status };
    const acknowledgedForMs = Math.floor(Math.min(known.offered.until - now, leftMs));
    return acknowledgedForMs > 0 ? { status, acknowledgedForMs } : { status };
  };

  const count = (checked: readonly Checked[], taken: boolean): void => {
    counts.received += checked.length;
    for (const one of checked) {
      if (one.kind === 'refused') {
        counts.rejected += 1;
        rejected[one.why] += 1;
      } else if (!taken) counts.unavailable += 1;
      else counts[one.kind === 'fresh' ? 'accepted' : one.kind] += 1;
    }
  };

  /** Nothing is granted by a clock that is behind, nor before that is known. */
  const granted = async (): Promise<Granted> => (behindMs <= behindLimitMs ? options.offers() : () => 0);

  const tellTime = async (): Promise<void> => {
    const appendedAt = await telemetry.control({ kind: 'clock' });
    const before = behindMs;
    behindMs = appendedAt - Date.now();
    if (behindMs <= behindLimitMs) return;
    if (before <= behindLimitMs || before === Number.POSITIVE_INFINITY) {
      log('error', { behindMs }, 'nothing is acknowledged: the clock of this machine is behind that of Kafka');
    }
  };

  const take = async (received: readonly unknown[], reply: FastifyReply): Promise<FastifyReply> => {
    const before = await granted();
    const now = Date.now();
    const checked = await keepWithdrawn((await check(received, now)).map((one) => withdraw(before, one)));
    const refused = checked.flatMap((one, index) =>
      one.kind === 'refused' ? [{ reason: one.reason, received: received[index] }] : [],
    );
    deadLetters.keep(refused, now);
    try {
      await telemetry.append(checked.flatMap((one) => (one.kind === 'fresh' ? [one.report] : [])));
    } catch (error) {
      // The device sends the same reports again; whatever reached the log is dropped there as a repeat.
      for (const one of checked) reportCheck.markLost(one);
      count(checked, false);
      const detail = error instanceof Error ? error.message : String(error);
      log('warn', { reports: received.length, error: detail }, 'reports were not acknowledged');
      return unavailable(reply, 'the telemetry log is not available', 'SRP_DEP_KAFKA', detail);
    }
    for (const one of checked) reportCheck.markTaken(one);
    await acknowledge(checked);
    count(checked, true);
    // Once more: it may have been stopped while the log was written.
    const after = await granted();
    const answeredAt = Date.now();
    const found: ReportsAnswer = { results: checked.map((one) => answer(one, grantedMs(after, one), answeredAt)) };
    const waits = checked.map((one) => (one.kind === 'limited' && one.reason === null ? one.retryAfterMs : null));
    const longest = waits.reduce<number | null>(
      (most, wait) => (most === null || wait === null ? null : Math.max(most, wait)),
      0,
    );
    if (longest === null) return reply.send(found);
    const detail = `every device of the request is above ${deviceRate.perSecond} reports a second: nothing was taken`;
    return reply
      .code(429)
      .header('retry-after', Math.ceil(longest / 1_000))
      .type('application/problem+json')
      .send(problem(429, 'too many reports', 'SRP_RULE_DEVICE_RATE', detail));
  };

  const reserve = (request: IncomingMessage, bytes: number): void => {
    bytesInFlight += bytes - (reserved.get(request) ?? 0);
    reserved.set(request, bytes);
  };

  const release = (request: IncomingMessage): void => {
    reserve(request, 0);
    reserved.delete(request);
  };

  const server = Fastify({ bodyLimit: limits.bodyBytes, forceCloseConnections: true, requestTimeout: 30_000 });
  // Not Fastify's own parser: it refuses a whole request for a key "__proto__" in one of its reports.
  server.removeAllContentTypeParsers();
  server.addContentTypeParser(
    'application/json',
    { parseAs: 'buffer' },
    async (request: FastifyRequest, body: Buffer) => {
      const text = await unpack(body, request.headers['content-encoding'], limits.bodyBytes);
      if (!reserved.has(request.raw)) throw withStatus(new Error('the client went away'), 400);
      reserve(request.raw, body.length + (text === body ? 0 : text.length));
      try {
        return JSON.parse(text.toString());
      } catch (error) {
        throw withStatus(error, 400);
      }
    },
  );
  server.setErrorHandler<FastifyError>((error, request, reply) => {
    const { statusCode = 500 } = error;
    if (statusCode >= 500) {
      log('error', { error: String(error.stack) }, 'a request could not be handled');
      return reply
        .code(500)
        .type('application/problem+json')
        .send(problem(500, 'internal error', 'SRP_BUG_INTERNAL', 'see the log of the gateway'));
    }
    requests.unreadable += 1;
    const tooLarge = statusCode === 413;
    const code = tooLarge ? 'SRP_INPUT_SIZE' : 'SRP_INPUT_REPORTS';
    const detail = tooLarge
      ? `the request is larger than ${limits.bodyBytes} bytes, unpacked: send its reports in several`
      : `${error.message}; expected application/json: { "reports": [...] }`;
    // Of another content type nothing is said about packing (RFC 9110, 12.5.3).
    if (statusCode === 415 && codingOf(request.headers['content-encoding']) === null) {
      reply.header('accept-encoding', 'gzip');
    }
    return reply
      .code(statusCode)
      .type('application/problem+json')
      .send(problem(statusCode, 'unreadable request', code, detail));
  });

  // Before the body is read: what could not be handed on is not taken in.
  server.addHook('onRequest', async (request, reply) => {
    if (request.method === 'GET' || request.method === 'HEAD') return;
    // What it is unpacked is not known before: the most that it may be.
    const expands = codingOf(request.headers['content-encoding']) === 'gzip' ? gzipExpandsAtMost : 1;
    const length = Number(request.headers['content-length'] ?? limits.bodyBytes) * expands;
    const size = Math.min(Number.isFinite(length) ? length : limits.bodyBytes, limits.bodyBytes);
    if (bytesInFlight > 0 && bytesInFlight + size > limits.bytesInFlight) {
      requests.overloaded += 1;
      const detail = `${bytesInFlight} bytes of reports wait for the telemetry log, at most ${limits.bytesInFlight} may`;
      return unavailable(reply, 'too much is under way', 'SRP_DEP_OVERLOADED', detail);
    }
    reserve(request.raw, size);
    // A client that goes away ends its request, not what is on its way to the log.
    reply.raw.once('close', () => {
      void Promise.resolve(underWay.get(request.raw)).finally(() => release(request.raw));
    });
  });

  server.post('/v1/reports', async (request, reply) => {
    const parsed = requestSchema.safeParse(request.body);
    if (parsed.success) {
      const work = take(parsed.data.reports, reply);
      underWay.set(request.raw, work);
      return work;
    }
    requests.unreadable += 1;
    return reply
      .code(400)
      .type('application/problem+json')
      .send(problem(400, 'unreadable request', 'SRP_INPUT_REPORTS', firstIssue(parsed.error)));
  });

  const status = (): GatewayStatus => ({
    reports: { ...counts },
    rejected: { ...rejected },
    deadLetters: deadLetters.counts(),
    requests: { ...requests },
    ...{ bytesInFlight, unacknowledged, devices: reportCheck.size(), revokedDevices: revoked.size },
    clockBehindMs: Number.isFinite(behindMs) ? behindMs : null,
    keyEpochs: keys.map(({ epoch }) => epoch),
  });
  server.get('/v1/status', async () => status());

  const readRevoked = async (): Promise<void> => {
    revoked = await options.revoked();
    // Who is restored may say another site: whoever is revoked meanwhile is not remembered with the old one.
    for (const deviceId of revoked.keys()) reportCheck.forgetSite(deviceId);
  };

  const stopping = new AbortController();
  const { signal } = stopping;
  const { promise: firstClock, resolve: clockTried } = Promise.withResolvers<void>();
  const clock = every(options.clockMs, signal, () => tellTime().finally(clockTried), {
    failed: (error) => log('error', { error }, 'the clock stopped: no tick closes until Kafka is back'),
    worked: () => log('info', {}, 'the clock goes on'),
  });
  // Until Kafka has said what time it is nothing is acknowledged; without it nothing would be anyway.
  await firstClock;
  const url = await server.listen({ host: '127.0.0.1', port: options.port });
  // Each by itself: a database that is away keeps nobody from a new key.
  const refreshMs = options.refreshMs ?? 1_000;
  const refreshing = [
    every(refreshMs, signal, readKeys, {
      failed: (error) => log('warn', { error }, 'keys stay as they were read last'),
      worked: () => log('info', {}, 'keys are read again'),
    }),
    every(refreshMs, signal, readRevoked, {
      failed: (error) => log('warn', { error }, 'revoked devices stay as they were read last'),
      worked: () => log('info', {}, 'revoked devices are read again'),
    }),
  ];
  return {
    url,
    status,
    stop: async () => {
      stopping.abort();
      await Promise.all([server.close(), clock, ...refreshing]);
    },
  };
};

const gunzipped = promisify(gunzip);

/** Names of content codings have no case, and x-gzip is gzip (RFC 9110, 8.4.1). null: one that is not taken. */
const codingOf = (encoding = 'identity'): 'identity' | 'gzip' | null => {
  const name = encoding.toLowerCase();
  if (name === 'gzip' || name === 'x-gzip') return 'gzip';
  return name === 'identity' ? name : null;
};

/** As much of a packed body as a body may have; a packed one that unpacks to more is refused as one that is too large. */
const unpack = async (body: Buffer, encoding: string | undefined, limit: number): Promise<Buffer> => {
  const coding = codingOf(encoding);
  if (coding === 'identity') return body;
  if (coding === null) throw withStatus(new Error(`content-encoding is ${encoding}, expected gzip or none`), 415);
  try {
    return await gunzipped(body, { maxOutputLength: limit });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw withStatus(error, code === 'ERR_BUFFER_TOO_LARGE' ? 413 : 400);
  }
};

const withStatus = (error: unknown, statusCode: number): Error => Object.assign(error as Error, { statusCode });

/** Nothing is wrong with the report: it counts when what is missing here is there. */
const comeAgain = (reason: string): Checked => ({ kind: 'limited', retryAfterMs: retryAfterSeconds * 1_000, reason });

const grantedMs = (granted: Granted, checked: Checked): number =>
  (checked.kind === 'fresh' || checked.kind === 'duplicate') && checked.report.body.kind === 'poll'
    ? granted(checked.report, checked.report.body)
    : 0;

/** What is not granted is not offered: the log must not count the device as one that might have the content. */
const withdraw = (granted: Granted, checked: Checked): Checked => {
  if (checked.kind !== 'fresh' || checked.report.body.kind !== 'poll') return checked;
  if (checked.report.body.offer === null || grantedMs(granted, checked) > 0) return checked;
  return { ...checked, withdrawn: true, report: { ...checked.report, body: { ...checked.report.body, offer: null } } };
};

const problem = (status: number, title: string, code: string, detail: string) => ({
  type: 'about:blank',
  title,
  status,
  code,
  detail,
});

const unavailable = (reply: FastifyReply, title: string, code: string, detail: string): FastifyReply =>
  reply
    .code(503)
    .header('retry-after', retryAfterSeconds)
    .type('application/problem+json')
    .send(problem(503, title, code, detail));

/**
 * Does `work` at once and then again and again, whether or not it fails; says when that changes. Paced by monotonic time: an hour
 * that is set back is no hour without a clock record.
 */
const every = async (
  ms: number,
  signal: AbortSignal,
  work: () => Promise<void>,
  say: { readonly failed: (error: string) => void; readonly worked: () => void },
): Promise<void> => {
  let next = performance.now();
  let working = true;
  while (!signal.aborted) {
    const error = await work().then(
      () => null,
      (failure: Error) => failure,
    );
    if (working && error) say.failed(error.message);
    if (!working && !error) say.worked();
    working = error === null;
    next = Math.max(next + ms, performance.now());
    await sleep(Math.max(0, next - performance.now()), undefined, { signal }).catch(() => {});
  }
};
