/**
 * Captures built by hand: classic pcap file, Ethernet, IPv4, right checksums and times that depend on nothing, so that
 * the same conversation is always the same bytes. TCP has its full handshake and both FINs: without both directions an
 * engine does not see the flow as established and inspects nothing.
 */
import { SigrelError } from '../../domain/errors.ts';

export type Payload = { readonly from: 'client' | 'server'; readonly payload: Uint8Array };

/** Addresses are dotted IPv4; `port` is the server's. The first packet is at `startMs` (Unix time), one per millisecond. */
export type Conversation = {
  readonly client: string;
  readonly server: string;
  readonly port: number;
  readonly clientPort?: number;
  readonly startMs?: number;
  readonly exchanges: readonly Payload[];
};

const START_MS = Date.UTC(2026, 0, 1);
const CLIENT_PORT = 40_000;
const FILE_HEADER = 24;
const RECORD_HEADER = 16;
/** What fits into an Ethernet frame of 1500 bytes after the IPv4 and TCP headers. */
const SEGMENT = 1460;
const DATAGRAM = 1472;
const TCP = 6;
const UDP = 17;
const SYN = 0x02;
const FIN_ACK = 0x11;
const SYN_ACK = 0x12;
const ACK = 0x10;
const PSH_ACK = 0x18;

/** One TCP connection: handshake, the payloads in order (each segment acknowledged), and an orderly end by the client. */
export const tcpCapture = (conversation: Conversation): Uint8Array => {
  const sides = bothSides(conversation);
  const next = { client: 1_000, server: 5_000 }; // initial sequence numbers
  const frames: Uint8Array[] = [];
  const send = (from: 'client' | 'server', flags: number, payload: Uint8Array = new Uint8Array()): void => {
    const to = other(from);
    const header = new Uint8Array(20);
    const view = new DataView(header.buffer);
    view.setUint16(0, sides[from].port);
    view.setUint16(2, sides[to].port);
    view.setUint32(4, next[from]);
    view.setUint32(8, flags === SYN ? 0 : next[to]);
    view.setUint8(12, 5 << 4);
    view.setUint8(13, flags);
    view.setUint16(14, 0xffff);
    frames.push(frame(sides[from], sides[to], TCP, header, 16, payload));
    next[from] += payload.length + (flags & 0x03 ? 1 : 0); // SYN and FIN count as one byte
  };
  send('client', SYN);
  send('server', SYN_ACK);
  send('client', ACK);
  for (const { from, payload } of conversation.exchanges) {
    for (let at = 0; at < payload.length; at += SEGMENT) {
      send(from, PSH_ACK, payload.subarray(at, at + SEGMENT));
      send(other(from), ACK);
    }
  }
  send('client', FIN_ACK);
  send('server', FIN_ACK);
  send('client', ACK);
  return capture(frames, conversation.startMs ?? START_MS);
};

/** One UDP exchange: a datagram per payload. */
export const udpCapture = (conversation: Conversation): Uint8Array => {
  const sides = bothSides(conversation);
  const frames = conversation.exchanges.map(({ from, payload }) => {
    if (payload.length > DATAGRAM) {
      throw new SigrelError(
        'SRP_INPUT_CAPTURE',
        `a datagram of ${payload.length} bytes does not fit; at most ${DATAGRAM}`,
      );
    }
    const header = new Uint8Array(8);
    const view = new DataView(header.buffer);
    view.setUint16(0, sides[from].port);
    view.setUint16(2, sides[other(from)].port);
    view.setUint16(4, header.length + payload.length);
    return frame(sides[from], sides[other(from)], UDP, header, 6, payload);
  });
  return capture(frames, conversation.startMs ?? START_MS);
};

/** Joins captures made here one after the other; later ones are moved in time, since an engine's clock must not run back. */
export const concat = (captures: readonly Uint8Array[]): Uint8Array => {
  const joined = new Uint8Array(FILE_HEADER + captures.reduce((sum, one) => sum + one.length - FILE_HEADER, 0));
  const out = new DataView(joined.buffer);
  joined.set(fileHeader());
  let at = FILE_HEADER;
  let last = Number.NEGATIVE_INFINITY;
  for (const one of captures) {
    const view = new DataView(one.buffer, one.byteOffset, one.byteLength);
    if (view.byteLength < FILE_HEADER || view.getUint32(0, true) !== 0xa1b2c3d4) {
      throw new SigrelError('SRP_INPUT_CAPTURE', 'only classic little-endian captures (as made here) can be joined');
    }
    joined.set(one.subarray(FILE_HEADER), at);
    let shift: number | undefined;
    for (let record = FILE_HEADER; record < one.length; ) {
      const ms = view.getUint32(record, true) * 1000 + view.getUint32(record + 4, true) / 1000;
      shift ??= Math.max(0, last + 1 - ms);
      last = ms + shift;
      setTime(out, at, last);
      const size = RECORD_HEADER + view.getUint32(record + 8, true);
      record += size;
      at += size;
    }
  }
  return joined;
};

