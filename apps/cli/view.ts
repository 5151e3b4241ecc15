/** A release as people look at it: the same for `get`, `replay`, `-w` and the demo. */
import type { FamilyFreeze } from '../../domain/director.ts';
import { bakeLonger } from '../../domain/policy.ts';
import type { CellResult, Counts, SegmentCounts } from '../../domain/release.ts';
import { isTerminal, type Phase, type ReleaseState } from '../../domain/release-state.ts';
import { assessStage, type JudgeStatus } from '../../domain/stage-rule.ts';
import {
  describeFreeze,
  describeVerdict,
  duration,
  firstFault,
  oneLine,
  plural,
  sumOf,
  total,
} from '../../domain/timeline.ts';
import type { ReleaseAnswer } from '../../services/api/contract.ts';
import { bar, paint, table, wrap } from './output.ts';

type Style = Parameters<typeof paint>[0];

const styles: Readonly<Partial<Record<Phase, Style>>> = {
  completed: 'green',
  blocked: 'red',
  halted: 'red',
  failed: 'red',
  cancelled: 'yellow',
  halting: 'red',
  held: 'yellow',
  paused: 'yellow',
};

export const paintPhase = (phase: Phase): string => paint(styles[phase] ?? 'cyan', phase);

/** What is known of a release beside its events, and newer than they are. `now`: by the api's clock (ms), not by ours. */
export type Live = { readonly judge: JudgeStatus | null; readonly freeze: FamilyFreeze | null; readonly now: number };

export const liveOf = ({ judge, director, now }: ReleaseAnswer): Live => ({
  ...{ judge, freeze: director?.freeze ?? null, now },
});

/** 0: on its way or done; 3: it ended otherwise. */
export const exitCodeOf = (state: ReleaseState): number => (isTerminal(state) && state.phase !== 'completed' ? 3 : 0);

/** While a stage is open the judge's counts are newer than the last event's. */
const countsOf = (state: ReleaseState, judge: JudgeStatus | null): Counts =>
  judge !== null && !isTerminal(state) ? judge.counts : state.counts;

/** One line: phase, stage, exposure, devices. */
export const statusLine = (state: ReleaseState, judge: JudgeStatus | null = null): string => {
  const { rollout } = state;
  const counts = countsOf(state, judge);
  const stage = rollout && rollout.stage >= 0 ? rollout.stages[rollout.stage] : undefined;
  const parts = [paintPhase(state.phase)];
  if (stage && rollout && !isTerminal(state)) {
    parts.push(`stage ${rollout.stage + 1}/${rollout.stages.length} (${stage.name})`);
  }
  if (state.phase === 'approval' && state.approvals) {
    const { by, needed } = state.approvals;
    parts.push(`${by.length} of ${needed}: sigrel release approve ${state.releaseId}`);
  }
  const sum = (field: keyof SegmentCounts) => total(counts, field);
  if (sum('offered') > 0) {
    const harm = sum('harmed') > 0 ? `, ${paint('red', `${sum('harmed')} harmed`)}, ${sum('recovered')} recovered` : '';
    parts.push(`${sum('offered')} offered, ${sum('installed')} installed, ${sum('healthy')} healthy${harm}`);
  }
  if (state.end && state.phase !== 'completed') parts.push(oneLine(state.end.reason));
  if (judge && stage && state.phase === 'rolling') parts.push(`key ${shortNumber(judge.statA)}`);
  return parts.join(' · ');
};

/** Results that are not green, by cell. */
export const redCells = (state: ReleaseState): readonly CellResult[] =>
  (state.matrix?.results ?? [])
    .filter((result) => result.verdict !== 'pass')
    .sort((a, b) => (a.cellId < b.cellId ? -1 : 1));

