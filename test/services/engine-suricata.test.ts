/** Suricata as the field runs it: what each version loads, alerts on and blocks, and how a run ends that goes wrong. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import type { EngineInput } from '../../domain/ports.ts';
import { defaultLimits, type Limits } from '../../infra/engines/isolated.ts';
import { acquirePacks, type Pack, packsOf } from '../../infra/engines/packs.ts';
import { type Payload, tcpCapture, udpCapture } from '../../infra/engines/pcap.ts';
import { createEngineRunner } from '../../infra/engines/runner.ts';
import { runSuricata } from '../../infra/engines/suricata.ts';
import { stderrProgress } from '../../infra/servers/progress.ts';

const shared = process.env.SIGREL_SHARED ?? join(import.meta.dirname, '..', '..', '..', 'shared');

let packs: readonly Pack[];
beforeAll(async () => {
  packs = await acquirePacks(stderrProgress(), packsOf(['suricata']));
}, 900_000);

const major = (pack: Pack) => Number.parseInt(pack.build.version, 10);
const bytes = (text: string) => new TextEncoder().encode(text);
const client = (text: string): Payload => ({ from: 'client', payload: bytes(text) });
const server = (text: string): Payload => ({ from: 'server', payload: bytes(text) });

const post = (host: string, body: string, more: Partial<Parameters<typeof tcpCapture>[0]> = {}) =>
  tcpCapture({
    ...{ client: host, server: '10.200.0.1', port: 80 },
    exchanges: [
      client(`POST /form HTTP/1.1\r\nHost: shop.example\r\nContent-Length: ${body.length}\r\n\r\n${body}`),
      server('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'),
    ],
    ...more,
  });

const run = async (pack: Pack, rules: string, input: Partial<Omit<EngineInput, 'rules'>> = {}, limits?: Limits) =>
  runSuricata(
    pack,
    { rules: bytes(rules), inputs: [{ name: 'one', bytes: post('10.1.0.1', 'abc') }], mode: 'ids', ...input },
    limits ? { limits } : {},
  );
const completed = async (...args: Parameters<typeof run>) => {
  const result = await run(...args);
  if (result.kind !== 'completed') throw new Error(result.words);
  return result;
};

const good = 'alert http any any -> any any (msg:"post"; http.method; content:"POST"; sid:1; rev:1;)\n';
const entropy = (sid: number) =>
  `alert tcp any any -> any any (msg:"entropy"; entropy: value >= 1; sid:${sid}; rev:1;)\n`;
const event =
  'alert http any any -> any any (msg:"event"; app-layer-event:http.request_too_many_headers; sid:5; rev:1;)\n';
const dropAll = 'drop ip any any -> any any (msg:"all"; sid:7; rev:1;)\n';

describe('what is loaded', () => {
  test('a good rule loads and alerts everywhere', async () => {
    for (const pack of packs) {
      expect(await completed(pack, good)).toMatchObject({
        ...{ loaded: 1, failed: 0, skipped: 0, errors: [], blockedFlows: [] },
        alerts: [{ input: 'one', ruleId: 1, action: 'allowed' }],
      });
    }
  });

  test('without captures the rules are still counted', async () => {
    for (const pack of packs) {
      expect(await completed(pack, good + dropAll, { inputs: [] })).toMatchObject({ loaded: 2, failed: 0 });
    }
  });

  test('a keyword of version 8 is refused before it, with rule, line and words', async () => {
    for (const pack of packs) {
      const result = await completed(pack, good + entropy(9));
      const knows = major(pack) >= 8;
      expect(result).toMatchObject({ loaded: knows ? 2 : 1, failed: knows ? 0 : 1 });
      const words = expect.stringContaining("unknown rule keyword 'entropy'");
      expect(result.errors).toEqual(knows ? [] : [{ line: 2, ruleId: 9, words }]);
    }
  });

  test('every refusal is told, however many there are', async () => {
    const many = Array.from({ length: 400 }, (_, index) => entropy(1_000 + index)).join('');
    for (const pack of packs.filter((one) => major(one) < 8)) {
      const { errors } = await completed(pack, many);
      expect(errors.map((error) => error.ruleId)).toEqual(Array.from({ length: 400 }, (_, index) => 1_000 + index));
    }
  });

  test('version 6 stops counting refusals after an unknown event: only what was loaded tells', async () => {
    for (const pack of packs) {
      const result = await completed(pack, good + event + entropy(9));
      if (major(pack) === 6) {
        expect(result).toMatchObject({ loaded: 1, failed: 0 });
        expect(result.errors).toMatchObject([
          { words: expect.stringContaining('request_too_many_headers') },
          { ruleId: 9 },
        ]);
      } else expect(result.loaded).toBe(major(pack) >= 8 ? 3 : 2);
    }
  });
});

describe('what alerts and what is blocked', () => {
  test('as if inline a drop rule blocks the flow; in plain mode the same rule only alerts', async () => {
    for (const pack of packs) {
      const inline = await completed(pack, dropAll, { mode: 'ips' });
      expect(inline.alerts).toMatchObject([{ input: 'one', ruleId: 7, action: 'blocked' }]);
      expect(inline.blockedFlows).toEqual([
        {
          ...{ capture: 'one', ruleId: 7, protocol: 'TCP' },
          ...{ srcIp: '10.1.0.1', srcPort: 40_000, destIp: '10.200.0.1', destPort: 80 },
        },
      ]);
      const plain = await completed(pack, dropAll);
      expect(plain.loaded).toBe(1);
      expect(plain.alerts.filter((alert) => alert.action === 'blocked')).toEqual([]);
      expect(plain.blockedFlows).toEqual([]);
    }
  });

  test('many captures in one run: every alert is told of its own, first packets and unfinished flows too', async () => {
    const rules = `${good}alert tcp any any -> any 80 (msg:"syn"; flags:S; sid:2; rev:1;)
alert udp any any -> any 53 (msg:"udp"; content:"abc"; sid:3; rev:1;)
alert http any any -> any any (msg:"body"; http.request_body; content:"needle"; sid:4; rev:1;)
`;
    const inputs = Array.from({ length: 30 }, (_, index) => {
      const from = { client: `10.1.${index}.1`, server: `10.1.${index}.2` };
      if (index % 3 === 0) {
        return { name: `udp-${index}`, bytes: udpCapture({ ...from, port: 53, exchanges: [client('abc')] }) };
      }
      const whole = post(from.client, 'needle', { server: from.server });
      if (index % 3 === 1) return { name: `whole-${index}`, bytes: whole };
      // Up to the request and not acknowledged: the engine inspects it when it gives the flow up, at the end of the run.
      const handshake = tcpCapture({ ...from, port: 80, exchanges: [] }).length - 3 * (16 + 54);
      const view = new DataView(whole.buffer);
      return { name: `cut-${index}`, bytes: whole.subarray(0, handshake + 16 + view.getUint32(handshake + 8, true)) };
    });
    const wanted = inputs.flatMap(({ name }) =>
      name.startsWith('udp') ? [`${name} 3`] : [`${name} 1`, `${name} 2`, `${name} 4`],
    );
    for (const pack of packs) {
      for (const mode of ['ids', 'ips'] as const) {
        const { alerts } = await completed(pack, rules, { inputs, mode });
        const told = alerts.map(({ input, ruleId }) => `${input} ${ruleId}`);
        expect(told.sort(), `${pack.build.version} ${mode}`).toEqual(wanted.sort());
      }
    }
  });

  test('the same input gives the same answer', async () => {
    const pack = packs[0] as Pack;
    const [one, two] = [await completed(pack, good + dropAll), await completed(pack, good + dropAll)];
    const measured = { wallMs: 0, peakBytes: 0 };
    expect({ ...one, ...measured }).toEqual({ ...two, ...measured });
  });
});

/** Engines whose run is over: their folder is gone. Those of other runs on this machine have theirs. */
const leftBehind = (): string[] =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8')
          .split('\0')
          .filter((part) => /sigrel-engine-\w+$/.test(part.replace(/\/log$/, '')));
      } catch {
        return []; // it ended meanwhile
      }
    })
    .filter((folder) => !existsSync(folder));

