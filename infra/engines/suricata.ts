/**
 * Suricata over many captures in one run. What was loaded comes from the statistics record, what alerted from the event
 * log; the exit code is 0 even when every rule was refused and decides nothing.
 */
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { captureAddresses } from '../../domain/content/addresses.ts';
import { SigrelError } from '../../domain/errors.ts';
import type { EngineInput, EngineRun } from '../../domain/ports.ts';
import { defaultLimits, type Ended, type Limits, runIsolated } from './isolated.ts';
import { engineCommand, type Pack } from './packs.ts';

/** Capture names become file names: letters, digits, dash, dot and underscore. */
export const runSuricata = async (
  pack: Pack,
  input: EngineInput,
  options: { readonly limits?: Limits; readonly signal?: AbortSignal } = {},
): Promise<EngineRun> => {
  const dir = await mkdtemp(join(tmpdir(), 'sigrel-engine-'));
  try {
    const captures = join(dir, 'captures');
    const log = join(dir, 'log'); // fresh: an old event log would be appended to
    await Promise.all([mkdir(captures), mkdir(log)]);
    for (const { name, bytes } of input.captures) {
      if (!/^[\w.-]+$/.test(name)) {
        throw new SigrelError(
          'SRP_INPUT_CAPTURE',
          `capture name "${name}"; expected letters, digits, dash, dot, underscore`,
        );
      }
      await writeFile(join(captures, `${name}.pcap`), bytes);
    }
    await writeFile(join(dir, 'content.rules'), input.rules);
    await writeFile(join(dir, 'classification.config'), classification);
    await writeFile(join(dir, 'reference.config'), '');
    await writeFile(join(dir, 'threshold.config'), '');
    await writeFile(join(dir, 'suricata.yaml'), configuration(dir));
    const started = performance.now();
    const ended = await runIsolated(
      [
        ...engineCommand(pack),
        ...['-c', join(dir, 'suricata.yaml'), '-S', join(dir, 'content.rules'), '-r', captures, '-l', log],
        // Test captures have odd checksums; one thread gives one order of events.
        ...['-k', 'none', '--runmode', 'single', ...(input.mode === 'ips' ? ['--simulate-ips'] : [])],
      ],
      { cwd: dir, limits: options.limits ?? defaultLimits, ...(options.signal ? { signal: options.signal } : {}) },
    );
    const wallMs = Math.round(performance.now() - started);
    const events = await readFile(join(log, 'eve.json'), 'utf8').catch(() => '');
    return grade(ended, events, attribution(input.captures), wallMs);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
};

type Event = {
  readonly event_type?: string;
  readonly pcap_filename?: string;
  readonly src_ip?: string;
  readonly dest_ip?: string;
  readonly alert?: { readonly signature_id: number; readonly action: string };
  readonly stats?: {
    readonly detect?: {
      readonly engines?: readonly {
        readonly rules_loaded: number;
        readonly rules_failed: number;
        readonly rules_skipped?: number;
      }[];
    };
  };
};

/** What the run means. Exported for its tests. */
export const grade = (
  ended: Ended,
  eventLog: string,
  captureOf: ReadonlyMap<string, string>,
  wallMs: number,
): EngineRun => {
  const none = (reason: 'signal' | 'timeout' | 'exit' | 'no-statistics', words: string): EngineRun => ({
    ...{ kind: 'no-result', reason, wallMs },
    words: `${words}${lastLines(ended.output)}`,
  });
  if (ended.timedOut) return none('timeout', `killed after ${wallMs} ms`);
  if (ended.signal !== null) return none('signal', `ended by ${ended.signal}`);
  const events = parseEvents(eventLog);
  const statistics = events.findLast((event) => event.event_type === 'stats')?.stats?.detect?.engines?.[0];
  if (!statistics) {
    return ended.exit === 0
      ? none('no-statistics', 'it wrote no statistics')
      : none('exit', `ended with exit code ${ended.exit} and wrote no statistics`);
  }
  return {
    kind: 'completed',
    loaded: statistics.rules_loaded,
    failed: statistics.rules_failed,
    skipped: statistics.rules_skipped ?? 0, // not counted before version 7
    alerts: events.flatMap((event) =>
      event.event_type === 'alert' && event.alert
        ? [
            {
              capture:
                captureOf.get(event.src_ip ?? '') ??
                captureOf.get(event.dest_ip ?? '') ??
                basename(event.pcap_filename ?? '', '.pcap'),
              signatureId: event.alert.signature_id,
              action: event.alert.action === 'blocked' ? ('blocked' as const) : ('allowed' as const),
            },
          ]
        : [],
    ),
    errors: parseErrors(ended.output),
    wallMs,
  };
};

/** Address -> the one capture that has it. The engine's own file name is wrong for alerts that it raises late. */
const attribution = (captures: EngineInput['captures']): ReadonlyMap<string, string> => {
  const owners = new Map<string, string>();
  const shared = new Set<string>();
  for (const { name, bytes } of captures) {
    for (const address of captureAddresses(bytes)) {
      if (owners.has(address)) shared.add(address);
      owners.set(address, name);
    }
  }
  for (const address of shared) owners.delete(address);
  return owners;
};

const parseEvents = (text: string): Event[] =>
  text.split('\n').flatMap((line): Event[] => {
    try {
      return line === '' ? [] : [JSON.parse(line)];
    } catch {
      return []; // the last line of a run that was cut off
    }
  });

/**
 * What the engine said about refused rules, for people. Version 6 writes `[ERRCODE: SC_ERR_...(39)] - words`, later ones
 * `Error: detect: words`; both then repeat the rule, with its `sid`, and name the line.
 */
export const parseErrors = (output: string): Extract<EngineRun, { kind: 'completed' }>['errors'] => {
  const found: { line?: number; signatureId?: number; words: string }[] = [];
  let reason = '';
  for (const raw of output.split('\n')) {
    const words = raw.replace(/^.*?\[ERRCODE: [^\]]*\] - /, '').replace(/^.*?(Error|E): (?:[\w-]+: )?/, '');
    if (words === raw) continue;
    const refused = /error parsing signature "(.*)" from file .* at line (\d+)/s.exec(words);
    if (!refused) {
      reason = words.trim();
      continue;
    }
    const signatureId = /\bsid:\s*(\d+)/.exec(refused[1] ?? '')?.[1];
    found.push({
      line: Number(refused[2]),
      ...(signatureId ? { signatureId: Number(signatureId) } : {}),
      words: reason === '' ? words.trim() : reason,
    });
    reason = '';
  }
  return found;
};

