/** What every engine run begins and ends with. */
import { mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { EngineInput, EngineRun } from '../../domain/ports.ts';
import type { Ended, Limits } from './isolated.ts';
import type { Pack } from './packs.ts';

export type RunOptions = { readonly limits: Limits; readonly signal?: AbortSignal };

/** Runs a pack's engine once over all inputs, in the isolation of `isolated.ts`. Rejects only when the caller aborts. */
export type Adapter = (
  pack: Pick<Pack, 'build' | 'dir'>,
  input: EngineInput,
  options: RunOptions,
) => Promise<EngineRun>;

type NoResult = Extract<EngineRun, { kind: 'no-result' }>;

/** In an empty folder that is gone afterwards: what an earlier run left would be counted again. */
export const inFolder = async <T>(work: (dir: string) => Promise<T>): Promise<T> => {
  // ClamAV tells files by their real paths.
  const dir = realpathSync(mkdtempSync(join(tmpdir(), 'sigrel-engine-')));
  try {
    return await work(dir);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
};

export const noResult = (reason: NoResult['reason'], words: string, wallMs: number, said = ''): NoResult => {
  const last = said.trim().split('\n').slice(-3).join(' | ').slice(0, 500);
  return { kind: 'no-result', reason, words: last === '' ? words : `${words}; it said: ${last}`, wallMs };
};

/** Why a run that did not end by itself has no result; null: it did. */
export const endedBadly = (ended: Ended, wallMs: number): NoResult | null => {
  const of = (reason: NoResult['reason'], words: string) => noResult(reason, words, wallMs, ended.output);
  if (ended.exceeded !== null) return of('signal', ended.exceeded);
  if (ended.timedOut) return of('timeout', `killed after ${wallMs} ms`);
  if (ended.signal === 'SIGXCPU') return of('timeout', `killed after all of its processor time, ${wallMs} ms`);
  if (ended.signal !== null) return of('signal', `ended by ${ended.signal} after ${wallMs} ms`);
  return null;
};

/** What an engine says when memory is short, outside of anything that it quotes; it says so about any rule. */
export const lacksMemory = (words: string): boolean =>
  /\b(?:enough|out of|insufficient|allocate) memory\b|alloc\(\)/i.test(words.replaceAll(/"[^"]*"/g, ''));
