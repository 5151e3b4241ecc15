/** What the gateway refuses, kept for people as far as there is room; what is not kept is counted, and that is kept. */
import { fullBucket, type Rate, takeToken } from '../domain/rate.ts';
import type { Log } from '../infra/kafka/client.ts';
import type { GatewayLog, RefusedReport } from '../infra/kafka/telemetry-log.ts';

/** `dropped`: above the rate, or refused by the log too. */
export type DeadLetterCounts = { readonly kept: number; readonly dropped: number; readonly waiting: number };

export type DeadLetters = {
  /** Never fails and never waits: whether that works is no matter of the devices whose reports are genuine. */
  keep(refused: readonly { readonly reason: string; readonly received: unknown }[], now: number): void;
  counts(): DeadLetterCounts;
};

const receivedLimit = 4_096;

export const createDeadLetters = (telemetry: Pick<GatewayLog, 'refuse'>, rate: Rate, log: Log): DeadLetters => {
  const bucket = fullBucket(rate, Date.now());
  let kept = 0;
  let dropped = 0;
  let waiting = 0;
  /** Not kept and not yet said in the log. */
  let unsaid = 0;

  const drop = (letters: number): void => {
    dropped += letters;
    unsaid += letters;
  };

  const write = async (letters: readonly RefusedReport[]): Promise<void> => {
    const before = unsaid;
    unsaid = 0;
    const gap = before === 0 ? [] : [{ reason: `${before} more refused reports were not kept`, received: '' }];
    waiting += letters.length;
    try {
      await telemetry.refuse([...gap, ...letters]);
      kept += letters.length;
    } catch (error) {
      unsaid += before;
      drop(letters.length);
      log('warn', { refused: letters.length, error: String(error) }, 'refused reports were not kept');
    }
    waiting -= letters.length;
  };

  return {
    keep: (refused, now) => {
      const letters = refused
        .filter(() => takeToken(bucket, rate, now) === 0)
        .map(({ reason, received }) => ({ reason, received: excerpt(received) }));
      drop(refused.length - letters.length);
      if (letters.length === 0) return;
      log('info', { refused: refused.length, reason: letters[0]?.reason }, 'reports were refused');
      void write(letters);
    },
    counts: () => ({ kept, dropped, waiting }),
  };
};

/** What came, as text, up to its limit. */
const excerpt = (received: unknown): string => {
  try {
    return JSON.stringify(received).slice(0, receivedLimit);
  } catch {
    return '(nested too deep to be written)'; // JSON.parse takes any depth, JSON.stringify does not
  }
};
