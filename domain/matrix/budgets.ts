/**
 * Load time, scan time and peak memory of a release against the one before it, in the same cell and measured in the same run.
 * A busy machine is no slow rule: what is over is measured again, and of all runs the least time counts, since whatever
 * disturbs a run only adds to it. Of memory the most counts: it is looked at now and then, and what comes too late sees less.
 */
import type { Budgets } from '../content/family.ts';
import type { Rule } from '../content/rules.ts';
import type { EngineFile, EngineInput, EngineRun } from '../ports.ts';
import type { GateResult } from '../release.ts';
import { gate, worst } from './gates.ts';

/** Runs one engine over rules and inputs; null: there is no such engine. */
export type Run = (
  rules: readonly Rule[],
  inputs: EngineInput['inputs'],
  more?: Partial<EngineInput>,
) => Promise<EngineRun | null>;

/** Runs of one release: without inputs, and over all of them. */
export type Runs = { readonly loads: readonly EngineRun[]; readonly scans: readonly EngineRun[] };

type Measured = {
  readonly loadMs: number;
  readonly scanMs: number;
  readonly peakBytes: number | null;
  /** How far runs of the same are apart: what this machine adds by itself. */
  readonly noiseMs: number;
};

/** Below these a difference is noise, whatever the ratio: a doubling of a run of 0.2 s is seen where nothing else runs. */
const slack = { ms: 150, peakMb: 16 };
const measuredAgain = 3;

/** What could not be measured is not within its budget. */
export const judgeBudgets = async (
  run: Run,
  content: {
    readonly rules: readonly Rule[];
    readonly previous: readonly Rule[];
    readonly inputs: readonly EngineFile[];
    readonly budgets: Budgets;
  },
  first: { readonly now: Runs; readonly before: Runs },
): Promise<readonly GateResult[]> => {
  const { rules, previous, inputs, budgets } = content;
  const more = async (known: Runs, list: readonly Rule[]): Promise<Runs> => ({
    loads: [...known.loads, ...one(await run(list, []))],
    scans: [...known.scans, ...one(await run(list, inputs))],
  });
  let runs = first;
  let gates = grade(runs, budgets);
  for (let round = 0; round < measuredAgain && worst(gates) !== 'pass'; round += 1) {
    runs = { now: await more(runs.now, rules), before: await more(runs.before, previous) };
    gates = grade(runs, budgets);
  }
  const now = measure(runs.now);
  const before = measure(runs.before);
  return now && before ? [...gates, await judgeInputs(run, content, now, before)] : gates;
};

const unmeasured = 'the system did not tell how much memory the engine took';

const one = (run: EngineRun | null): readonly EngineRun[] => (run ? [run] : []);

const grade = (runs: { readonly now: Runs; readonly before: Runs }, budgets: Budgets): readonly GateResult[] => {
  const [now, before] = [measure(runs.now), measure(runs.before)];
  if (!now || !before) {
    const words = `${now ? 'the previous release' : 'the release'} gave no result that could be measured`;
    return [gate('budget-load', 'fail', 'none', '<=', 'a measurement', [{ words }])];
  }
  const spare = spareOf(now, before);
  const mib = 2 ** 20;
  const gradeMemory = (peak: number | null, base: number | null): GateResult => {
    if (peak !== null && base !== null)
      return compare('budget-memory', 'MB', peak / mib, base / mib, limitOf(base / mib, budgets.memory, slack.peakMb));
    // Of neither: a system that does not tell. Of one: something went wrong.
    const verdict = peak === base ? 'pass' : 'fail';
    return gate('budget-memory', verdict, 'not measured', '<=', 'a measurement', [{ words: unmeasured }]);
  };
  const compare = (name: string, unit: string, observed: number, base: number, limit: number) => {
    const words = `${Math.round(observed)} ${unit}, the previous release ${Math.round(base)} ${unit}`;
    const right = observed <= limit;
    return gate(name, right ? 'pass' : 'fail', Math.round(observed), '<=', limit, right ? [] : [{ words }]);
  };
  return [
    compare('budget-load', 'ms', now.loadMs, before.loadMs, limitOf(before.loadMs, budgets.load, spare)),
    compare('budget-scan', 'ms', now.scanMs, before.scanMs, limitOf(before.scanMs, budgets.scan, spare)),
    gradeMemory(now.peakBytes, before.peakBytes),
  ];
};

