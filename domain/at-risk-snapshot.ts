/**
 * The state of a partition as bytes, and again the state. Nearly all of it is copied column by column: writing stops the
 * event loop for milliseconds. Layout: length of the head (32 bits), head (JSON, what is no column), columns.
 */
import {
  emptyState,
  is,
  kindRowsOf,
  noDevices,
  noMembers,
  type OpenRelease,
  type PartitionState,
} from './at-risk-state.ts';
import { bytesOf, readColumns, trimmed, withRoom } from './columns.ts';
import { type OpeningsSnapshot, openingsBytes, openingsSnapshot, readOpenings } from './trials.ts';

const version = 5;

type ReleaseHead = Omit<OpenRelease, 'segmentOfKind' | 'members' | 'changed' | 'openings' | 'unitsDue'> & {
  readonly unitsDue: readonly number[];
  readonly openings: OpeningsSnapshot;
};
type Head = Pick<
  PartitionState,
  'partition' | 'partitions' | 'now' | 'unheardMs' | 'heardFrom' | 'nextOffset' | 'kinds' | 'ended'
> & {
  readonly version: number;
  readonly littleEndian: boolean;
  /** Device ids in the order of the rows. */
  readonly ids: readonly string[];
  readonly releases: readonly ReleaseHead[];
};

const littleEndian = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

export const toSnapshot = (state: PartitionState): Uint8Array => {
  const { devices, releases, described: _described, kindRows: _kindRows, ...rest } = state;
  const rows = devices.rows.size;
  const head: Head = {
    ...rest,
    ...{ version, littleEndian, ids: [...devices.rows.keys()] },
    releases: [...releases.values()].map(
      ({ segmentOfKind: _kinds, members: _members, changed: _changed, openings, unitsDue, ...release }) => ({
        ...release,
        openings: openingsSnapshot(openings),
        unitsDue: [...unitsDue],
      }),
    ),
  };
  const headBytes = new TextEncoder().encode(JSON.stringify(head));
  const headLength = new DataView(new ArrayBuffer(4));
  headLength.setUint32(0, headBytes.length);
  return joined([
    new Uint8Array(headLength.buffer),
    headBytes,
    ...bytesOf(trimmed(devices.table, rows)),
    ...[...releases.values()].flatMap(({ members, openings }) => [
      ...bytesOf(trimmed(withRoom(members, rows), rows)),
      ...openingsBytes(openings),
    ]),
  ]);
};

/** null when another version of the fold wrote it, or another kind of machine: the log is folded again. */
export const fromSnapshot = (bytes: Uint8Array): PartitionState | null => {
  const headLength = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
  const head: Head = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + headLength)));
  if (head.version !== version || head.littleEndian !== littleEndian) return null;
  const { ids, kinds } = head;
  const devices = readColumns(noDevices(), bytes, 4 + headLength, ids.length);
  const state: PartitionState = {
    ...emptyState(head.partition, head.partitions),
    ...{ now: head.now, unheardMs: head.unheardMs, heardFrom: head.heardFrom, nextOffset: head.nextOffset },
    ...{ ended: head.ended, kinds, kindRows: kindRowsOf(kinds) },
    devices: { rows: new Map(ids.map((id, row) => [id, row])), table: devices.table },
  };
  let at = devices.end;
  for (const release of head.releases) {
    const members = readColumns(noMembers(), bytes, at, ids.length);
    const read = readOpenings(release.openings, bytes, members.end);
    at = read.end;
    const changed: number[] = [];
    members.table.flags.forEach((flags, row) => {
      if (flags & is.changed) changed.push(row);
    });
    state.releases.set(release.releaseId, {
      ...release,
      ...{ segmentOfKind: [], members: members.table, changed, openings: read.openings },
      unitsDue: new Set(release.unitsDue),
    });
  }
  return state;
};

const joined = (parts: readonly Uint8Array[]): Uint8Array => {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
};
