/**
 * How reports get to the gateway: in order, again for as long as it asks for that, and never given up without saying so.
 * A report that is sent twice counts once, so that whatever was not answered is sent again.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type ReportResult, type ReportsAnswer, reportsPerRequest } from '../../domain/telemetry.ts';
import type { SignedReport } from './cycle.ts';

/** When the gateway does not say when. */
const retryMs = 1_000;
const answerWithinMs = 10_000;
const reasonLimit = 400;

/**
 * One result per report, in the same places; null: not taken until `giveUpAt` (ms), to be said again later. What is limited, or
 * refused for now (429, 503), is sent again when the gateway said, and a little later than that: a fleet that was turned away
 * together must not come back together. A request that is too large, or that cannot be read (413, 400), would be so for ever: its
 * halves go by themselves, down to the report that it is because of, which is rejected in the gateway's words.
 */
export const sendReports = async (
  gatewayUrl: string,
  reports: readonly SignedReport[],
  giveUpAt: number,
  signal: AbortSignal,
): Promise<readonly (ReportResult | null)[]> => {
  const results: (ReportResult | null)[] = reports.map(() => null);
  const notTaken = (): readonly number[] => results.flatMap((result, index) => (result === null ? [index] : []));
  /** Returns how long to wait before what is left is sent again; 0: all of these have a result. */
  const send = async (indexes: readonly number[]): Promise<number> => {
    const answer = await post(
      gatewayUrl,
      indexes.flatMap((index) => reports[index] ?? []),
      signal,
    );
    if ('retryAfterMs' in answer) return answer.retryAfterMs;
    if ('refused' in answer) {
      const [only] = indexes;
      if (indexes.length > 1) {
        const half = Math.ceil(indexes.length / 2);
        return (await send(indexes.slice(0, half))) || send(indexes.slice(half));
      }
      if (only !== undefined) results[only] = { status: 'rejected', reason: answer.refused };
      return 0;
    }
    let waitMs = 0;
    answer.results.forEach((result, place) => {
      const index = indexes[place];
      if (result.status === 'limited') waitMs = Math.max(waitMs, result.retryAfterMs ?? retryMs);
      else if (index !== undefined) results[index] = result;
    });
    return waitMs;
  };
  for (;;) {
    const open = notTaken();
    let waitMs = 0;
    for (let at = 0; at < open.length && waitMs === 0; at += reportsPerRequest) {
      waitMs = await send(open.slice(at, at + reportsPerRequest));
    }
    if (notTaken().length === 0) return results;
    const wait = (waitMs || retryMs) * (1 + Math.random() / 2);
    if (signal.aborted || Date.now() + wait >= giveUpAt) return results;
    await sleep(wait, undefined, { signal }).catch(() => {});
  }
};

const post = async (
  gatewayUrl: string,
  reports: readonly SignedReport[],
  signal: AbortSignal,
): Promise<ReportsAnswer | { readonly retryAfterMs: number } | { readonly refused: string }> => {
  try {
    const response = await fetch(`${gatewayUrl}/v1/reports`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ reports }),
      signal: AbortSignal.any([signal, AbortSignal.timeout(answerWithinMs)]),
    });
    if (response.ok) return (await response.json()) as ReportsAnswer;
    if (response.status === 400 || response.status === 413) {
      const said = (await response.text()).slice(0, reasonLimit);
      return { refused: `the gateway refused the request (${response.status}): ${said}` };
    }
    await response.body?.cancel();
    const seconds = Number(response.headers.get('retry-after') ?? Number.NaN);
    return { retryAfterMs: seconds > 0 ? seconds * 1_000 : retryMs };
  } catch {
    return { retryAfterMs: retryMs };
  }
};