const lastLines = (output: string): string => {
  const lines = output.trim().split('\n').slice(-3).join(' | ');
  return lines === '' ? '' : `; it said: ${lines.slice(0, 500)}`;
};

const classification = `config classification: misc-activity,Misc activity,3
config classification: attempted-recon,Attempted information leak,2
config classification: attempted-user,Attempted user privilege gain,1
config classification: trojan-activity,A network trojan was detected,1
config classification: web-application-attack,Web application attack,1
config classification: policy-violation,Potential corporate privacy violation,1
config classification: bad-unknown,Potentially bad traffic,2
config classification: protocol-command-decode,Generic protocol command decode,3
`;

/** Our own and whole: the packaged one differs between versions and switches protocols off. */
const configuration = (dir: string): string => `%YAML 1.1
---
vars:
  address-groups:
    HOME_NET: "any"
    EXTERNAL_NET: "any"
  port-groups:
    HTTP_PORTS: "80"
    SSH_PORTS: "22"
default-log-dir: ${dir}/log
classification-file: ${dir}/classification.config
reference-config-file: ${dir}/reference.config
threshold-file: ${dir}/threshold.config
magic-file: /dev/null
stats:
  enabled: yes
  interval: 3600
logging:
  default-log-level: notice
  outputs:
    - console: { enabled: yes }
outputs:
  - eve-log:
      enabled: yes
      filetype: regular
      filename: eve.json
      pcap-file: true
      types:
        - alert
        - stats: { totals: yes, threads: no }
unix-command: { enabled: no }
app-layer:
  protocols:
${['tls', 'ssh', 'ftp', 'smb', 'tftp', 'smtp', 'krb5', 'snmp', 'sip', 'http']
  .map((protocol) => `    ${protocol}: { enabled: yes }\n`)
  .join('')}    dns:
      tcp: { enabled: yes }
      udp: { enabled: yes }
stream:
  memcap: 64mb
  inline: auto
  reassembly: { memcap: 64mb, depth: 1mb }
flow: { memcap: 64mb, hash-size: 4096, prealloc: 256 }
defrag: { memcap: 16mb, hash-size: 4096, prealloc: 64 }
host: { memcap: 16mb, hash-size: 1024, prealloc: 64 }
detect: { profile: low }
mpm-algo: auto
spm-algo: auto
host-mode: auto
`;
