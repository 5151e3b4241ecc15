/** Programs and archives built by hand, as small as engines still read them; nothing in them can run. */
import { crc32 } from 'node:zlib';

/** One byte per character: `\xff` is the byte 255. */
export const bytes = (text: string): Uint8Array => Uint8Array.from(text, (character) => character.charCodeAt(0));

export const joined = (...parts: readonly (string | Uint8Array)[]): Uint8Array =>
  new Uint8Array(Buffer.concat(parts.map((part) => (typeof part === 'string' ? bytes(part) : part))));

/** UTF-16, little endian. */
export const wide = (text: string): Uint8Array => bytes([...text].map((character) => `${character}\0`).join(''));

export const xored = (text: string, key: number): Uint8Array => bytes(text).map((byte) => byte ^ key);

/** Filled with zeros behind `content`. */
export const padded = (size: number, content: string | Uint8Array): Uint8Array => {
  const made = new Uint8Array(size);
  made.set(joined(content));
  return made;
};

/** Little endian. */
export const number = (size: 2 | 4 | 8, value: number): Uint8Array => {
  const made = Buffer.alloc(size);
  made.writeUIntLE(value, 0, Math.min(size, 6));
  return new Uint8Array(made);
};
const u16 = (value: number): Uint8Array => number(2, value);
const u32 = (value: number): Uint8Array => number(4, value);
const u64 = (value: number): Uint8Array => number(8, value);

export type Section = { readonly name: string; readonly flags: number; readonly content: string | Uint8Array };

export const readable = 0x4000_0040;
export const executable = 0x6000_0020;

/** A Windows program for x64 with up to three sections, each a multiple of 512 bytes. */
export const windowsProgram = (...sections: readonly Section[]): Uint8Array => {
  const headers = 0x200;
  const contents = sections.map(({ content }) => {
    const raw = joined(content);
    return padded(Math.ceil(raw.length / 0x200) * 0x200, raw);
  });
  let at = headers;
  const table = sections.map(({ name, flags }, index) => {
    const size = contents[index]?.length ?? 0;
    const entry = [u32(size), u32(0x1000 * (index + 1)), u32(size), u32(at), new Uint8Array(12), u32(flags)];
    at += size;
    return joined(padded(8, name), ...entry);
  });
  const optional = joined(
    ...[u16(0x20b), bytes('\x0e\0'), u32(0x200), u32(0), u32(0), u32(0x1000), u32(0x1000)],
    ...[u64(0x140000000), u32(0x1000), u32(0x200), u16(6), u16(0), u16(0), u16(0), u16(6), u16(0), u32(0)],
    ...[u32(0x1000 * (sections.length + 1)), u32(headers), u32(0), u16(3), u16(0x8160)],
    ...[u64(0x100000), u64(0x1000), u64(0x100000), u64(0x1000), u32(0), u32(16), new Uint8Array(16 * 8)],
  );
  const coff = joined(u16(0x8664), u16(sections.length), u32(0), u32(0), u32(0), u16(optional.length), u16(0x22));
  const dos = joined(padded(0x3c, 'MZ'), u32(0x40));
  return joined(padded(headers, joined(dos, 'PE\0\0', coff, optional, ...table)), ...contents);
};

/** A Linux program for x64: one segment over the whole file with these flags (1 run, 2 write, 4 read), and its sections. */
export const linuxProgram = (segmentFlags: number, ...sections: readonly Omit<Section, 'flags'>[]): Uint8Array => {
  const contents = [...sections.map(({ content }) => joined(content))];
  const names = ['', ...sections.map(({ name }) => name), '.shstrtab'];
  contents.push(bytes(names.map((name) => `${name}\0`).join('')));
  const start = 64 + 56;
  const table = start + contents.reduce((sum, content) => sum + content.length, 0);
  const whole = table + 64 * names.length;
  let [at, nameAt] = [start, 1];
  const entries = contents.map((content, index) => {
    const last = index === contents.length - 1;
    const place = [u64(0), u64(at), u64(content.length), u32(0), u32(0), u64(1), u64(0)];
    const entry = joined(u32(nameAt), u32(last ? 3 : 1), u64(last ? 0 : 2), ...place);
    at += content.length;
    nameAt += (names[index + 1]?.length ?? 0) + 1;
    return entry;
  });
  const header = joined(
    ...['\x7fELF\x02\x01\x01', new Uint8Array(9), u16(2), u16(62), u32(1), u64(0x400078), u64(64), u64(table)],
    ...[u32(0), u16(64), u16(56), u16(1), u16(64), u16(names.length), u16(names.length - 1)],
  );
  const segment = joined(
    ...[u32(1), u32(segmentFlags), u64(0), u64(0x400000), u64(0x400000), u64(whole), u64(whole), u64(0x1000)],
  );
  return joined(header, segment, ...contents, new Uint8Array(64), ...entries);
};

/** A zip archive of stored (not compressed) files. */
export const zipArchive = (files: Readonly<Record<string, string | Uint8Array>>): Uint8Array => {
  const locals: Uint8Array[] = [];
  const central: Uint8Array[] = [];
  let at = 0;
  for (const [name, given] of Object.entries(files)) {
    const content = joined(given);
    const shared = [
      ...[u16(20), u16(0), u16(0), u32(0x5c21_0000), u32(crc32(content)), u32(content.length), u32(content.length)],
      ...[u16(name.length), u16(0)],
    ];
    const local = joined('PK\x03\x04', ...shared, name, content);
    central.push(joined('PK\x01\x02', u16(20), ...shared, u16(0), u16(0), u16(0), u32(0), u32(at), name));
    locals.push(local);
    at += local.length;
  }
  const directory = joined(...central);
  const count = u16(central.length);
  const end = joined('PK\x05\x06', u16(0), u16(0), count, count, u32(directory.length), u32(at), u16(0));
  return joined(...locals, directory, end);
};
