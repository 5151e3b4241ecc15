/** What Suricata wrote, read: pure functions from its event log and its own log to an outcome. */
import type { BlockedFlow, EngineRun } from '../../domain/ports.ts';
import type { RuleId } from '../../domain/release.ts';
import type { Ended } from './isolated.ts';
import { endedBadly, noResult } from './run.ts';

type Completed = Extract<EngineRun, { kind: 'completed' }>;

export type SuricataRun =
  | Exclude<EngineRun, Completed>
  | (Completed & { readonly blockedFlows: readonly BlockedFlow[] });

/** The fields used of a record of the event log. */
type EveRecord = {
  readonly event_type?: string;
  readonly pcap_filename?: string;
  readonly src_ip?: string;
  readonly src_port?: number;
  readonly dest_ip?: string;
  readonly dest_port?: number;
  readonly proto?: string;
  readonly alert?: { readonly signature_id: number; readonly action: string };
  readonly stats?: {
    readonly decoder?: { readonly pkts?: number };
    readonly detect?: {
      readonly engines?: readonly {
        readonly rules_loaded: number;
        readonly rules_failed: number;
        readonly rules_skipped?: number;
      }[];
    };
  };
};

type Attribution = (place: { readonly srcIp: string; readonly destIp: string; readonly file: string }) => string;

/**
 * What the run means. A run that ended in any other way than by itself, with statistics, has no result; nor has one that read
 * fewer packets than there are: a capture that it cannot read, or not to its end, gets a word in its log and counts for
 * nothing else.
 */
export const gradeRun = (run: {
  readonly ended: Ended;
  /** Contents of eve.json and suricata.log. */
  readonly events: string;
  readonly words: string;
  /** The rules that it was given, by the line of the file. */
  readonly rules: ReadonlyMap<number, RuleId>;
  /** How many there are in all captures. */
  readonly packets: number;
  readonly captureOf: Attribution;
  readonly wallMs: number;
}): SuricataRun => {
  const { ended, wallMs } = run;
  const bad = endedBadly(ended, wallMs);
  if (bad) return bad;
  const records = parseRecords(run.events);
  const stats = records.findLast((record) => record.event_type === 'stats')?.stats;
  const statistics = stats?.detect?.engines?.[0];
  if (!statistics) {
    return ended.exit === 0
      ? noResult('no-statistics', 'it wrote no statistics', wallMs, ended.output)
      : noResult('exit', `ended with exit code ${ended.exit} and wrote no statistics`, wallMs, ended.output);
  }
  const errors = parseErrors(run.words, run.rules);
  const read = stats.decoder?.pkts ?? 0;
  if (read < run.packets) {
    const why = errors.findLast(({ line }) => line === undefined);
    const words = `it read ${read} of ${run.packets} packets${why ? `: ${why.words}` : ''}`;
    return noResult('no-statistics', words, wallMs, ended.output);
  }
  const placed = records.map((record) => ({ record, capture: run.captureOf(placeOf(record)) }));
  return {
    kind: 'completed',
    loaded: statistics.rules_loaded,
    failed: statistics.rules_failed,
    skipped: statistics.rules_skipped ?? 0, // version 6 knows no rules that it should skip
    alerts: placed.flatMap(({ record: { event_type, alert }, capture }) =>
      event_type === 'alert' && alert
        ? [{ input: capture, ruleId: alert.signature_id, action: alert.action === 'blocked' ? 'blocked' : 'allowed' }]
        : [],
    ),
    blockedFlows: blockedFlows(placed),
    errors,
    wallMs,
    peakBytes: ended.peakBytes,
  };
};

const placeOf = (record: EveRecord) => ({
  srcIp: record.src_ip ?? '',
  destIp: record.dest_ip ?? '',
  file: record.pcap_filename ?? '',
});

const parseRecords = (text: string): EveRecord[] =>
  text.split('\n').flatMap((line): EveRecord[] => {
    try {
      return line === '' ? [] : [JSON.parse(line)];
    } catch {
      return []; // the last line of a log that reached its size limit
    }
  });

/** One per flow: the engine writes a record per direction, and names the rule only with the packet that matched. */
const blockedFlows = (placed: readonly { readonly record: EveRecord; readonly capture: string }[]): BlockedFlow[] => {
  const flows = new Map<string, BlockedFlow>();
  for (const { record, capture } of placed) {
    if (record.event_type !== 'drop') continue;
    const protocol = record.proto ?? '';
    const ends = [`${record.src_ip} ${record.src_port}`, `${record.dest_ip} ${record.dest_port}`].sort();
    const key = [capture, protocol, ...ends].join(' ');
    const known = flows.get(key);
    const ruleId = known?.ruleId ?? record.alert?.signature_id ?? null;
    const flow = known ?? {
      capture,
      protocol,
      srcIp: record.src_ip ?? '',
      srcPort: record.src_port ?? null,
      destIp: record.dest_ip ?? '',
      destPort: record.dest_port ?? null,
    };
    flows.set(key, { ...flow, ruleId });
  }
  return [...flows.values()];
};

/**
 * What the engine said about rules it refused, for people. Version 6 writes `[ERRCODE: SC_ERR_...(39)] - words`, later ones
 * `Error: detect: words`. The reason comes first; the next line repeats the rule and names its place. A reason that no
 * refusal follows stands for itself: version 6 drops rules with an unknown event without counting them anywhere. Which
 * rule it is the line tells: the rule itself may hold what looks like another one's id.
 */
export const parseErrors = (output: string, rules: ReadonlyMap<number, RuleId>): Completed['errors'] => {
  const found: { line?: number; ruleId?: RuleId; words: string }[] = [];
  let reason: string | null = null;
  const flush = () => {
    if (reason !== null) found.push({ words: reason });
    reason = null;
  };
  for (const raw of output.split('\n')) {
    const words = errorLine.exec(raw)?.[1]?.trim();
    if (words === undefined) continue;
    const refused = /^error parsing signature ".*" from file .* at line (\d+)$/.exec(words);
    if (!refused) {
      flush();
      reason = words;
      continue;
    }
    const line = Number(refused[1]);
    const ruleId = rules.get(line);
    found.push({
      line,
      ...(ruleId === undefined ? {} : { ruleId }),
      words: reason ?? words,
    });
    reason = null;
  }
  flush();
  return found;
};

/** The first mark in a line counts: a rule in it may contain what looks like another. */
const errorLine =
  /^(?:.*? - <Error> - \[ERRCODE: [^\]]*\] - |(?:\[[^\]]*\] [-\d]+ [:\d]+ )?(?:Error|E): (?:[\w-]+: )?)(.*)$/;
