/** Following a release until it ends: a view that redraws itself on a terminal, a line per change elsewhere. */
import { setTimeout as sleep } from 'node:timers/promises';
import { SigrelError } from '../../domain/errors.ts';
import { isTerminal, type ReleaseState } from '../../domain/release-state.ts';
import { duration } from '../../domain/timeline.ts';
import type { ReleaseAnswer } from '../../services/api/contract.ts';
import { type Api, ApiError } from './context.ts';
import { cut, wrap, write } from './output.ts';
import { type Live, liveOf, renderRelease, statusLine } from './view.ts';

const lookEveryMs = 300;

/** Shows a state with what is known beside it. */
export type Show = (state: ReleaseState, live: Live) => void;

export type Watched = {
  /** The last one seen. */
  readonly state: ReleaseState | null;
  /** False when the time was over first. */
  readonly ended: boolean;
  /** When the state was seen (ms), and whether nobody has answered since. */
  readonly seenAt: number;
  readonly lost: boolean;
};

/**
 * `show` gets each state that differs from the one before, `say` what else there is to tell. A release that was just started
 * may not be projected yet: it is waited for. So are services that do not answer: the release goes on without us.
 */
export const watchRelease = async (
  api: Api,
  releaseId: string,
  options: {
    readonly timeoutMs: number;
    readonly justStarted: boolean;
    readonly show: Show;
    readonly say?: (words: string) => void;
  },
): Promise<Watched> => {
  const { timeoutMs, justStarted, show, say = () => {} } = options;
  const deadline = Date.now() + timeoutMs;
  let state: ReleaseState | null = null;
  let lastTick = -1;
  let seenAt = Date.now();
  let lost = false;
  const look = async (): Promise<ReleaseAnswer | null> => {
    try {
      const found = await api.get<ReleaseAnswer>(`/releases/${encodeURIComponent(releaseId)}`);
      if (lost) say('the services answer again');
      lost = false;
      seenAt = Date.now();
      return found;
    } catch (error) {
      if (error instanceof ApiError && error.code === 'SRP_MISSING_RELEASE' && justStarted) return null;
      const known = state !== null || justStarted;
      if (!known || !(error instanceof SigrelError) || !error.code.startsWith('SRP_DEP_')) throw error;
      if (!lost) say(`${error.message}. Release ${releaseId} goes on meanwhile, and is looked for again`);
      lost = true;
      return null;
    }
  };
  for (;;) {
    const found = await look();
    if (found && (found.release.seq !== state?.seq || (found.judge?.lastTick ?? -1) !== lastTick)) {
      show(found.release, liveOf(found));
    }
    lastTick = found?.judge?.lastTick ?? lastTick;
    state = found?.release ?? state;
    const ended = state !== null && isTerminal(state);
    if (ended || Date.now() >= deadline) return { state, ended, seenAt, lost };
    await sleep(Math.min(lookEveryMs, Math.max(1, deadline - Date.now())));
  }
};

/** Draws over what it drew before on a terminal; elsewhere one line per change. `indent` goes before each line. */
export const createLiveView = (
  stream: NodeJS.WriteStream,
  indent = '',
): { readonly show: Show; readonly say: (words: string) => void } => {
  let drawn = 0;
  let last = '';
  let shownMs = 0;
  return {
    show: (state, live) => {
      if (stream.isTTY) {
        const text = renderRelease(state, live)
          .split('\n')
          // A line that the terminal breaks would be two lines to draw over.
          .map((line) => cut(`${indent}${line}`, stream.columns || 100))
          .slice(0, Math.max(5, stream.rows - 2));
        write(stream, `${drawn > 0 ? `\x1b[${drawn}A\x1b[0J` : ''}${text.join('\n')}\n`);
        drawn = text.length;
        return;
      }
      const line = statusLine(state, live.judge);
      if (line === last) return;
      last = line;
      // The end has the workflow's time, which is a little before what was shown last.
      shownMs = Math.max(shownMs, (state.end ? Date.parse(state.end.at) : live.now) - Date.parse(state.startedAt));
      const since = duration(shownMs).padStart(8);
      const below = wrap(line, `${indent}${' '.repeat(since.length + 2)}`).trimStart();
      write(stream, `${indent}${since}  ${below}\n`);
    },
    say: (words) => {
      write(stream, `${wrap(words, indent)}\n`);
      // What was said stays: the next view goes below it.
      drawn = 0;
    },
  };
};
