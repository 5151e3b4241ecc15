import fc from 'fast-check';
import { expect, test } from 'vitest';
import { captureAddresses, capturePackets } from '../../domain/content/addresses.ts';
import { concat, type Payload, tcpCapture, udpCapture } from '../../infra/engines/pcap.ts';

type Packet = { ms: number; ip: Uint8Array };

/** A reader of its own: it shares nothing with the writer. */
const packets = (file: Uint8Array): Packet[] => {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  expect(view.getUint32(0, true)).toBe(0xa1b2c3d4);
  const found: Packet[] = [];
  for (let at = 24; at < file.length; ) {
    const length = view.getUint32(at + 8, true);
    expect(view.getUint32(at + 12, true)).toBe(length);
    const ms = view.getUint32(at, true) * 1000 + view.getUint32(at + 4, true) / 1000;
    const ip = file.subarray(at + 16 + 14, at + 16 + length);
    expect(new DataView(ip.buffer, ip.byteOffset).getUint16(2)).toBe(ip.length);
    found.push({ ms, ip });
    at += 16 + length;
  }
  return found;
};

/** Over a range with its checksum in place the one's complement sum is 0xffff. */
const onesSum = (...parts: Uint8Array[]): number => {
  let sum = 0;
  for (const part of parts) {
    for (const [at, byte] of part.entries()) sum += at % 2 === 0 ? byte * 256 : byte;
  }
  while (sum > 0xffff) sum = (sum % 0x10000) + Math.floor(sum / 0x10000);
  return sum;
};

const checksumsHold = (ip: Uint8Array): boolean => {
  const transport = ip.subarray(20);
  const pseudo = Uint8Array.from([...ip.subarray(12, 20), 0, ip[9] ?? 0, transport.length >> 8, transport.length]);
  return onesSum(ip.subarray(0, 20)) === 0xffff && onesSum(pseudo, transport) === 0xffff;
};

const exchanges: fc.Arbitrary<Payload[]> = fc.array(
  fc.record({ from: fc.constantFrom('client', 'server'), payload: fc.uint8Array({ minLength: 1, maxLength: 4000 }) }),
  { maxLength: 4 },
);
const address = fc.tuple(fc.nat(255), fc.nat(255), fc.nat(255), fc.nat(255)).map((parts) => parts.join('.'));

test('a TCP capture has right checksums, gapless sequence numbers, and carries what was said', () => {
  fc.assert(
    fc.property(address, address, fc.integer({ min: 1, max: 65_535 }), exchanges, (client, server, port, said) => {
      const all = packets(tcpCapture({ client, server, port, clientPort: 40_001, exchanges: said }));
      const expected = { client: 1_000, server: 5_000 };
      const heard: Record<'client' | 'server', number[]> = { client: [], server: [] };
      for (const { ip } of all) {
        expect(checksumsHold(ip)).toBe(true);
        const tcp = new DataView(ip.buffer, ip.byteOffset + 20);
        // A server may use the client's port as its own: then the addresses would have to tell, so it is left out.
        if (port === 40_001) return;
        const from = tcp.getUint16(2) === port ? 'client' : 'server';
        expect(tcp.getUint32(4)).toBe(expected[from]);
        const flags = tcp.getUint8(13);
        if (flags !== 0x02) expect(tcp.getUint32(8)).toBe(expected[from === 'client' ? 'server' : 'client']);
        heard[from].push(...ip.subarray(40));
        expected[from] += ip.length - 40 + (flags & 0x03 ? 1 : 0);
      }
      for (const side of ['client', 'server'] as const) {
        expect(heard[side]).toEqual(said.filter((one) => one.from === side).flatMap((one) => [...one.payload]));
      }
      expect(all.length).toBe(6 + 2 * said.reduce((sum, one) => sum + Math.ceil(one.payload.length / 1460), 0));
    }),
    { numRuns: 50 },
  );
});

test('a UDP capture has one datagram per payload and right checksums', () => {
  const said: Payload[] = [
    { from: 'client', payload: Uint8Array.from([1, 2, 3]) },
    { from: 'server', payload: new Uint8Array(1472).fill(7) },
  ];
  const all = packets(udpCapture({ client: '10.0.0.1', server: '10.0.0.2', port: 53, exchanges: said }));
  expect(all.map(({ ip }) => [...ip.subarray(28)])).toEqual(said.map((one) => [...one.payload]));
  expect(all.every(({ ip }) => checksumsHold(ip))).toBe(true);
});

test('joined captures keep every packet and their time never runs back', () => {
  const one = (client: string, startMs: number) =>
    tcpCapture({ client, server: '10.0.0.2', port: 80, startMs, exchanges: [] });
  const parts = [one('10.0.0.1', 5_000), one('10.0.0.3', 1_000), one('10.0.0.4', 60_000)];
  const all = packets(concat(parts));
  expect(all.map(({ ip }) => [...ip])).toEqual(parts.flatMap((part) => packets(part).map(({ ip }) => [...ip])));
  const times = all.map(({ ms }) => ms);
  expect(times).toEqual([...times].sort((a, b) => a - b));
  expect(new Set(times).size).toBe(times.length);
});

test('an address or a datagram that cannot be is refused by name', () => {
  const base = { client: '10.0.0.1', server: '10.0.0.2', port: 53 };
  expect(() => tcpCapture({ ...base, client: '10.0.0.256', exchanges: [] })).toThrow('10.0.0.256');
  expect(() => udpCapture({ ...base, exchanges: [{ from: 'client', payload: new Uint8Array(1473) }] })).toThrow('1473');
});

test('a capture that is not whole has neither packets nor addresses, wherever it was cut', () => {
  const whole = tcpCapture({ client: '10.0.0.1', server: '10.0.0.2', port: 80, exchanges: [] });
  expect(capturePackets(whole)).toBe(6);
  expect([...captureAddresses(whole)]).toEqual(['10.0.0.1', '10.0.0.2']);
  for (let length = 0; length < whole.length; length += 1) {
    const cut = whole.subarray(0, length);
    const ends = length >= 24 && (length - 24) % (16 + 54) === 0; // between two packets
    expect([length, capturePackets(cut)]).toEqual([length, ends ? (length - 24) / (16 + 54) : null]);
    expect([length, captureAddresses(cut).size]).toEqual([length, ends && length > 24 ? 2 : 0]);
  }
});

test.each([
  ['another version', (view: DataView) => view.setUint16(4, 99, true)],
  ['an older version', (view: DataView) => view.setUint16(6, 3, true)],
  ['a packet longer than the file', (view: DataView) => view.setUint32(24 + 8, 0x7fffffff, true)],
  ['packets longer than it says that they are', (view: DataView) => view.setUint32(16, 53, true)],
  ['another magic number', (view: DataView) => view.setUint32(0, 0x0a0d0d0a)],
])('%s is no capture that an engine reads whole', (_what, change) => {
  const capture = tcpCapture({ client: '10.0.0.1', server: '10.0.0.2', port: 80, exchanges: [] });
  change(new DataView(capture.buffer));
  expect(capturePackets(capture)).toBeNull();
  expect(captureAddresses(capture).size).toBe(0);
});
