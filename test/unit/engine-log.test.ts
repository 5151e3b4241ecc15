/** What the engines wrote, shortened: records and lines below are copied from real runs of the version they name. */
import { describe, expect, test } from 'vitest';
import { pickMirror } from '../../infra/engines/debian.ts';
import type { Ended } from '../../infra/engines/isolated.ts';
import { parseLinked } from '../../infra/engines/packs.ts';
import { suricataConfig } from '../../infra/engines/suricata-config.ts';
import { gradeRun, parseErrors } from '../../infra/engines/suricata-log.ts';

const entropy = 'alert tcp any any -> any any (msg:"Error: detect: x"; entropy: value >= 1; sid:9; rev:1;)';
const duplicate = 'alert tcp any any -> any any (msg:"dup"; content:"x"; sid:1; rev:1;)';
const bsize = 'alert http any any -> any any (msg:"b"; bsize:2; content:"abcdef"; sid:13; rev:1;)';

const log6 = `24/11/2026 -- 15:20:00 - <Notice> - This is Suricata version 6.0.1 RELEASE running in USER mode
24/11/2026 -- 15:20:00 - <Error> - [ERRCODE: SC_ERR_INVALID_ENUM_MAP(15)] - event "request_too_many_headers" not present in http's enum map table.
24/11/2026 -- 15:20:00 - <Warning> - [ERRCODE: SC_ERR_INVALID_SIGNATURE(39)] - app-layer-event keyword's protocol "http" doesn't have event "request_too_many_headers" registered
24/11/2026 -- 15:20:00 - <Error> - [ERRCODE: SC_ERR_RULE_KEYWORD_UNKNOWN(102)] - unknown rule keyword 'entropy'.
24/11/2026 -- 15:20:00 - <Error> - [ERRCODE: SC_ERR_INVALID_SIGNATURE(39)] - error parsing signature "${entropy}" from file /tmp/x/r.rules at line 3
24/11/2026 -- 15:20:00 - <Error> - [ERRCODE: SC_ERR_DUPLICATE_SIG(176)] - Duplicate signature "${duplicate}"
24/11/2026 -- 15:20:00 - <Error> - [ERRCODE: SC_ERR_INVALID_SIGNATURE(39)] - error parsing signature "${duplicate}" from file /tmp/x/r.rules at line 4
24/11/2026 -- 15:20:00 - <Error> - [ERRCODE: SC_ERR_INVALID_SIGNATURE(39)] - error parsing signature "${bsize}" from file /tmp/x/r.rules at line 7
`;
const log7 = `[9452 - Suricata-Main] 2026-11-24 15:20:00 Notice: suricata: This is Suricata version 7.0.10 RELEASE running in USER mode
[9452 - Suricata-Main] 2026-11-24 15:20:00 Error: detect-parse: unknown rule keyword 'entropy'.
[9452 - Suricata-Main] 2026-11-24 15:20:00 Error: detect: error parsing signature "${entropy}" from file /tmp/x/r.rules at line 3
[9452 - Suricata-Main] 2026-11-24 15:20:00 Error: detect-parse: Duplicate signature "${duplicate}"
[9452 - Suricata-Main] 2026-11-24 15:20:00 Error: detect: error parsing signature "${duplicate}" from file /tmp/x/r.rules at line 4
[9452 - Suricata-Main] 2026-11-24 15:20:00 Warning: detect-reference: unknown reference key "nosuch"
[9452 - Suricata-Main] 2026-11-24 15:20:00 Error: detect: error parsing signature "${bsize}" from file /tmp/x/r.rules at line 7
`;
const refused = [
  { line: 3, ruleId: 9, words: "unknown rule keyword 'entropy'." },
  { line: 4, ruleId: 1, words: `Duplicate signature "${duplicate}"` },
  { line: 7, ruleId: 13, words: `error parsing signature "${bsize}" from file /tmp/x/r.rules at line 7` },
];

/** The rules of the file, by line. */
const rules = new Map([
  [3, 9],
  [4, 1],
  [7, 13],
]);

