/**
 * A first postmortem, written from the events alone. Every number names the event it comes from as [#seq], so that nobody
 * has to trust it.
 */
import type { StoredEvent } from '../events/catalogue.ts';
import type { Counts } from './release.ts';
import { foldEvents, isTerminal, type ReleaseState } from './release-state.ts';
import { describeEvent, duration, oneLine, plural, total } from './timeline.ts';

type Found<T extends StoredEvent['type']> = Extract<StoredEvent, { type: T }>;

const firstOf = <T extends StoredEvent['type']>(events: readonly StoredEvent[], type: T): Found<T> | undefined =>
  events.find((event): event is Found<T> => event.type === type);
const lastOf = <T extends StoredEvent['type']>(events: readonly StoredEvent[], type: T): Found<T> | undefined =>
  events.findLast((event): event is Found<T> => event.type === type);

/** `[#12]`, a place in the release's stream. */
const ref = (event: { readonly seq: number } | undefined): string => (event ? `[#${event.seq}]` : '');

/** Markdown. `events`: the whole verified stream, in order. */
export const writePostmortem = (events: readonly StoredEvent[]): string => {
  const state = foldEvents(events);
  const [begin] = events;
  const end = events.at(-1);
  if (state === null || !begin || !end) throw new Error('a postmortem needs at least one event');
  return `${[
    `# ${title(state)}`,
    '',
    ...summary(state, events, begin, end),
    '',
    ...impact(state, events),
    '',
    ...response(events),
    '',
    ...verdict(events),
    ...matrixFaults(events),
    '## Timeline',
    '',
    '| event | time (UTC) | since the start | what | details |',
    '| --- | --- | --- | --- | --- |',
    ...events.map((event) => {
      const since = duration(Date.parse(event.occurredAt) - Date.parse(begin.occurredAt));
      return `| #${event.seq} | ${event.occurredAt.slice(11, 23)} | ${since} | ${event.type} | ${quote(describeEvent(event))} |`;
    }),
    '',
    '## What people have to add',
    '',
    '- Why the content was wrong, and why no test showed it before its release.',
    '- What customers noticed, and what they were told.',
    '- What is changed so that this cannot happen again, by whom, until when.',
    '',
    `Written from ${plural(events.length, 'event')} of the release log, the last with hash ${end.hash.slice(0, 16)}. [#n] is the n-th event: \`sigrel timeline ${state.releaseId}\`.`,
  ].join('\n')}\n`;
};

/** What people and engines wrote: one line, and nothing in it is Markdown, HTML, the end of a table cell or a reference. */
const quote = (text: string): string => oneLine(text).replaceAll(/[\\|`*_~<[\]]/g, '\\$&');

const title = (state: ReleaseState): string => {
  const what = isTerminal(state) ? state.phase : `${state.phase}, not ended yet`;
  return `Release ${state.releaseId} of ${state.family}: ${what}`;
};

const summary = (
  state: ReleaseState,
  events: readonly StoredEvent[],
  begin: StoredEvent,
  end: StoredEvent,
): readonly string[] => {
  const build = firstOf(events, 'BuildSucceeded');
  const stage = lastOf(events, 'StageOpened');
  const took = duration(Date.parse(end.occurredAt) - Date.parse(begin.occurredAt));
  const lines = [
    `Release ${state.releaseId} of family ${state.family} was requested by ${quote(state.requestedBy)} at ${begin.occurredAt} ${ref(begin)}${state.note === '' ? '' : ` ("${quote(state.note)}")`}.`,
    build
      ? `It was built as content ${build.data.contentVersion} with ${plural(build.data.rules, 'rule')} ${ref(build)}.`
      : '',
    stage
      ? `The last stage that opened was ${stage.data.stage + 1} (${stage.data.name}) ${ref(stage)}.`
      : 'No stage was opened: no device was offered it.',
    state.end
      ? `It ended as **${state.phase}** after ${took}: ${quote(state.end.reason)} (${state.end.reasonCode}) ${ref(end)}.`
      : `It has not ended; the last event is ${end.type} ${ref(end)}.`,
  ];
  return ['## Summary', '', lines.filter((line) => line !== '').join(' ')];
};

/** The last event that counted devices. */
const lastCounts = (events: readonly StoredEvent[]): { counts: Counts; event: StoredEvent } | null => {
  for (const event of events.toReversed()) {
    if (event.type === 'HaltVerified' || event.type === 'RolloutCompleted' || event.type === 'StageEvidenceRecorded') {
      return { counts: event.data.counts, event };
    }
  }
  return null;
};