/** Everything about a release, in at most 100 columns. `live` null: it is one of the past. */
export const renderRelease = (state: ReleaseState, live: Live | null = null): string => {
  const judge = live?.judge ?? null;
  const took = duration(Date.parse(state.end?.at ?? state.changedAt) - Date.parse(state.startedAt));
  const facts: (readonly [string, string])[] = [
    ['family', state.family],
    [
      'requested',
      oneLine(`by ${state.requestedBy} at ${state.startedAt}${state.note === '' ? '' : ` (${state.note})`}`),
    ],
    ['phase', `${paintPhase(state.phase)}${state.end ? ` after ${took}: ${oneLine(state.end.reason)}` : ''}`],
    ['events', String(state.seq)],
  ];
  if (state.build) {
    const { contentVersion, rules, vectors, artefacts } = state.build;
    const made = `${plural(rules, 'rule')}, ${plural(vectors, 'vector')}, ${plural(artefacts.length, 'engine')}`;
    facts.push(['content', `${contentVersion}: ${made}`]);
  }
  if (state.matrix) {
    const { cells, results, verdict } = state.matrix;
    const green = results.filter((result) => result.verdict === 'pass').length;
    facts.push(['matrix', `${verdict}: ${green} of ${plural(cells.length, 'cell')} green`]);
  }
  if (state.manifest) {
    const { signatures, threshold, rollback } = state.manifest;
    facts.push(['signed', `${signatures} of ${threshold} needed, with rollback ${rollback.contentVersion}`]);
  }
  if (state.approvals) {
    const { needed, by } = state.approvals;
    facts.push(['approvals', `${by.length} of ${needed}${by.length === 0 ? '' : `: ${oneLine(by.join(', '))}`}`]);
  }
  if (live?.freeze && !isTerminal(state)) facts.push(['frozen', paint('yellow', oneLine(describeFreeze(live.freeze)))]);
  // A freeze that stands has just been said: what held the stage may have been one before it.
  if (state.hold && !(live?.freeze && state.hold.reasonCode === 'frozen')) {
    facts.push(['held', paint('yellow', oneLine(state.hold.reason))]);
    if (state.hold.cells.length > 0) facts.push(['held by', oneLine(state.hold.cells.join(', '))]);
  }
  if (state.halt) {
    const { by, reason, rollbackVersion, recovered } = state.halt;
    facts.push(['halted', paint('red', oneLine(`by ${by}: ${reason}`))]);
    if (rollbackVersion !== null) {
      const outcome = recovered === null ? '' : recovered ? ', every harmed device recovered' : ', not all recovered';
      facts.push(['rollback', `content ${rollbackVersion}${outcome}`]);
    }
  }
  if (judge && state.rollout && !isTerminal(state)) facts.push(['evidence', describeEvidence(state, judge)]);
  const width = Math.max(...facts.map(([name]) => name.length));
  const lines = [
    paint('bold', state.releaseId),
    ...facts.map(([name, value]) => {
      const indent = ' '.repeat(width + 4);
      return `  ${paint('dim', name.padEnd(width))}  ${wrap(value, indent).trimStart()}`;
    }),
  ];
  if (state.phase === 'held' && state.hold?.verdict) {
    lines.push('', wrap(describeVerdict(state.hold.verdict), '  '));
    const clear = `Evidence clears it, or a person with a reason: sigrel release resume ${state.releaseId} --reason …`;
    lines.push(wrap(clear, '  '));
  }
  if (state.halt?.verdict) lines.push('', wrap(describeVerdict(state.halt.verdict), '  '));
  const red = redCells(state);
  for (const result of red) lines.push('', `  ${paint('red', result.cellId)}`, wrap(firstFault(result), '    '));
  for (const finding of state.findings) {
    const place = finding.file ? `${finding.file}${finding.line ? `:${finding.line}` : ''}: ` : '';
    lines.push('', wrap(oneLine(`${place}${finding.message}`), '  '));
  }
  if (state.rollout) lines.push('', renderStages(state), '', renderSegments(state, countsOf(state, judge)));
  const waiting = live === null ? [] : waitingFor(state, live);
  if (waiting.length > 0) lines.push('', ...waiting.map((words) => wrap(oneLine(`waiting: ${words}`), '  ')));
  return lines.join('\n');
};

