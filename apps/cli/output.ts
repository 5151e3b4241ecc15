/** How the command line talks: results to standard output, everything else to standard error; colours only on a terminal. */
import { styleText } from 'node:util';

type Style = Parameters<typeof styleText>[0];

// biome-ignore lint/suspicious/noControlCharactersInRegex: the escape sequences of colours
const colours = /\x1b\[[0-9;]*m/g;

/** `styleText` leaves colours out for NO_COLOR and for what is no terminal. */
const showsColours = (stream: NodeJS.WriteStream): boolean => styleText('red', 'x', { stream }) !== 'x';

/** With colours when one of the two streams shows them: `write` leaves them out on the other one. */
export const paint = (style: Style, text: string): string =>
  [process.stdout, process.stderr].some(showsColours) ? styleText(style, text, { validateStream: false }) : text;

/** Without colours where the stream is a file while the other one is a terminal. */
export const write = (stream: NodeJS.WriteStream, text: string): void => {
  stream.write(showsColours(stream) ? text : text.replaceAll(colours, ''));
};
export const out = (text: string): void => write(process.stdout, `${text}\n`);
export const note = (text: string): void => write(process.stderr, `${text}\n`);
/** Words as lines of at most 100 columns. */
export const outWords = (words: string): void => out(wrap(words, ''));
export const noteWords = (words: string): void => note(wrap(words, ''));
export const outJson = (value: unknown): void => out(JSON.stringify(value, null, 2));

/** Colours take no room: widths are those of what is seen. */
const visible = (text: string): number => text.replaceAll(colours, '').length;
/** At most `count` visible characters, with the colours among them. */
const characters = (count: number): string => `(?:(?:\\x1b\\[[0-9;]*m)*[^\\x1b]){1,${count}}(?:\\x1b\\[[0-9;]*m)*`;

/** The text up to `width`, with `…` where something was left out; colours end there. */
export const cut = (text: string, width: number): string => {
  if (visible(text) <= width) return text;
  const [kept] = text.match(new RegExp(characters(Math.max(1, width - 1)), 'u')) ?? [''];
  return `${kept}…${kept.includes('\x1b') ? '\x1b[0m' : ''}`;
};

const pad = (text: string, width: number, right: boolean): string => {
  const spaces = ' '.repeat(Math.max(0, width - visible(text)));
  return right ? spaces + text : text + spaces;
};

export type Column = { readonly name: string; readonly right?: boolean };

/** Columns as wide as their content, two blanks apart; words of the last one wrap below it, so that lines fit `width`. */
export const table = (columns: readonly Column[], rows: readonly (readonly string[])[], width = 100): string => {
  const widths = columns.map(({ name }, index) =>
    Math.max(visible(name), ...rows.map((row) => visible(row[index] ?? ''))),
  );
  const before = widths.slice(0, -1).reduce((sum, one) => sum + one + 2, 0);
  const room = Math.max(20, width - before);
  const place = (written: string, index: number): string => {
    const cell = written.replaceAll(/[\r\n]+/g, ' ');
    const last = index === columns.length - 1;
    const right = columns[index]?.right === true;
    if (!last || right) return pad(cell, widths[index] ?? 0, right);
    return visible(cell) <= room ? cell : wrap(cell, ' '.repeat(before), before + room).trimStart();
  };
  const line = (cells: readonly string[]): string => cells.map(place).join('  ').trimEnd();
  return [paint('dim', line(columns.map((column) => column.name))), ...rows.map(line)].join('\n');
};

/** Blanks are between words, and not within a command in quotes, which is there to be copied. */
const word = /\S*"(?:\.\/)?sigrel\s[^"]*"\S*|\S+/g;

/**
 * Words wrapped to lines of at most `width`, each after `indent`; a word that is longer than a line is broken, a command in
 * quotes at its blanks, names of cells and paths behind a slash.
 */
export const wrap = (text: string, indent: string, width = 100): string => {
  const room = Math.max(1, width - indent.length);
  const parts = room > 1 ? `${characters(room - 1)}/|` : '';
  const piece = new RegExp(`${characters(room)}$|${parts}${characters(room)}`, 'gu');
  const pieces = (word: string): readonly string[] => (visible(word) <= room ? [word] : (word.match(piece) ?? [word]));
  const words = (text.match(word) ?? []).flatMap((one) => {
    const flat = one.replaceAll(/\s+/g, ' ');
    return visible(flat) <= room ? [flat] : flat.split(' ');
  });
  const lines: string[] = [];
  let line = '';
  for (const one of words.flatMap(pieces)) {
    if (line !== '' && indent.length + visible(line) + 1 + visible(one) > width) {
      lines.push(line);
      line = one;
    } else line = line === '' ? one : `${line} ${one}`;
  }
  return [...lines, line].map((one) => indent + one).join('\n');
};

/** Text of strangers: what would steer the terminal is shown as its code. */
export const visibleText = (text: string): string =>
  text.replaceAll(/\p{Cc}/gu, (control) => `\\u${control.charCodeAt(0).toString(16).padStart(4, '0')}`);

/** Twenty characters that fill up. */
export const bar = (share: number, width = 20): string => {
  const full = Math.round(Math.min(1, Math.max(0, share)) * width);
  return '█'.repeat(full) + '░'.repeat(width - full);
};
