/** A cell from the outside: gathers what it is tested with and what its result depends on, then tests it or uses a known result. */
import type { Family } from '../content/family.ts';
import type { Rule } from '../content/rules.ts';
import type { CellStore, EngineFile, EngineRunner } from '../ports.ts';
import { type Cell, type EngineBuild, engineId, type Requalified } from '../release.ts';
import { type KeptCell, keyOf, testOrReuse } from './reuse.ts';
import { type TestedCell, testCell } from './test-cell.ts';

/** What testing cells needs of the world; made by infra/engines/tools.ts. */
export type MatrixTools = {
  readonly engines: EngineRunner;
  readonly cells: CellStore<KeptCell>;
  /** Engines that passed their controls, by everything that this depends on. */
  readonly qualified: CellStore<Requalified & { readonly from: string }>;
  /** Good files for engines that look at files; null: there is no pack of the engine. */
  readonly goodware: (engine: EngineBuild) => Promise<{
    readonly files: readonly EngineFile[];
    readonly digest: string;
  } | null>;
  readonly smoke: readonly EngineFile[];
  readonly digestOf: (value: unknown) => string;
  readonly digestOfBytes: (bytes: Uint8Array) => string;
  readonly controlsDigest: (family: Family) => string;
  readonly testDigest: (family: Family) => string;
  readonly runnerDigest: () => Promise<string>;
  readonly now: () => number;
};

/** `rules`: the engine's artefact; `previous` and `shipped` as in CellContent; `from`: the release that tests. */
export const runCell = async (
  tools: MatrixTools,
  content: {
    readonly family: Family;
    readonly cell: Cell;
    readonly rules: readonly Rule[];
    readonly previous: readonly Rule[] | null;
    readonly shipped: readonly string[] | null;
    readonly from: string;
  },
  signal: AbortSignal,
): Promise<TestedCell & { readonly requalified: Requalified | null }> => {
  const { family, cell, rules, previous, shipped, from } = content;
  const { language } = family;
  const corpus = language.looksAt === 'files' ? await tools.goodware(cell.engine) : null;
  // Of the bytes that engines get: imports and kinds of databases are in no rule's own text.
  const artefact = (list: readonly Rule[]) => tools.digestOfBytes(language.artefact(list));
  const identity = {
    artefact: artefact(rules),
    previous: previous && artefact(previous),
    shipped: shipped && tools.digestOf([...new Set(shipped)].sort()),
    tests: tools.testDigest(family),
    goodware: corpus?.digest ?? '',
    runner: await tools.runnerDigest(),
  };
  const key = keyOf(cell, identity, tools.digestOf);
  const tested = await testOrReuse(tools, key, cell, from, () =>
    testCell(
      tools,
      cell,
      {
        ...{ family, rules, previous, shipped },
        goodware: corpus?.files ?? [],
        smoke: language.looksAt === 'captures' ? tools.smoke : [],
      },
      signal,
    ),
  );
  return { ...tested, requalified: await qualify(tools, content, tested, identity.runner) };
};

/**
 * The first controls that an engine passed with this runner; null when they are no news, or came out wrong. What this same
 * release found is still news: the attempt that found it may have died before anybody heard.
 */
const qualify = async (
  tools: MatrixTools,
  { family, cell: { engine }, from }: Parameters<typeof runCell>[1],
  { result }: TestedCell,
  runner: string,
): Promise<Requalified | null> => {
  const controls = result.gates.find(({ gate }) => gate === 'controls');
  if (controls?.verdict !== 'pass' || result.reused) return null;
  const { packageVersion, digest } = engine;
  const key = tools.digestOf({ packageVersion, digest, runner, controls: tools.controlsDigest(family) });
  const before = await tools.qualified.get(key);
  if (before !== null && before.from !== from) return null;
  const found = { engine: engineId(engine), packageVersion, digest, runner, controls: String(controls.observed) };
  await tools.qualified.put(key, { ...found, from });
  return found;
};