describe("the engine's own log", () => {
  test('version 7: reason, rule and line, also of a rule that contains what looks like a mark', () => {
    expect(parseErrors(log7, rules)).toEqual(refused);
  });

  test('version 6: the same, and the words about a rule that vanished uncounted stand for themselves', () => {
    expect(parseErrors(log6, rules)).toEqual([
      { words: 'event "request_too_many_headers" not present in http\'s enum map table.' },
      ...refused,
    ]);
  });

  test('which rule it is says the line, not what stands in the rule; a line without a rule of ours names none', () => {
    const see = 'Error: detect: error parsing signature "alert (msg:"see sid:5;"; sid:7;)" from file r.rules at line';
    expect(parseErrors(`${see} 2\n${see} 6\n`, new Map([[2, 7]]))).toMatchObject([
      { line: 2, ruleId: 7 },
      { line: 6, words: expect.any(String) },
    ]);
    expect(parseErrors(`${see} 6\n`, new Map())[0]).not.toHaveProperty('ruleId');
  });

  test('notices and warnings are no errors', () => {
    expect(
      parseErrors('E\nW: detect-reference: unknown reference key "x"\ni: pcap: read 1 file, Error: none\n', rules),
    ).toEqual([]);
  });
});

const ips6 = `{"timestamp":"2026-01-01T00:00:00.000000+0000","flow_id":1,"pcap_cnt":1,"event_type":"alert","src_ip":"10.1.0.1","src_port":40000,"dest_ip":"10.1.0.2","dest_port":80,"proto":"TCP","alert":{"action":"blocked","gid":1,"signature_id":14,"rev":1,"signature":"all","category":"","severity":3},"pcap_filename":"unknown"}
{"timestamp":"2026-01-01T00:00:00.000000+0000","flow_id":1,"pcap_cnt":1,"event_type":"drop","src_ip":"10.1.0.1","src_port":40000,"dest_ip":"10.1.0.2","dest_port":80,"proto":"TCP","drop":{"len":40},"alert":{"action":"blocked","gid":1,"signature_id":14,"rev":1},"pcap_filename":"unknown"}
{"timestamp":"2026-01-01T00:00:00.001000+0000","flow_id":1,"pcap_cnt":2,"event_type":"drop","src_ip":"10.1.0.2","src_port":80,"dest_ip":"10.1.0.1","dest_port":40000,"proto":"TCP","drop":{"len":40},"pcap_filename":"/tmp/c/a.pcap"}
{"timestamp":"2026-01-01T00:00:00.001000+0000","event_type":"stats","stats":{"decoder":{"pkts":3},"detect":{"engines":[{"id":0,"last_reload":"2026-11-24T15:19:40.577810+0000","rules_loaded":3,"rules_failed":0}],"alert":1}}}
`;
const stats = (loaded: number) =>
  `{"event_type":"stats","stats":{"decoder":{"pkts":1},"detect":{"engines":[{"id":0,"rules_loaded":${loaded},"rules_failed":4,"rules_skipped":2}]}}}\n`;

const byItself: Ended = {
  exit: 0,
  signal: null,
  timedOut: false,
  exceeded: null,
  peakBytes: null,
  output: 'one\ntwo\n',
};
const grade = (ended: Partial<Ended>, events: string, words = '') =>
  gradeRun({
    ended: { ...byItself, ...ended },
    events,
    words,
    rules,
    packets: 1,
    captureOf: ({ srcIp }) => `of ${srcIp}`,
    wallMs: 7,
  });