const impact = (state: ReleaseState, events: readonly StoredEvent[]): readonly string[] => {
  const found = lastCounts(events);
  const opened = lastOf(events, 'StageOpened');
  if (found === null && opened) {
    return [
      '## Impact',
      '',
      `Stage ${opened.data.stage + 1} was opened ${ref(opened)}; no event has counted its devices yet.`,
    ];
  }
  if (found === null) {
    const planned = firstOf(events, 'MatrixPlanned');
    const fleet = planned ? ` of ${planned.data.fleetDevices} enrolled ${ref(planned)}` : '';
    return ['## Impact', '', `0 devices${fleet} were offered the release: it did not reach a stage.`];
  }
  const { counts, event } = found;
  const plan = firstOf(events, 'RolloutPlanned');
  // A device that came after the plan may be the first of its segment: it is counted all the same.
  const planned = Object.keys(plan?.data.stages.at(-1)?.devices ?? {});
  const segments = [...new Set([...planned, ...Object.keys(counts)])].sort();
  const row = (name: string, values: readonly (number | string)[]) => `| ${name} | ${values.join(' | ')} |`;
  const fields = ['enrolled', 'offered', 'installed', 'healthy', 'harmed', 'recovered'] as const;
  return [
    '## Impact',
    '',
    `All counts are those of ${ref(event)}. A device is harmed when it crashed, did not load the content, blocked traffic, or fell silent after it was offered the release; the judge compares with devices without the release, so silence of both is no regression.`,
    '',
    row('segment', fields),
    row(
      '---',
      fields.map(() => '---:'),
    ),
    ...segments.map((segment) =>
      row(
        segment,
        fields.map((field) => counts[segment]?.[field] ?? 0),
      ),
    ),
    row(
      '**all**',
      fields.map((field) => `**${total(counts, field)}**`),
    ),
    ...(state.halt?.recovered === false
      ? ['', '**Not every harmed device had recovered when the halt was closed.** Look at these devices one by one.']
      : []),
  ];
};

const response = (events: readonly StoredEvent[]): readonly string[] => {
  const opened = firstOf(events, 'StageOpened');
  const regression = firstOf(events, 'RegressionDetected');
  const asked = firstOf(events, 'HaltRequested');
  const frozen = lastOf(events, 'ExposureFrozen');
  const rollback = lastOf(events, 'RollbackPublished');
  const verified = lastOf(events, 'HaltVerified');
  const cause = regression ?? asked;
  if (!cause) return ['## Detection and response', '', 'The release was not halted.'];
  const harmAt = regression?.data.firstHarmAt ?? null;
  const at = (event: StoredEvent | undefined): number | null => (event ? Date.parse(event.occurredAt) : null);
  const frozenAt = frozen?.data.frozenAt ?? null;
  const rows: readonly (readonly [string, number | null, number | null, string])[] = [
    ['first stage opened → first harmful report', at(opened), harmAt, `${ref(opened)} ${ref(regression)}`],
    ['first harmful report → verdict', harmAt, at(regression), ref(regression)],
    ['first harmful report → exposure frozen', harmAt, frozenAt, `${ref(regression)} ${ref(frozen)}`],
    ['halt asked for → exposure frozen', at(asked), frozenAt, `${ref(asked)} ${ref(frozen)}`],
    ['exposure frozen → rollback published', frozenAt, at(rollback), `${ref(frozen)} ${ref(rollback)}`],
    ['rollback published → recovery verified', at(rollback), at(verified), `${ref(rollback)} ${ref(verified)}`],
  ];
  return [
    '## Detection and response',
    '',
    '| from → to | time | events |',
    '| --- | ---: | --- |',
    ...rows.flatMap(([what, from, to, refs]) =>
      from === null || to === null ? [] : [`| ${what} | ${duration(Math.max(0, to - from))} | ${refs.trim()} |`],
    ),
  ];
};

const verdict = (events: readonly StoredEvent[]): readonly string[] => {
  const found = firstOf(events, 'RegressionDetected');
  if (!found) return [];
  const { data } = found;
  const rows: readonly (readonly [string, string | number])[] = [
    ['metric', data.metric],
    ['segment', data.segment ?? 'the whole fleet'],
    ['events with the release', data.x],
    ['device hours (or trials) with the release', data.treatedHours.toFixed(4)],
    ['events without it', data.y],
    ['device hours (or trials) without it', data.controlHours.toFixed(4)],
    ['key A: statistic, threshold', `${data.statA.toPrecision(5)}, ${data.thresholdA.toPrecision(5)}`],
    ['key B: statistic, threshold', `${data.statB.toPrecision(5)}, ${data.thresholdB.toPrecision(5)}`],
    ['ticks', `${data.firstTick} to ${data.lastTick}`],
    ...(data.attribution
      ? ([
          ['cells with both keys', data.attribution.latchedBoth.join(', ')],
          ['suspects, most suspect first', data.attribution.suspects.join(', ')],
        ] as const)
      : []),
    ['policy', data.policyDigest],
    ['code', data.codeVersion],
  ];
  return [
    '## The verdict',
    '',
    `All numbers are those of ${ref(found)}; with the evidence of these ticks they can be computed again.`,
    '',
    '| what | value |',
    '| --- | --- |',
    ...rows.map(([what, value]) => `| ${what} | ${value} |`),
    '',
  ];
};

const matrixFaults = (events: readonly StoredEvent[]): readonly string[] => {
  const faults = events.flatMap((event) =>
    event.type === 'MatrixCellFailed' || event.type === 'MatrixCellErrored' ? [event] : [],
  );
  if (faults.length === 0) return [];
  return [
    '## What the matrix found',
    '',
    '| cell | gate | rule | the engine says | event |',
    '| --- | --- | --- | --- | --- |',
    ...faults.flatMap((event) =>
      event.data.result.gates
        .filter((gate) => gate.verdict !== 'pass')
        .map((gate) => {
          const [detail] = gate.details;
          const observed = quote(`${gate.gate}: ${gate.observed}, needs ${gate.operator} ${gate.limit}`);
          return `| ${event.data.result.cellId} | ${observed} | ${detail?.rule ?? ''} | ${quote(detail?.words ?? '')} | ${ref(event)} |`;
        }),
    ),
    '',
  ];
};
