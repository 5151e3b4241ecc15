/** Both keys of the judge over time, on a logarithmic scale: for a terminal, and as one SVG file without any outside part. */
import type { Explanation } from '../../domain/judge/explain.ts';

export type Plot = Pick<Explanation, 'ticks' | 'thresholds' | 'hold' | 'halt'> & {
  readonly title: string;
  readonly stages: readonly string[];
};

/** Powers of ten from what is lowest of interest to above the highest value; what is beyond lies on the edge. */
const scaleOf = ({ ticks, thresholds }: Plot) => {
  const highest = ticks.reduce((most, { A, B }) => Math.max(most, A, B), Math.max(thresholds.A, thresholds.B));
  const high = Math.ceil(Math.log10(Math.min(highest, 1e6)) + 0.01);
  return { low: -2, high, top: `${highest > 10 ** high ? '>' : ''}1e${high}` };
};
const heightOf = (value: number, { low, high }: { readonly low: number; readonly high: number }): number =>
  (Math.min(high, Math.max(low, Math.log10(Math.max(value, 1e-300)))) - low) / (high - low);

/** Fits `width` columns; several ticks in one column show their largest values. */
export const plotLines = (plot: Plot, width = 100, rows = 14): readonly string[] => {
  const { ticks, thresholds } = plot;
  const scale = scaleOf(plot);
  const margin = 9;
  const columns = Math.max(1, Math.min(width - margin, ticks.length));
  const inColumn = (column: number) =>
    ticks.slice(Math.floor((column * ticks.length) / columns), Math.floor(((column + 1) * ticks.length) / columns));
  const rowOf = (value: number): number => Math.round((1 - heightOf(value, scale)) * (rows - 1));
  const grid = Array.from({ length: rows }, () => Array.from({ length: columns }, () => ' '));
  for (const limit of [thresholds.A, thresholds.B]) grid[rowOf(limit)]?.fill('┄');
  let stage = ticks[0]?.stage ?? 0;
  for (let column = 0; column < columns; column += 1) {
    const here = inColumn(column);
    const last = here.at(-1)?.stage ?? stage;
    if (last !== stage) for (const row of grid) if (row[column] === ' ') row[column] = '┊';
    stage = last;
    const place = (value: number, mark: string) => {
      const row = grid[rowOf(value)];
      if (row) row[column] = row[column] === 'A' && mark === 'B' ? '*' : mark;
    };
    place(Math.max(...here.map(({ A }) => A)), 'A');
    place(Math.max(...here.map(({ B }) => B)), 'B');
  }
  const labels = new Map([
    [rowOf(10 ** scale.high), scale.top],
    [rowOf(10 ** scale.low), `1e${scale.low}`],
    [rowOf(1), '1'],
    [rowOf(thresholds.B), String(thresholds.B)],
    [rowOf(thresholds.A), String(thresholds.A)],
  ]);
  const lines = grid.map((row, n) => `${(labels.get(n) ?? '').padStart(margin - 2)} ${row.join('')}`.trimEnd());
  const marks = Array.from({ length: columns }, () => ' ');
  const columnOf = (tick: number) => Math.min(columns - 1, Math.floor((tick * columns) / Math.max(1, ticks.length)));
  if (plot.hold) marks[columnOf(plot.hold.tick)] = 'h';
  if (plot.halt) marks[columnOf(plot.halt.tick)] = 'H';
  const decided = marks.join('').trimEnd();
  return [...lines, ...(decided === '' ? [] : [`${' '.repeat(margin - 1)}${decided}`])];
};

const escapeXml = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');

const size = { width: 960, height: 440, left: 70, right: 20, top: 56, bottom: 64 };

export const plotSvg = (plot: Plot): string => {
  const { ticks, thresholds, stages, hold, halt } = plot;
  const scale = scaleOf(plot);
  const inner = { width: size.width - size.left - size.right, height: size.height - size.top - size.bottom };
  const last = Math.max(1, ticks.length - 1);
  const x = (index: number): string => (size.left + (index / last) * inner.width).toFixed(1);
  const y = (value: number): string => (size.top + (1 - heightOf(value, scale)) * inner.height).toFixed(1);
  const text = (at: string, height: number | string, words: string, more = '') =>
    `<text x="${at}" y="${height}" ${more}>${escapeXml(words)}</text>`;
  const across = (value: number, style: string) =>
    `<line x1="${size.left}" x2="${size.width - size.right}" y1="${y(value)}" y2="${y(value)}" ${style}/>`;
  const down = (index: number, style: string) =>
    `<line x1="${x(index)}" x2="${x(index)}" y1="${size.top}" y2="${size.height - size.bottom}" ${style}/>`;
  const powers = Array.from({ length: scale.high - scale.low + 1 }, (_, n) => scale.low + n);
  const curve = (key: 'A' | 'B', colour: string) =>
    `<polyline fill="none"${key === 'B' ? ' stroke-dasharray="8 4"' : ''} stroke="${colour}" stroke-width="2" points="${ticks.map((tick, n) => `${x(n)},${y(tick[key])}`).join(' ')}"/>`;
  const opened = ticks.flatMap(({ stage }, n) => (n === 0 || stage !== ticks[n - 1]?.stage ? [{ stage, n }] : []));
  // Both often come within a few ticks, at the end of the chart: a row for each, written towards its middle.
  const decision = (found: { readonly tick: number } | null, name: string, row: number, colour: string) => {
    const n = ticks.findIndex(({ tick }) => tick === found?.tick);
    if (n < 0) return '';
    const anchor = n > last / 2 ? 'end' : 'start';
    return `${down(n, `stroke="${colour}" stroke-width="2"`)}${text(x(n), size.top - row, `${name}, tick ${found?.tick}`, `text-anchor="${anchor}" fill="${colour}"`)}`;
  };
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${size.width} ${size.height}" font-family="system-ui,sans-serif" font-size="12">
<title>${escapeXml(plot.title)}</title>
<rect width="${size.width}" height="${size.height}" fill="#fff"/>
${text(String(size.left), 18, plot.title, 'font-size="14"')}
${powers.map((power) => `${across(10 ** power, 'stroke="#eee"')}${text(String(size.left - 8), y(10 ** power), power === scale.high ? scale.top : `1e${power}`, 'text-anchor="end" dominant-baseline="middle" fill="#666"')}`).join('\n')}
${opened.map(({ stage, n }, count) => `${down(n, 'stroke="#bbb" stroke-dasharray="2 3"')}${text(x(n), size.height - size.bottom + (count % 2 === 0 ? 16 : 30), stages[stage] ?? String(stage), 'fill="#666"')}`).join('\n')}
${across(thresholds.A, 'stroke="#b3261e" stroke-dasharray="6 4"')}
${across(thresholds.B, 'stroke="#1f5fbf" stroke-dasharray="6 4"')}
${curve('A', '#b3261e')}
${curve('B', '#1f5fbf')}
${hold?.tick === halt?.tick ? '' : decision(hold, 'HOLD', 20, '#b26a00')}
${decision(halt, hold?.tick === halt?.tick ? 'HOLD and HALT' : 'HALT', 6, '#b3261e')}
${text(String(size.left), size.height - 8, `key A (HALT from ${thresholds.A}, HOLD from ${thresholds.hold})`, 'fill="#b3261e"')}
${text(String(size.left + 300), size.height - 8, `key B (HALT from ${thresholds.B})`, 'fill="#1f5fbf"')}
${text(String(size.width - size.right), size.height - 8, `ticks 0 to ${ticks.at(-1)?.tick ?? 0}; stages below the axis`, 'text-anchor="end" fill="#666"')}
</svg>
`;
};