describe('a run that goes wrong is no result', () => {
  const slow = Array.from(
    { length: 20 },
    (_, index) =>
      `alert tcp any any -> any any (msg:"slow"; pcre:"/a.*1.*b.*c${index}/s"; sid:${1000 + index}; rev:1;)`,
  ).join('\n');
  const letters = [{ name: 'letters', bytes: post('10.1.0.1', 'a'.repeat(60_000)) }];
  const oldest = () => packs.find((pack) => major(pack) === 6);

  test('a rule that eats the processor is stopped by the clock or by the limit, and nothing stays behind', async ({
    skip,
  }) => {
    const pack = oldest() ?? skip('no version 6 here: later versions are not slow on this rule');
    const byClock = await run(pack, `${slow}\n`, { inputs: letters }, { ...defaultLimits, wallMs: 1_500 });
    expect(byClock).toMatchObject({ kind: 'no-result', reason: 'timeout', words: expect.stringContaining('killed') });
    const byLimit = await run(pack, `${slow}\n`, { inputs: letters }, { ...defaultLimits, cpuSeconds: 1 });
    expect(byLimit).toMatchObject({ reason: 'timeout', words: expect.stringContaining('processor time') });
    await expect.poll(leftBehind).toEqual([]);
  });

  test('an abort ends the engine', async ({ skip }) => {
    const pack = oldest() ?? skip('no version 6 here: later versions are not slow on this rule');
    const input: EngineInput = { rules: bytes(slow), inputs: letters, mode: 'ids' };
    // At its own limit it would be a result, and no error.
    await expect(createEngineRunner(packs).run(pack.build, input, AbortSignal.timeout(500))).rejects.toThrow(
      'aborted due to timeout',
    );
    await expect.poll(leftBehind).toEqual([]);
  });

  test('traffic that crashes version 6 while it accepts the rules', async ({ skip }) => {
    const folder = join(shared, 'data', 'ips-vectors', 'bug-4503');
    if (!existsSync(folder)) skip(`no ${folder}: set SIGREL_SHARED to the folder with data/ips-vectors`);
    const rules = await readFile(join(folder, 'test.rules'), 'utf8');
    const inputs = [{ name: 'bug', bytes: await readFile(join(folder, 'input.pcap')) }];
    for (const pack of packs) {
      const result = await run(pack, rules, { inputs });
      expect(result).toMatchObject(
        major(pack) === 6 ? { kind: 'no-result', reason: 'signal' } : { kind: 'completed', loaded: 4 },
      );
      expect(await completed(pack, rules)).toMatchObject({ loaded: 4, failed: 0 });
    }
  });

  test('a capture that an engine would read in part, or skip, is no clean one', async () => {
    const changed = (change: (view: DataView) => void) => {
      const capture = post('10.1.0.2', 'abc');
      change(new DataView(capture.buffer));
      return capture;
    };
    const broken: Record<string, Uint8Array> = {
      'cut by three bytes': post('10.1.0.2', 'abc').slice(0, -3),
      'a packet of two gigabytes': changed((view) => view.setUint32(24 + 8, 0x7fffffff, true)),
      'version 99': changed((view) => view.setUint16(4, 99, true)),
      'a length of packets that cuts them': changed((view) => view.setUint32(16, 20, true)),
      empty: new Uint8Array(),
      // A whole capture, of a kind of network that no engine decodes: only its own statistics tell.
      'another kind of network': changed((view) => view.setUint32(20, 147, true)),
    };
    for (const pack of packs) {
      for (const [what, capture] of Object.entries(broken)) {
        const inputs = [
          { name: 'whole', bytes: post('10.1.0.1', 'abc') },
          { name: 'broken', bytes: capture },
        ];
        const result = await run(pack, good, { inputs });
        const words = what.startsWith('another') ? /datalink type 147/ : /broken is no whole capture/;
        expect([pack.build.version, what, result]).toMatchObject([
          ...[pack.build.version, what],
          { kind: 'no-result', reason: 'no-statistics', words: expect.stringMatching(words) },
        ]);
      }
    }
  });

  test('too little memory to start', async () => {
    for (const pack of packs) {
      const result = await run(pack, good, {}, { ...defaultLimits, addressSpaceBytes: 32 * 2 ** 20 });
      expect(result).toMatchObject({
        kind: 'no-result',
        words: expect.stringMatching(/it said: .*(memory|alloc|map)/),
      });
    }
  });

  test('an engine that is not here gives null, whatever it prints about itself', async () => {
    const pack = packs[0] as Pack;
    const runner = createEngineRunner(packs);
    const input: EngineInput = { rules: bytes(good), inputs: [], mode: 'ids' };
    expect(await runner.run({ ...pack.build, digest: 'f'.repeat(64) }, input, new AbortController().signal)).toBeNull();
    expect(await runner.run(pack.build, input, new AbortController().signal)).toMatchObject({ loaded: 1 });
  });

  test('capture names that cannot be files or are used twice are refused by name', async () => {
    const [one] = letters;
    const named = (...names: string[]) =>
      run(packs[0] as Pack, good, { inputs: names.map((name) => ({ name, bytes: one?.bytes ?? new Uint8Array() })) });
    await expect(named('../up')).rejects.toMatchObject({
      code: 'SRP_INPUT_CAPTURE',
      message: expect.stringContaining('../up'),
    });
    await expect(named('twice', 'twice')).rejects.toThrow('"twice" is used twice');
  });
});
