import { expect, test } from 'vitest';
import { renderHeatMap } from '../../apps/cli/heat-map.ts';
import type { CellResult } from '../../domain/release.ts';

const cell = (engine: string, verdict: CellResult['verdict'], rulesLoaded: number | null): CellResult => ({
  ...{ cellId: `${engine}-00000000/ids`, verdict, rulesExpected: 31, rulesLoaded, wallMs: 1, gates: [] },
});
const render = (...results: readonly CellResult[]) =>
  renderHeatMap({ title: 'Matrix of r-1', results, rows: [], label: () => '' });

test('a matrix without a fault shows its cells, and says that they are green', () => {
  const page = render(cell('suricata-6.0.1', 'pass', 31), cell('suricata-8.0.7', 'pass', 31));
  expect(page).toContain('<p>all 2 cells are green; nothing is said of any single rule</p>');
  expect(page).toMatch(/<th class="pass" scope="col">suricata-6\.0\.1<br>ids<br>pass<\/th>/);
  expect(page).toContain(
    '<th scope="row">rules loaded</th><td class="pass">31 of 31</td><td class="pass">31 of 31</td>',
  );
  expect(render(cell('suricata-6.0.1', 'pass', 31))).toContain('<p>the cell is green');
});

test('red cells that name no rule are counted', () => {
  const page = render(cell('suricata-6.0.1', 'error', null), cell('suricata-8.0.7', 'pass', 31));
  expect(page).toContain('<p>1 of 2 cells green; nothing');
  expect(page).toContain('<td class="error">none of 31</td>');
});