describe('what a run means', () => {
  test('alerts, one blocked flow per capture and ends, and counters without skips', () => {
    const run = gradeRun({
      ended: byItself,
      events: ips6,
      words: '',
      rules,
      packets: 3,
      captureOf: () => 'a',
      wallMs: 7,
    });
    expect(run).toEqual({
      kind: 'completed',
      loaded: 3,
      failed: 0,
      skipped: 0,
      alerts: [{ input: 'a', ruleId: 14, action: 'blocked' }],
      blockedFlows: [
        {
          capture: 'a',
          ruleId: 14,
          protocol: 'TCP',
          srcIp: '10.1.0.1',
          srcPort: 40000,
          destIp: '10.1.0.2',
          destPort: 80,
        },
      ],
      errors: [],
      wallMs: 7,
      peakBytes: null,
    });
  });

  test('a drop without a rule is the engine speaking: no signature, ports where there are none', () => {
    const icmp = '{"event_type":"drop","src_ip":"10.0.0.9","dest_ip":"10.0.0.8","proto":"ICMP","drop":{"len":28}}\n';
    expect(grade({}, icmp + stats(1))).toMatchObject({
      blockedFlows: [{ capture: 'of 10.0.0.9', ruleId: null, srcPort: null, destPort: null }],
    });
  });

  test('the last statistics count, and errors come along', () => {
    expect(grade({}, stats(1) + stats(5), log7)).toMatchObject({
      kind: 'completed',
      loaded: 5,
      failed: 4,
      skipped: 2,
      errors: refused,
    });
  });

  test('the exit code decides nothing when there are statistics', () => {
    expect(grade({ exit: 1 }, stats(1))).toMatchObject({ kind: 'completed', loaded: 1 });
  });

  test.each([
    ['6.0.1', '<Error> - [ERRCODE: SC_ERR_PCAP_DISPATCH(20)] - error code -1 truncated dump file'],
    ['7.0.10', 'Error: pcap: error code -1 truncated dump file'],
  ])('a capture that %s read in part is no result, with its own words', (_version, line) => {
    const words = line.startsWith('<') ? `28/11/2026 -- 04:57:08 - ${line}\n` : `${line}\n`;
    const run = gradeRun({
      ...{ ended: byItself, events: stats(1), words: log7 + words, rules },
      ...{ packets: 2, captureOf: () => 'a', wallMs: 7 },
    });
    expect(run).toMatchObject({
      ...{ kind: 'no-result', reason: 'no-statistics' },
      words: expect.stringContaining('read 1 of 2 packets: error code -1 truncated dump file'),
    });
  });

  test('statistics that count no packets are no result', () => {
    const silent = stats(1).replace('"decoder":{"pkts":1},', '');
    expect(grade({}, silent)).toMatchObject({ kind: 'no-result', words: expect.stringContaining('read 0 of 1') });
  });

  test.each([
    ['timeout', { exit: null, signal: 'SIGKILL', timedOut: true }, stats(1), 'killed after 7 ms'],
    ['timeout', { exit: null, signal: 'SIGXCPU' }, stats(1), 'processor time'],
    ['signal', { exit: null, signal: 'SIGSEGV' }, stats(1), 'SIGSEGV'],
    ['exit', { exit: 1 }, '', 'exit code 1'],
    ['no-statistics', {}, '', 'no statistics'],
    ['no-statistics', {}, stats(1).slice(0, 60), 'no statistics'],
  ] as const)('%s is no result: %j', (reason, ended, events, words) => {
    const run = grade(ended, events);
    expect(run).toMatchObject({ kind: 'no-result', reason, words: expect.stringContaining(words) });
    expect(run).toMatchObject({ words: expect.stringContaining('it said: one | two') });
  });
});

describe('acquiring', () => {
  test("the archive is picked from apt's own list: not security, not updates, not third parties", () => {
    const targets = `https://third.example/linux/debian/ bookworm stable
https://third.example/apt/ bookworm main
http://archive.example/debian-security/ bookworm-security main
http://archive.example/debian/ bookworm-updates main
http://archive.example/debian/ bookworm main
`;
    expect(pickMirror(targets)).toBe('http://archive.example/debian/');
    expect(pickMirror('mirror+file:/etc/apt/mirrors/debian.list/ trixie main\n')).toBe(
      'mirror+file:/etc/apt/mirrors/debian.list/',
    );
    expect(pickMirror('http://security.example/debian-security/ bookworm-security main\n\n')).toBeNull();
  });

  test("libraries are read from the loader's answer, and a missing one is named", () => {
    const said = `\tlinux-vdso.so.1 (0x00007facd458d000)
\tlibdl.so.2 => /pack/lib/x86_64-linux-gnu/libdl.so.2 (0x00007facd457f000)
\t/lib64/ld-linux-x86-64.so.2 => /pack/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 (0x00007facd458f000)
`;
    expect(parseLinked(said)).toEqual([
      '/pack/lib/x86_64-linux-gnu/libdl.so.2',
      '/pack/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2',
    ]);
    expect(() => parseLinked('\tlibhs.so.5 => not found\n')).toThrow('libhs.so.5');
  });

  test('every path in the configuration is the one that was given, none of the host', () => {
    const paths = suricataConfig({ pack: '/the/pack', log: '/the/log' }, 8).match(/(?<=[ :"])\/[^\s"]+/g) ?? [];
    expect(paths.length).toBe(5);
    expect(paths.filter((path) => !path.startsWith('/the/'))).toEqual([]);
  });
});
