/**
 * Silence trials (halt-judge, 2.8): opened by a heartbeat or by the server's knowledge of an offer, due at a fixed time
 * later, counted when they fall due, heard or not. All trials of one kind last equally long, so that one list of what
 * opened, in order of time, serves both kinds and the question who can still be reached: each has its own place in it.
 */
import { bytesOf, type Columns, readColumns } from './columns.ts';

/** What an opening opens (bits). None: a heartbeat of a device that has no trial; it still tells until when it is reachable. */
export const opens = {
  treated: 1,
  first: 2,
  later: 4,
  /** Counted when due. Without: only watched for the device counts; its device is out of the metric's risk set (2.3). */
  firstJudged: 8,
  laterJudged: 16,
} as const;

export type Opening = {
  /** Row of the device. */
  readonly device: number;
  readonly openedAt: number;
  /** The device's number of reports when it was opened: one more, and the device was heard since. */
  readonly beat: number;
  readonly bits: number;
};

type Chunk = {
  readonly device: Uint32Array;
  readonly openedAt: Float64Array;
  readonly beat: Uint32Array;
  readonly bits: Uint8Array;
};

export type Reader = 'first' | 'later' | 'reach';

/** Openings are numbered from 0 on; `start` is the number of the first one of the first chunk. */
export type Openings = {
  chunks: Chunk[];
  start: number;
  end: number;
  /** Number of the next opening to read. */
  readonly next: Record<Reader, number>;
};

const chunkRows = 4_096;

const newChunk = (rows = chunkRows): Chunk => ({
  device: new Uint32Array(rows),
  openedAt: new Float64Array(rows),
  beat: new Uint32Array(rows),
  bits: new Uint8Array(rows),
});

export const noOpenings = (): Openings => ({ chunks: [], start: 0, end: 0, next: { first: 0, later: 0, reach: 0 } });

/** In order of `openedAt`. */
export const addOpening = (openings: Openings, opening: Opening): void => {
  const row = (openings.end - openings.start) % chunkRows;
  if (row === 0) {
    forgetRead(openings);
    openings.chunks.push(newChunk());
  }
  openings.end += 1;
  const chunk = openings.chunks.at(-1);
  if (chunk === undefined) return;
  chunk.device[row] = opening.device;
  chunk.openedAt[row] = opening.openedAt;
  chunk.beat[row] = opening.beat;
  chunk.bits[row] = opening.bits;
};

/** Takes the next opening for this reader that was opened at or before `until`; undefined when there is none. */
export const takeOpened = (openings: Openings, reader: Reader, until: number): Opening | undefined => {
  const number = openings.next[reader];
  if (number === openings.end) return undefined;
  const chunk = openings.chunks[Math.floor((number - openings.start) / chunkRows)];
  const row = (number - openings.start) % chunkRows;
  const openedAt = chunk?.openedAt[row] ?? 0;
  if (chunk === undefined || openedAt > until) return undefined;
  openings.next[reader] = number + 1;
  return { device: chunk.device[row] ?? 0, openedAt, beat: chunk.beat[row] ?? 0, bits: chunk.bits[row] ?? 0 };
};

/** The same openings, of devices whose rows are others now. */
export const moveOpenings = ({ chunks }: Openings, movedTo: (device: number) => number): void => {
  for (const { device } of chunks) {
    device.forEach((before, row) => {
      device[row] = movedTo(before);
    });
  }
};

const firstUnread = ({ next }: Openings): number => Math.min(next.first, next.later, next.reach);

const forgetRead = (openings: Openings): void => {
  const unread = firstUnread(openings);
  while (openings.chunks.length > 0 && openings.start + chunkRows <= unread) {
    openings.chunks.shift();
    openings.start += chunkRows;
  }
};

/** Without what every reader has read; chunks are written whole. */
export type OpeningsSnapshot = Omit<Openings, 'chunks'> & { readonly chunks: number };

export const openingsSnapshot = (openings: Openings): OpeningsSnapshot => {
  forgetRead(openings);
  return { ...openings, chunks: openings.chunks.length };
};

export const openingsBytes = ({ chunks }: Openings): readonly Uint8Array[] => chunks.flatMap(bytesOf);

export const readOpenings = (
  snapshot: OpeningsSnapshot,
  bytes: Uint8Array,
  at: number,
): { readonly openings: Openings; readonly end: number } => {
  let end = at;
  const like: Chunk & Columns = newChunk(0);
  const chunks = Array.from({ length: snapshot.chunks }, () => {
    const read = readColumns(like, bytes, end, chunkRows);
    end = read.end;
    return read.table;
  });
  return { openings: { ...snapshot, chunks }, end };
};
