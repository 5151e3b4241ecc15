import { stripVTControlCharacters as plain } from 'node:util';
import { describe, expect, test } from 'vitest';
import { bar, cut, table, visibleText, wrap } from '../../apps/cli/output.ts';

const red = (text: string): string => `\x1b[31m${text}\x1b[39m`;
const longest = (text: string): number => Math.max(...text.split('\n').map((line) => plain(line).length));
const columns = [{ name: '#', right: true }, { name: 'type' }, { name: 'details' }];

describe('table', () => {
  test('columns are as wide as their content, two blanks apart, numbers to the right', () => {
    const text = table(columns, [
      ['1', 'BuildStarted', 'source'],
      ['12', 'Halt', ''],
    ]);
    expect(plain(text).split('\n')).toEqual([' #  type          details', ' 1  BuildStarted  source', '12  Halt']);
  });

  test('without rows there is the head alone', () => {
    expect(plain(table(columns, []))).toBe('#  type  details');
  });

  test('long details go on below their column, and every line fits', () => {
    const details = Array.from({ length: 60 }, (_, i) => `word${i}`).join(' ');
    for (const width of [100, 60]) {
      const lines = table(columns, [['1', 'BuildStarted', details]], width)
        .split('\n')
        .slice(1);
      expect(longest(lines.join('\n'))).toBeLessThanOrEqual(width);
      expect(lines.length).toBeGreaterThan(3);
      for (const line of lines.slice(1)) expect(line).toMatch(/^ {17}word\d/);
      expect(lines.join(' ').split(/\s+/).slice(2).join(' ')).toBe(details);
    }
  });

  test('a detail without blanks fits too: nothing of it is lost', () => {
    const hash = 'f'.repeat(300);
    const text = table(columns, [['1', 'x', hash]]);
    expect(longest(text)).toBe(100);
    expect(text.replaceAll(/[^f]/g, '')).toBe(hash);
  });

  test('a line break in a cell does not break its row', () => {
    const text = table(columns, [['1', 'a\nb', 'c\r\nd']]);
    expect(plain(text).split('\n').slice(1)).toEqual(['1  a b   c d']);
  });

  test('colours take no room', () => {
    const rows = (paint: (text: string) => string) => [
      ['1', paint('halted'), paint('it blocks')],
      ['12', paint('ok'), paint('x')],
    ];
    const painted = table(columns, rows(red));
    expect(painted).toContain(red('halted'));
    expect(plain(painted)).toBe(
      plain(
        table(
          columns,
          rows((text) => text),
        ),
      ),
    );
    expect(longest(table(columns, [['1', 'x', red('word '.repeat(60))]]))).toBeLessThanOrEqual(100);
  });
});

describe('wrap', () => {
  test('words go to lines of at most the width, each after the indent', () => {
    expect(wrap('one two three four', '  ', 10)).toBe('  one two\n  three\n  four');
    expect(wrap('one', '  ', 10)).toBe('  one');
    expect(wrap('a line\nand  another', '')).toBe('a line and another');
  });

  test('a line may be exactly as wide', () => {
    expect(wrap('12345 789 x', '', 9)).toBe('12345 789\nx');
  });

  test('a word that is longer than a line is broken, with its colours whole', () => {
    expect(wrap('ab 1234567890123', '  ', 8)).toBe('  ab\n  123456\n  789012\n  3');
    const text = wrap(red('1234567890'), '', 4);
    expect(plain(text)).toBe('1234\n5678\n90');
    expect(text.replaceAll('\n', '')).toBe(red('1234567890'));
  });

  test('a command in quotes stays on one line, where it fits on one', () => {
    const words = 'the family is frozen: "sigrel thaw ips", or "./sigrel up --detach"';
    expect(wrap(words, '', 30)).toBe('the family is frozen:\n"sigrel thaw ips", or\n"./sigrel up --detach"');
    expect(wrap(words, '  ', 18)).toBe(
      '  the family is\n  frozen: "sigrel\n  thaw ips", or\n  "./sigrel up\n  --detach"',
    );
    expect(wrap('what is "so called" breaks', '', 12)).toBe('what is "so\ncalled"\nbreaks');
    expect(wrap(`type ${red('"sigrel thaw ips"')}`, '', 20)).toBe(`type\n${red('"sigrel thaw ips"')}`);
  });

  test('a name of parts is broken behind a slash, where there is one on the line', () => {
    const cell = 'silence-first/suricata-7.0.10-945d45ee/fail-open';
    expect(wrap(cell, '', 30)).toBe('silence-first/\nsuricata-7.0.10-945d45ee/\nfail-open');
    expect(wrap(cell, '', 40)).toBe('silence-first/suricata-7.0.10-945d45ee/\nfail-open');
    expect(wrap(red(cell), '', 40)).toBe(red('silence-first/suricata-7.0.10-945d45ee/\nfail-open'));
    expect(wrap('a/b', '', 1)).toBe('a\n/\nb');
  });
});

describe('cut', () => {
  test('what fits stays as it is', () => {
    expect(cut('12345', 5)).toBe('12345');
    expect(cut(red('12345'), 5)).toBe(red('12345'));
  });

  test('what does not fit ends with a sign, and its colours end there', () => {
    expect(cut('123456', 5)).toBe('1234…');
    const text = cut(`a${red('23456')}`, 5);
    expect(plain(text)).toBe('a234…');
    expect(text.endsWith('\x1b[0m')).toBe(true);
  });
});

describe('bar', () => {
  test.each([
    [0, '░░░░░░░░░░'],
    [0.5, '█████░░░░░'],
    [1, '██████████'],
    [7, '██████████'],
    [-1, '░░░░░░░░░░'],
  ])('%d', (share, drawn) => expect(bar(share, 10)).toBe(drawn));

  test('is twenty wide', () => expect(bar(0.3)).toHaveLength(20));
});

test('text of strangers cannot steer the terminal', () => {
  expect(visibleText('a\u001b[2J\u009b31m\r\n\tü')).toBe('a\\u001b[2J\\u009b31m\\u000d\\u000a\\u0009ü');
});