/** What the open stage still waits for, by what the judge has seen so far; why a stage is stopped is said elsewhere. */
const waitingFor = (state: ReleaseState, { judge, freeze, now }: Live): readonly string[] => {
  const { phase, rollout } = state;
  if (phase !== 'rolling' || freeze !== null || !rollout?.openedAt || rollout.passed > rollout.stage) return [];
  const { stage, openedAt, clearedCells } = rollout;
  const unmet = (promote: boolean) => {
    const policy = bakeLonger(state.policy, state);
    const question = { policy, stage, openedAt: Date.parse(openedAt), now, promote, clearedCells };
    return assessStage(question, judge).evidence.waitingFor;
  };
  const always = unmet(true).map(({ code }) => code);
  return unmet(false).map(({ code, message }) => `${message}${always.includes(code) ? '' : ' (unless promoted)'}`);
};

/** How near the judge is to a halt, which needs both keys: each statistic and the threshold it must reach. */
const describeEvidence = (state: ReleaseState, { lastTick, statA, statB, leading }: JudgeStatus): string => {
  const { alphaA, alphaB } = state.policy.judge;
  const key = (statistic: number, alpha: number) => `${shortNumber(statistic)} of ${shortNumber(1 / alpha)}`;
  const lead = leading === '' ? '' : `, led by ${leading}`;
  return `tick ${lastTick}: keys ${key(statA, alphaA)} and ${key(statB, alphaB)}${lead}`;
};

const shortNumber = (n: number): string =>
  n >= 0.1 && n < 10_000 ? String(Number(n.toPrecision(3))) : n.toExponential(1);

const renderStages = (state: ReleaseState): string => {
  const { rollout } = state;
  if (!rollout) return '';
  const width = Math.max(10, ...rollout.stages.map(({ name }) => name.length));
  const fleet = sumOf(rollout.stages.at(-1)?.devices ?? {});
  const head = paint('dim', `  ${'  stage'.padEnd(width + 2)} ${'share of the fleet'.padEnd(20)} devices`);
  const lines = rollout.stages
    .map((stage, index) => {
      const devices = sumOf(stage.devices);
      const open = index === rollout.stage && !isTerminal(state);
      const word =
        index < rollout.passed ? paint('green', 'passed') : open ? paint('cyan', state.phase) : stopped(state, index);
      const share = fleet === 0 ? 0 : devices / fleet;
      return `  ${String(index + 1)} ${stage.name.padEnd(width)} ${bar(share)} ${String(devices).padStart(7)}  ${word}`;
    })
    .join('\n');
  return `${head}\n${lines}`;
};

const stopped = (state: ReleaseState, index: number): string =>
  index === state.rollout?.stage ? paint(styles[state.phase] ?? 'dim', state.phase) : paint('dim', 'not opened');

const renderSegments = (state: ReleaseState, counted: Counts): string => {
  const planned = state.rollout?.stages.at(-1)?.devices ?? {};
  const fields = ['offered', 'installed', 'healthy', 'harmed', 'recovered'] as const;
  const row = (segment: string): string[] => {
    const counts = counted[segment];
    const shown = fields.map((field) => {
      if (counts === undefined) return '–'; // no event has counted yet
      const n = counts[field];
      return field === 'harmed' && n > 0 ? paint('red', String(n)) : String(n);
    });
    return [segment, String(planned[segment] ?? 0), ...shown];
  };
  const columns = ['segment', 'devices', ...fields].map((name, index) => ({ name, right: index > 0 }));
  // A device that came after the plan may be the first of its segment.
  const segments = [...new Set([...Object.keys(planned), ...Object.keys(counted)])].sort();
  return table(columns, segments.map(row))
    .split('\n')
    .map((line) => `  ${line}`)
    .join('\n');
};
