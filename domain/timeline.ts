/** What happened, one line per event, in words with numbers: for timelines, postmortems and views. */
import type { NumberedEvent } from '../events/catalogue.ts';
import type { FamilyFreeze } from './director.ts';
import { assertNever } from './errors.ts';
import type { CellResult, Counts, SegmentCounts, Verdict } from './release.ts';

/** Sum over all segments. */
export const sumOf = (bySegment: Readonly<Record<string, number>>): number =>
  Object.values(bySegment).reduce((sum, n) => sum + n, 0);

/** Sum of a count over all segments. */
export const total = (counts: Counts, field: keyof SegmentCounts): number =>
  Object.values(counts).reduce((sum, segment) => sum + segment[field], 0);

/** `1 device`, `3 devices`. */
export const plural = (n: number, noun: string): string => `${n} ${noun}${n === 1 ? '' : 's'}`;

/** Milliseconds as people say them: `340 ms`, `2.1 s`, `12 min 5 s`, `2.5 h`. `round`: the last digit that is said. */
export const duration = (ms: number, round: (value: number) => number = Math.round): string => {
  // Each unit ends where rounding reaches its limit: nobody says 1000 ms, 60.0 s or 1 min 60 s.
  if (round(ms) < 1_000) return `${round(ms)} ms`;
  const tenths = round(ms / 100);
  if (tenths < 600) return `${(tenths / 10).toFixed(1)} s`;
  const seconds = round(ms / 1_000);
  if (seconds < 7_200) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${(round(ms / 360_000) / 10).toFixed(1)} h`;
};

/** What people and engines wrote, in one line: a line break or an escape sequence in it must not change what is around. */
export const oneLine = (text: string): string => text.replaceAll(/[\s\p{Cc}]+/gu, ' ').trim();

const devicesOf = (counts: Counts): string =>
  `${total(counts, 'offered')} offered, ${total(counts, 'installed')} installed, ${total(counts, 'healthy')} healthy, ${total(counts, 'harmed')} harmed, ${total(counts, 'recovered')} recovered`;

/** `blocked-traffic in the whole fleet: 13 of 48 ...` */
export const describeVerdict = (verdict: Verdict): string => {
  const { metric, segment, x, y, treatedHours, controlHours, statA, statB, thresholdA, thresholdB } = verdict;
  const where = segment ?? 'the whole fleet';
  const rates = `${x} events with the release in ${treatedHours.toFixed(3)} h, ${y} without it in ${controlHours.toFixed(3)} h`;
  return `${metric} in ${where}: ${rates}; keys ${key(statA, thresholdA)} and ${key(statB, thresholdB)}`;
};

/** A key that was turned stays turned: its statistic may have fallen below the threshold since. */
const key = (statistic: number, threshold: number): string =>
  `${statistic.toPrecision(3)} ${statistic >= threshold ? '>=' : 'now, once >='} ${threshold.toPrecision(3)}`;

/** Who froze a family, since when, until when, and why. */
export const describeFreeze = ({ by, at, until, reason }: FamilyFreeze): string =>
  `by ${by} since ${at}${until === null ? '' : ` until ${until}`}: ${reason}`;

/** The first thing that an engine or a gate said about a cell that is not green. */
export const firstFault = (result: CellResult): string => {
  const gate = result.gates.find((one) => one.verdict !== 'pass');
  if (!gate) return '';
  const [detail] = gate.details;
  const rule = detail?.rule === undefined ? '' : `rule ${detail.rule}: `;
  return `${gate.gate} ${gate.observed}, needs ${gate.operator} ${gate.limit}${detail ? `; ${rule}${oneLine(detail.words)}` : ''}`;
};

/** One line, without the time and the type. */
export const describeEvent = (event: NumberedEvent): string => oneLine(wordsOf(event));

const wordsOf = (event: NumberedEvent): string => {
  switch (event.type) {
    case 'ReleaseTriggered': {
      const { family, requestedBy, note } = event.data;
      return `family ${family}, requested by ${requestedBy}${note === '' ? '' : `: ${note}`}`;
    }
    case 'ReleaseQueued':
      return `behind ${event.data.behind}`;
    case 'BuildStarted':
      return `source ${event.data.sourceDigest.slice(0, 12)}`;
    case 'BuildSucceeded': {
      const { contentVersion, rules, vectors, artefacts } = event.data;
      return `content ${contentVersion}: ${plural(rules, 'rule')}, ${plural(vectors, 'vector')}, ${plural(artefacts.length, 'engine')}`;
    }
    case 'BuildFailed': {
      const { findings } = event.data;
      const [first] = findings;
      const place = first?.file === undefined ? '' : `${first.file}${first.line ? `:${first.line}` : ''}: `;
      return `${plural(findings.length, 'finding')}${first ? `; ${place}${first.message}` : ''}`;
    }
    case 'MatrixPlanned':
      return `${plural(event.data.cells.length, 'cell')} for ${plural(event.data.fleetDevices, 'device')}`;
    case 'MatrixCellPassed': {
      const { cellId, rulesLoaded, rulesExpected, wallMs } = event.data.result;
      return `${cellId}: ${rulesLoaded} of ${rulesExpected} rules, ${duration(wallMs)}`;
    }
    case 'MatrixCellFailed':
    case 'MatrixCellErrored':
      return `${event.data.result.cellId}: ${firstFault(event.data.result)}`;
    case 'MatrixVoided':
      return `${event.data.reason}${event.data.cells.length === 0 ? '' : `: ${event.data.cells.join(', ')}`}`;
    case 'MatrixPassed':
      return `${plural(event.data.cells, 'cell')} in ${duration(event.data.wallMs)}`;
    case 'MatrixFailed':
      return `${event.data.failed.join(', ')}`;
    case 'SignatureAdded':
      return `${event.data.signer} over content ${event.data.covers.join(' and ')}`;
    case 'ManifestSigned': {
      const { signatures, threshold, release, rollback } = event.data;
      return `content ${release.contentVersion} and its rollback ${rollback.contentVersion}: ${plural(signatures, 'signature')}, ${threshold} needed`;
    }
    case 'ManifestPublished':
      return `content ${event.data.contentVersion} can be fetched, rollback ${event.data.rollbackVersion} too`;
    case 'CoverageGapRecorded': {
      const { engine, rules, devices } = event.data;
      const named = rules.slice(0, 5).map(({ rule }) => rule);
      const more = rules.length > named.length ? ` and ${rules.length - named.length} more` : '';
      return `${engine} goes without ${plural(rules.length, 'rule')} (${named.join(', ')}${more}): ${plural(devices, 'device')}`;
    }
    case 'CellExcluded': {
      const { waiver, engine, devices } = event.data;
      return `${engine}, ${plural(devices, 'device')}, by ${waiver.by.join(' and ')} until ${waiver.expiresAt}: ${waiver.reason}`;
    }
    case 'MatrixReopened':
      return `devices enrolled with ${event.data.cells.map(({ cellId }) => cellId).join(', ')}`;
    case 'DivergenceFound':
      return event.data.divergences
        .slice(0, 3)
        .map(({ rule, input, alerting, silent }) => {
          const sides = `alerts on ${alerting.length} and is silent on ${silent.length} (${silent[0]} ...)`;
          return `rule ${rule} on ${input} ${sides}`;
        })
        .join('; ');
    case 'CellOverridden': {
      const { waiver, cellId, gates } = event.data;
      return `${cellId} (${gates.join(', ')}), by ${waiver.by.join(' and ')} until ${waiver.expiresAt}: ${waiver.reason}`;
    }
    case 'FirstUseRecorded':
      return event.data.engines.map(({ engine, features }) => `${engine}: ${features.join(', ')}`).join('; ');
    case 'EnginesRequalified':
      return event.data.engines
        .map(({ engine, packageVersion, controls }) => `${engine} (${packageVersion}): ${controls}`)
        .join('; ');
    case 'ApprovalRequested':
      return `${plural(event.data.needed, 'approval')} needed`;
    case 'ApprovalGranted': {
      const { by, granted, needed, note } = event.data;
      return `by ${by} (${granted} of ${needed})${note === '' ? '' : `: ${note}`}`;
    }
    case 'RolloutPlanned': {
      const { stages } = event.data;
      return stages.map(({ name, devices }) => `${name}: ${sumOf(devices)}`).join(', ');
    }
    case 'StageOpened':
      return `stage ${event.data.stage + 1} (${event.data.name})`;
    case 'StageEvidenceRecorded': {
      const { stage, lastTick, counts } = event.data;
      return `stage ${stage + 1}, tick ${lastTick}: ${devicesOf(counts)}`;
    }
    case 'StagePassed':
    case 'StageHeld':
      return `stage ${event.data.stage + 1} (${event.data.name}), by ${event.data.by}: ${event.data.reason}`;
    case 'RolloutPaused':
    case 'RolloutResumed':
      return `stage ${event.data.stage + 1}, by ${event.data.by}: ${event.data.reason}`;
    case 'LeaseLapsed':
      return `stage ${event.data.stage + 1}, last tick ${event.data.lastTick}: ${event.data.reason}`;
    case 'RolloutCompleted':
      return devicesOf(event.data.counts);
    case 'RegressionDetected':
      return describeVerdict(event.data);
    case 'HaltRequested':
    case 'ReleaseHalted':
    case 'ReleaseRefused':
    case 'ReleaseFailed':
    case 'ReleaseCancelled':
      return `by ${event.data.by}: ${event.data.reason} (${event.data.reasonCode})`;
    case 'ExposureFrozen':
      return `director ${event.data.directorVersion}, triggered by ${event.data.triggeredBy}`;
    case 'RollbackPublished':
      return `content ${event.data.rollbackVersion}, director ${event.data.directorVersion}`;
    case 'HaltVerified': {
      const { counts, recovered, waitedMs } = event.data;
      const outcome = recovered ? 'every harmed device recovered' : 'not every harmed device recovered';
      return `${outcome} within ${duration(waitedMs)}: ${devicesOf(counts)}`;
    }
    case 'ReleaseCompleted':
      return `content ${event.data.contentVersion} is what every device runs`;
    default:
      return assertNever(event);
  }
};