/** On a busy machine less is told apart: what runs of one and the same content differ by is no difference of contents. */
const spareOf = (now: Measured, before: Measured): number => Math.max(slack.ms, now.noiseMs, before.noiseMs);

const limitOf = (base: number, ratio: number, spare: number): number =>
  Math.round(Math.max(base * ratio, base + spare));

/**
 * No single input became slow: it would hide among many. Where inputs together take less than what one may take more, none of
 * them can be over: the rest is halved until that is so, or one is left.
 */
const judgeInputs = async (
  run: Run,
  content: Parameters<typeof judgeBudgets>[1],
  now: Measured,
  before: Measured,
): Promise<GateResult> => {
  const { rules, previous, inputs, budgets } = content;
  const scanned = async (list: readonly Rule[], part: readonly EngineFile[], loadMs: number): Promise<number> => {
    const found = await run(list, part);
    return found?.kind === 'completed' ? Math.max(0, found.wallMs - loadMs) : Number.POSITIVE_INFINITY;
  };
  const spare = spareOf(now, before);
  /** Without a result of the previous release nothing says that it was as slow. */
  const within = (ms: number, base: number): boolean =>
    ms <= spare || (Number.isFinite(base) && ms <= limitOf(base, budgets.scan, spare));
  const judgeOne = async (input: EngineFile): Promise<readonly Over[]> => {
    let [best, base] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
    for (let round = 0; round <= measuredAgain && !within(best, base); round += 1) {
      best = Math.min(best, await scanned(rules, [input], now.loadMs));
      if (!within(best, base)) base = Math.min(base, await scanned(previous, [input], before.loadMs));
    }
    if (within(best, base)) return [];
    return [{ vector: input.name, words: `alone ${told(best)}, with the previous release ${told(base)}` }];
  };
  const judgePart = async (part: readonly EngineFile[], ms: number): Promise<readonly Over[]> => {
    const [first] = part;
    if (first === undefined || ms <= spare) return [];
    if (part.length === 1) return judgeOne(first);
    const middle = Math.ceil(part.length / 2);
    const found: Over[] = [];
    for (const half of [part.slice(0, middle), part.slice(middle)])
      found.push(...(await judgePart(half, await scanned(rules, half, now.loadMs))));
    return found;
  };
  const over = await judgePart(inputs, now.scanMs);
  return gate('budget-vector', over.length === 0 ? 'pass' : 'fail', over.length, '==', 0, over);
};

type Over = { readonly vector: string; readonly words: string };

const told = (ms: number): string => (Number.isFinite(ms) ? `${ms} ms` : 'no result');

/** The least time and the most memory of the runs that gave a result; null when none did. */
const measure = ({ loads, scans }: Runs): Measured | null => {
  const completed = (runs: readonly EngineRun[]) => runs.flatMap((run) => (run.kind === 'completed' ? [run] : []));
  const [loaded, scanned] = [completed(loads), completed(scans)];
  if (loaded.length === 0 || scanned.length === 0) return null;
  const loadMs = Math.min(...loaded.map((run) => run.wallMs));
  const peaks = scanned.flatMap(({ peakBytes }) => peakBytes ?? []);
  const spread = (runs: readonly { readonly wallMs: number }[]): number =>
    Math.max(...runs.map((run) => run.wallMs)) - Math.min(...runs.map((run) => run.wallMs));
  return {
    loadMs,
    noiseMs: Math.max(spread(loaded), spread(scanned)),
    scanMs: Math.max(0, Math.min(...scanned.map((run) => run.wallMs)) - loadMs),
    peakBytes: peaks.length === 0 ? null : Math.max(...peaks),
  };
};
