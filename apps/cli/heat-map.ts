/** The matrix as one HTML file without any outside part: rules down, cells across, red where something is wrong. */
import type { RuleRow, RuleVerdict } from '../../domain/matrix/rule-matrix.ts';
import type { CellResult, RuleId } from '../../domain/release.ts';
import { firstFault, plural } from '../../domain/timeline.ts';

const escapeHtml = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');

const letters: Readonly<Record<RuleVerdict, string>> = {
  ok: '',
  'not-loaded': 'not loaded',
  'refused-along': 'refused along',
  'no-alert': 'no alert',
  'extra-alert': 'extra alert',
  unknown: 'no result',
};

/** `label`: what a rule is called, by signature id. */
export const renderHeatMap = (matrix: {
  readonly title: string;
  readonly results: readonly CellResult[];
  readonly rows: readonly RuleRow[];
  readonly label: (ruleId: RuleId) => string;
}): string => {
  const { title, results, rows, label } = matrix;
  const head = results.map(({ cellId, verdict }) => {
    const [engine = '', mode = ''] = cellId.split('/');
    return `<th class="${verdict}" scope="col">${escapeHtml(engine.replace(/-[0-9a-f]{8}$/, ''))}<br>${escapeHtml(mode)}<br>${verdict}</th>`;
  });
  const cell = (row: RuleRow, cellId: string): string => {
    const { verdict, words } = row.cells[cellId] ?? { verdict: 'unknown' as const, words: '' };
    return `<td class="${verdict}" title="${escapeHtml(`${cellId}: ${words || verdict}`)}">${letters[verdict]}</td>`;
  };
  const loaded = results.map(
    ({ verdict, rulesLoaded, rulesExpected }) =>
      `<td class="${verdict}">${rulesLoaded ?? 'none'} of ${rulesExpected}</td>`,
  );
  const green = results.filter(({ verdict }) => verdict === 'pass').length;
  const all = green === results.length ? `${green === 1 ? 'the cell is' : `all ${green} cells are`} green` : '';
  const summary = all || `${green} of ${plural(results.length, 'cell')} green`;
  const body = rows.map(
    (row) =>
      `<tr><th scope="row">${row.ruleId} <span>${escapeHtml(label(row.ruleId))}</span></th>${results.map(({ cellId }) => cell(row, cellId)).join('')}</tr>`,
  );
  const faults = results
    .filter((result) => result.verdict !== 'pass')
    .map((result) => {
      const lines = result.gates
        .filter((gate) => gate.verdict !== 'pass')
        .flatMap((gate) => [
          `<li>${escapeHtml(`${gate.gate}: ${gate.observed}, needs ${gate.operator} ${gate.limit}`)}<ul>${gate.details
            .map(
              ({ rule, vector, words }) => `<li>${escapeHtml([rule, vector, words].filter(Boolean).join(': '))}</li>`,
            )
            .join('')}</ul></li>`,
        ]);
      return `<h2>${escapeHtml(result.cellId)}</h2><p>${escapeHtml(firstFault(result))}</p><ul>${lines.join('')}</ul>`;
    });
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>${escapeHtml(title)}</title>
<style>
body{font:14px/1.4 system-ui,sans-serif;margin:2rem;color:#1a1a1a;background:#fff}
table{border-collapse:collapse}th,td{border:1px solid #ddd;padding:.2rem .5rem;text-align:left;font-weight:normal}
thead th{position:sticky;top:0;background:#f4f4f4;font-weight:600}tbody th span{color:#666}td{text-align:center;min-width:6rem}
.ok{background:#dff3e1}.pass{background:#c6ebca}.refused-along{background:#fbe3e0}.not-loaded,.fail{background:#f6b8b2}.no-alert{background:#f9d5a7}
.extra-alert{background:#f3e2a0}.unknown,.error,.void{background:#d9d9d9}
</style></head><body>
<h1>${escapeHtml(title)}</h1>
<p>${summary}${rows.length === 0 ? '; nothing is said of any single rule' : ''}</p>
<table><thead><tr><th scope="col">rule</th>${head.join('')}</tr></thead><tbody>
<tr><th scope="row">rules loaded</th>${loaded.join('')}</tr>
${body.join('\n')}
</tbody></table>
${faults.join('\n')}
</body></html>
`;
};