type Side = { readonly address: Uint8Array; readonly port: number; readonly mac: number };

const other = (side: 'client' | 'server'): 'client' | 'server' => (side === 'client' ? 'server' : 'client');

const bothSides = (conversation: Conversation): Record<'client' | 'server', Side> => ({
  client: { address: ipv4(conversation.client), port: conversation.clientPort ?? CLIENT_PORT, mac: 1 },
  server: { address: ipv4(conversation.server), port: conversation.port, mac: 2 },
});

const ipv4 = (text: string): Uint8Array => {
  const parts = text.split('.').map((part) => (/^\d{1,3}$/.test(part) ? Number(part) : Number.NaN));
  if (parts.length !== 4 || !parts.every((part) => part <= 255)) {
    throw new SigrelError('SRP_INPUT_CAPTURE', `address "${text}" is no IPv4 address; expected for example 10.1.0.1`);
  }
  return Uint8Array.from(parts);
};

/** Ethernet and IPv4 around a transport header; `checksumAt` is where the transport header keeps its checksum. */
const frame = (
  from: Side,
  to: Side,
  protocol: number,
  transport: Uint8Array,
  checksumAt: number,
  payload: Uint8Array,
): Uint8Array => {
  const length = transport.length + payload.length;
  const bytes = new Uint8Array(14 + 20 + length);
  const view = new DataView(bytes.buffer);
  bytes.set([0x02, 0, 0, 0, 0, to.mac, 0x02, 0, 0, 0, 0, from.mac, 0x08, 0x00]);
  const ip = 14;
  view.setUint8(ip, 0x45);
  view.setUint16(ip + 2, 20 + length);
  view.setUint16(ip + 6, 0x4000); // do not fragment
  view.setUint8(ip + 8, 64);
  view.setUint8(ip + 9, protocol);
  bytes.set(from.address, ip + 12);
  bytes.set(to.address, ip + 16);
  view.setUint16(ip + 10, checksum(bytes.subarray(ip, ip + 20), 0));
  bytes.set(transport, ip + 20);
  bytes.set(payload, ip + 20 + transport.length);
  // The pseudo header of RFC 9293 section 3.1 and RFC 768: both addresses, protocol, length.
  const pseudo = sum16(bytes.subarray(ip + 12, ip + 20), 0) + protocol + length;
  const sum = checksum(bytes.subarray(ip + 20), pseudo);
  view.setUint16(ip + 20 + checksumAt, sum === 0 && protocol === UDP ? 0xffff : sum);
  return bytes;
};

const sum16 = (bytes: Uint8Array, start: number): number => {
  let sum = start;
  for (let at = 0; at < bytes.length; at += 2) sum += ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
  return sum;
};

/** The Internet checksum (RFC 1071). */
const checksum = (bytes: Uint8Array, start: number): number => {
  let sum = sum16(bytes, start);
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return ~sum & 0xffff;
};

const fileHeader = (): Uint8Array => {
  const header = new Uint8Array(FILE_HEADER);
  const view = new DataView(header.buffer);
  view.setUint32(0, 0xa1b2c3d4, true); // times in microseconds
  view.setUint16(4, 2, true);
  view.setUint16(6, 4, true);
  view.setUint32(16, 0x40000, true); // snap length
  view.setUint32(20, 1, true); // Ethernet
  return header;
};

const setTime = (view: DataView, at: number, ms: number): void => {
  view.setUint32(at, Math.floor(ms / 1000), true);
  view.setUint32(at + 4, Math.round((ms % 1000) * 1000), true);
};

const capture = (frames: readonly Uint8Array[], startMs: number): Uint8Array => {
  const bytes = new Uint8Array(FILE_HEADER + frames.reduce((sum, one) => sum + RECORD_HEADER + one.length, 0));
  const view = new DataView(bytes.buffer);
  bytes.set(fileHeader());
  let at = FILE_HEADER;
  for (const [index, one] of frames.entries()) {
    setTime(view, at, startMs + index);
    view.setUint32(at + 8, one.length, true);
    view.setUint32(at + 12, one.length, true);
    bytes.set(one, at + RECORD_HEADER);
    at += RECORD_HEADER + one.length;
  }
  return bytes;
};
