/** A cell from the outside: gathers what it is tested with and what its result depends on, then tests it or uses a known result. */
import type { Family } from '../content/family.ts';
import type { Rule } from '../content/rules.ts';
import type { CellStore, EngineFile, EngineRunner } from '../ports.ts';
import type { Cell, EngineBuild } from '../release.ts';
import { type KeptCell, keyOf, testOrReuse } from './reuse.ts';
import { type TestedCell, testCell } from './test-cell.ts';

/** What testing cells needs of the world; made by infra/engines/tools.ts. */
export type MatrixTools = {
  readonly engines: EngineRunner;
  readonly cells: CellStore<KeptCell>;
  /** Good files for engines that look at files; null: there is no pack of the engine. */
  readonly goodware: (engine: EngineBuild) => Promise<{
    readonly files: readonly EngineFile[];
    readonly digest: string;
  } | null>;
  readonly smoke: readonly EngineFile[];
  readonly digestOf: (value: unknown) => string;
  readonly testDigest: (family: Family) => string;
  readonly runnerDigest: () => Promise<string>;
  readonly now: () => number;
};

/** `rules`: the engine's artefact; `previous`: what the fleet runs on it now; `from`: the release that tests. */
export const runCell = async (
  tools: MatrixTools,
  content: {
    readonly family: Family;
    readonly cell: Cell;
    readonly rules: readonly Rule[];
    readonly previous: readonly Rule[] | null;
    readonly from: string;
  },
  signal: AbortSignal,
): Promise<TestedCell> => {
  const { family, cell, rules, previous, from } = content;
  const { language } = family;
  const corpus = language.looksAt === 'files' ? await tools.goodware(cell.engine) : null;
  const texts = (list: readonly Rule[]) => tools.digestOf(list.map(({ text }) => text));
  const identity = {
    artefact: texts(rules),
    previous: previous && texts(previous),
    tests: tools.testDigest(family),
    goodware: corpus?.digest ?? '',
    runner: await tools.runnerDigest(),
  };
  const key = keyOf(cell, identity, tools.digestOf);
  return testOrReuse(tools, key, cell, from, () =>
    testCell(
      tools,
      cell,
      {
        ...{ family, rules, previous },
        goodware: corpus?.files ?? [],
        smoke: language.looksAt === 'captures' ? tools.smoke : [],
      },
      signal,
    ),
  );
};
