/** Following a release until it ends: a view that redraws itself on a terminal, a line per change elsewhere. */
import { setTimeout as sleep } from 'node:timers/promises';
import { SigrelError } from '../../domain/errors.ts';
import { isTerminal, type ReleaseState } from '../../domain/release-state.ts';
import type { JudgeStatus } from '../../domain/stage-rule.ts';
import { duration } from '../../domain/timeline.ts';
import type { ReleaseAnswer } from '../../services/api/contract.ts';
import { type Api, ApiError } from './context.ts';
import { cut } from './output.ts';
import { renderRelease, statusLine } from './view.ts';

const lookEveryMs = 300;

/** Shows a state with what the judge has seen since. */
export type Show = (state: ReleaseState, judge: JudgeStatus | null) => void;

/**
 * The last state seen; `ended` is false when `timeoutMs` were over first. `show` gets each state that differs from the one
 * before. A release that was just started may not be projected yet: it is waited for.
 */
export const watchRelease = async (
  api: Api,
  releaseId: string,
  options: { readonly timeoutMs: number; readonly justStarted: boolean; readonly show: Show },
): Promise<{ readonly state: ReleaseState | null; readonly ended: boolean }> => {
  const deadline = Date.now() + options.timeoutMs;
  let state: ReleaseState | null = null;
  let lastTick = -1;
  for (;;) {
    const found = await api.get<ReleaseAnswer>(`/releases/${releaseId}`).catch((error: unknown) => {
      const missing = error instanceof ApiError && error.code === 'SRP_MISSING_RELEASE';
      if (missing && options.justStarted) return null;
      // The release goes on without us: what does not answer now is asked again, until the time is over.
      if (state !== null && error instanceof SigrelError && error.code.startsWith('SRP_DEP_')) return null;
      throw error;
    });
    if (found && (found.release.seq !== state?.seq || (found.judge?.lastTick ?? -1) !== lastTick)) {
      options.show(found.release, found.judge);
    }
    lastTick = found?.judge?.lastTick ?? lastTick;
    state = found?.release ?? state;
    if (state && isTerminal(state)) return { state, ended: true };
    if (Date.now() >= deadline) return { state, ended: false };
    await sleep(Math.min(lookEveryMs, Math.max(1, deadline - Date.now())));
  }
};

/** Draws over what it drew before on a terminal; elsewhere one line per change. `indent` goes before each line. */
export const createLiveView = (stream: NodeJS.WriteStream, indent = ''): Show => {
  let drawn = 0;
  let last = '';
  let shownMs = 0;
  return (state, judge) => {
    if (stream.isTTY) {
      const text = renderRelease(state, judge)
        .split('\n')
        // A line that the terminal breaks would be two lines to draw over.
        .map((line) => cut(`${indent}${line}`, stream.columns || 100))
        .slice(0, Math.max(5, stream.rows - 2));
      stream.write(`${drawn > 0 ? `\x1b[${drawn}A\x1b[0J` : ''}${text.join('\n')}\n`);
      drawn = text.length;
      return;
    }
    const line = statusLine(state, judge);
    if (line === last) return;
    last = line;
    // The end has the workflow's time, which is a little before what was shown last.
    shownMs = Math.max(shownMs, (state.end ? Date.parse(state.end.at) : Date.now()) - Date.parse(state.startedAt));
    const since = duration(shownMs);
    stream.write(`${indent}${since.padStart(8)}  ${line}\n`);
  };
};
