/**
 * Suricata over many captures in one run. What was loaded comes from the statistics record, what alerted from the event
 * log; the exit code is 0 even when every rule was refused and decides nothing.
 */
import { mkdirSync, utimesSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { captureAddresses, capturePackets } from '../../domain/content/addresses.ts';
import { parseRules } from '../../domain/content/suricata.ts';
import type { EngineFile, EngineInput } from '../../domain/ports.ts';
import { checkNames } from './inputs.ts';
import { defaultLimits, type Limits, runIsolated } from './isolated.ts';
import { engineCommand, type Pack } from './packs.ts';
import { udpCapture } from './pcap.ts';
import { inFolder, noResult } from './run.ts';
import { suricataConfig } from './suricata-config.ts';
import { gradeRun, type SuricataRun } from './suricata-log.ts';

/**
 * Runs the pack's engine once over all captures. Without captures it still replays one packet, since the statistics are
 * written at the end of a replay. Capture names: letters, digits, dash, dot and underscore, each once.
 */
export const runSuricata = async (
  pack: Pick<Pack, 'build' | 'dir'>,
  input: EngineInput,
  options: { readonly limits?: Limits; readonly signal?: AbortSignal } = {},
): Promise<SuricataRun> => {
  checkNames(input.inputs);
  const given = await Promise.all(input.inputs.length > 0 ? input.inputs.map(readInput) : [loadOnly]);
  let packets = 0;
  for (const { name, bytes } of given) {
    const held = capturePackets(bytes);
    if (held === null)
      return noResult('no-statistics', `${name} is no whole capture: the engine would not read all`, 0);
    packets += held;
  }
  const replay = async (dir: string) => {
    const captures = join(dir, 'captures');
    const log = join(dir, 'log'); // fresh: an old event log would be appended to
    mkdirSync(captures);
    mkdirSync(log);
    for (const [index, { name, bytes }] of given.entries()) {
      const path = join(captures, `${name}${suffix}`);
      writeFileSync(path, bytes);
      utimesSync(path, index + 1, index + 1); // the engine reads a folder in the order of modification
    }
    writeFileSync(join(dir, 'content.rules'), input.rules);
    const config = suricataConfig({ pack: pack.dir, log }, Number.parseInt(pack.build.version, 10), input);
    writeFileSync(join(dir, 'suricata.yaml'), config);
    const started = performance.now();
    const ended = await runIsolated(
      [
        ...engineCommand(pack),
        ...['-c', join(dir, 'suricata.yaml'), '-S', join(dir, 'content.rules'), '-r', captures, '-l', log],
        // Captures taken on a sending machine have wrong checksums; one thread gives one order of events.
        ...['-k', 'none', '--runmode', 'single', ...(input.mode === 'ips' ? ['--simulate-ips'] : [])],
      ],
      { cwd: dir, limits: options.limits ?? defaultLimits, ...(options.signal ? { signal: options.signal } : {}) },
    );
    const wallMs = Math.round(performance.now() - started);
    const [events, words] = await Promise.all([readWritten(log, 'eve.json'), readWritten(log, 'suricata.log')]);
    return { ended, events, words, wallMs };
  };
  for (let runs = 1; ; runs += 1) {
    const { ended, events, words, wallMs } = await inFolder(replay);
    if (ended.exit === 0 && !events.includes('"event_type":"stats"') && runs < mostRuns) continue;
    const ruleAt = () => {
      const parsed = parseRules('content.rules', new TextDecoder().decode(input.rules)).rules;
      return new Map(parsed.map(({ line, ruleId }) => [line, ruleId]));
    };
    // Rules are looked up for refusals only; most runs have none.
    const rules = words.includes('error parsing signature') ? ruleAt() : new Map();
    return gradeRun({ ended, events, words, rules, packets, captureOf: attribution(given), wallMs });
  }
};

/**
 * At the end of a short replay version 8.0.7 now and then ends in good order before its thread of statistics has written them.
 * Such a run says nothing about the content, and would void the release: it is made again.
 */
const mostRuns = 3;

const suffix = '.pcap';

type Capture = { readonly name: string; readonly bytes: Uint8Array };

const readInput = async (input: EngineFile): Promise<Capture> =>
  'bytes' in input ? input : { name: input.name, bytes: await readFile(input.path) };

const loadOnly: Capture = {
  name: 'load-only',
  bytes: udpCapture({
    client: '192.0.2.1',
    server: '192.0.2.2',
    port: 9,
    exchanges: [{ from: 'client', payload: Uint8Array.of(0) }],
  }),
};

/** An engine that died early wrote nothing; then its statistics are missing, which is graded. */
const readWritten = (folder: string, file: string): Promise<string> =>
  readFile(join(folder, file), 'utf8').catch(() => '');

type EventPlace = { readonly srcIp: string; readonly destIp: string; readonly file: string };

/**
 * Which capture an event belongs to: by the addresses that only one capture has. The engine's own file name lags by a
 * packet ("unknown" for the very first) and is wrong for alerts at the end of a flow; it is asked last.
 */
const attribution = (captures: readonly Capture[]): ((place: EventPlace) => string) => {
  const owners = new Map<string, string | null>();
  for (const { name, bytes } of captures) {
    for (const address of captureAddresses(bytes)) owners.set(address, owners.has(address) ? null : name);
  }
  const names = new Set(captures.map(({ name }) => name));
  const first = captures[0]?.name ?? loadOnly.name;
  if (captures.length <= 1) return () => first;
  return ({ srcIp, destIp, file }) => {
    const byName = file.slice(file.lastIndexOf('/') + 1, -suffix.length);
    return owners.get(srcIp) ?? owners.get(destIp) ?? (names.has(byName) ? byName : first);
  };
};
