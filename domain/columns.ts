/**
 * Tables with one typed array per column: a fleet of a million devices as objects takes five times the memory, and a
 * snapshot of it stops the event loop for a second.
 */
export type Column = Float64Array | Uint32Array | Int32Array | Uint16Array | Uint8Array;
export type Columns = Readonly<Record<string, Column>>;

/** The same rows with room for at least `rows`, the new ones zero; the same table when there is room already. */
export const withRoom = <T extends Columns>(table: T, rows: number): T =>
  rows <= rowsOf(table) ? table : mapColumns(table, (column) => copyOf(column, Math.ceil(rows * 1.25) + 16));

/** The rows from 0 to `rows` without any room beyond them. */
export const trimmed = <T extends Columns>(table: T, rows: number): T =>
  mapColumns(table, (column) => column.subarray(0, rows));

/** The rows named by `rows`, in that order. */
export const pick = <T extends Columns>(table: T, rows: readonly number[]): T =>
  mapColumns(table, (column) => {
    const picked = emptyLike(column, rows.length);
    rows.forEach((row, index) => {
      picked[index] = column[row] ?? 0;
    });
    return picked;
  });

/** For writing: every column as its bytes, in the order in which the table names them. */
export const bytesOf = (table: Columns): readonly Uint8Array[] =>
  Object.values(table).map(({ buffer, byteOffset, byteLength }) => new Uint8Array(buffer, byteOffset, byteLength));

/** What `bytesOf` gave of `rows` rows, read from `bytes` at `at`; `like` names the columns. */
export const readColumns = <T extends Columns>(
  like: T,
  bytes: Uint8Array,
  at: number,
  rows: number,
): { readonly table: T; readonly end: number } => {
  let end = at;
  const table = mapColumns(like, (column) => {
    const read = emptyLike(column, rows);
    new Uint8Array(read.buffer).set(bytes.subarray(end, end + read.byteLength));
    end += read.byteLength;
    return read;
  });
  return { table, end };
};

const rowsOf = (table: Columns): number => Object.values(table)[0]?.length ?? 0;

const mapColumns = <T extends Columns>(table: T, change: (column: Column) => Column): T =>
  Object.fromEntries(Object.entries(table).map(([name, column]) => [name, change(column)])) as T;

const copyOf = (column: Column, rows: number): Column => {
  const copy = emptyLike(column, rows);
  copy.set(column);
  return copy;
};

const emptyLike = (column: Column, rows: number): Column => {
  if (column instanceof Float64Array) return new Float64Array(rows);
  if (column instanceof Uint32Array) return new Uint32Array(rows);
  if (column instanceof Int32Array) return new Int32Array(rows);
  if (column instanceof Uint16Array) return new Uint16Array(rows);
  return new Uint8Array(rows);
};
