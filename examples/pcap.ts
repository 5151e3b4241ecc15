/** Small packet captures built by hand: classic file header, Ethernet, IPv4, whole TCP conversations. Deterministic. */

export type Endpoint = { readonly address: string; readonly port: number };
export type Exchange = { readonly from: 'client' | 'server'; readonly payload: Uint8Array };
type Packet = Uint8Array;

/** One TCP conversation: handshake, the exchanges with acknowledgements, FIN from both sides. Segments of 1,400 bytes. */
export const tcpPackets = (client: Endpoint, server: Endpoint, exchanges: readonly Exchange[]): Packet[] => {
  const next = { client: 1_000, server: 5_000 };
  const packets: Packet[] = [];
  const send = (from: 'client' | 'server', flags: number, payload: Uint8Array = new Uint8Array()) => {
    const to = from === 'client' ? 'server' : 'client';
    const [source, destination] = from === 'client' ? [client, server] : [server, client];
    packets.push(tcpPacket(source, destination, next[from], flags & ACK ? next[to] : 0, flags, payload));
    next[from] += payload.length + (flags & (SYN | FIN) ? 1 : 0);
  };
  send('client', SYN);
  send('server', SYN | ACK);
  send('client', ACK);
  for (const { from, payload } of exchanges) {
    for (let start = 0; start < payload.length; start += 1_400) {
      send(from, PSH | ACK, payload.subarray(start, start + 1_400));
      send(from === 'client' ? 'server' : 'client', ACK);
    }
  }
  send('client', FIN | ACK);
  send('server', FIN | ACK);
  send('client', ACK);
  return packets;
};

/** One UDP datagram per exchange. */
export const udpPackets = (client: Endpoint, server: Endpoint, exchanges: readonly Exchange[]): Packet[] =>
  exchanges.map(({ from, payload }) => {
    const [source, destination] = from === 'client' ? [client, server] : [server, client];
    const udp = new Uint8Array(8 + payload.length);
    const view = new DataView(udp.buffer);
    view.setUint16(0, source.port);
    view.setUint16(2, destination.port);
    view.setUint16(4, udp.length);
    udp.set(payload, 8);
    view.setUint16(6, transportChecksum(17, source.address, destination.address, udp) || 0xffff);
    return ipv4(17, source.address, destination.address, udp);
  });

/** An ICMP echo request. */
export const icmpEcho = (from: string, to: string, payload: Uint8Array): Packet => {
  const icmp = new Uint8Array(8 + payload.length);
  icmp[0] = 8;
  icmp[7] = 1;
  icmp.set(payload, 8);
  new DataView(icmp.buffer).setUint16(2, checksum(icmp));
  return ipv4(1, from, to, icmp);
};

/** A capture file of these packets, one millisecond apart. */
export const capture = (packets: readonly Packet[]): Uint8Array => {
  const file = new Uint8Array(24 + packets.reduce((size, packet) => size + 16 + packet.length, 0));
  const view = new DataView(file.buffer);
  view.setUint32(0, 0xa1b2c3d4);
  view.setUint16(4, 2);
  view.setUint16(6, 4);
  view.setUint32(16, 65_535);
  view.setUint32(20, 1); // Ethernet
  let at = 24;
  packets.forEach((packet, index) => {
    view.setUint32(at, 1_700_000_000 + Math.floor(index / 1000));
    view.setUint32(at + 4, (index % 1000) * 1000);
    view.setUint32(at + 8, packet.length);
    view.setUint32(at + 12, packet.length);
    file.set(packet, at + 16);
    at += 16 + packet.length;
  });
  return file;
};

const FIN = 1;
const SYN = 2;
const PSH = 8;
const ACK = 16;

const tcpPacket = (
  source: Endpoint,
  destination: Endpoint,
  seq: number,
  ack: number,
  flags: number,
  payload: Uint8Array,
): Packet => {
  const tcp = new Uint8Array(20 + payload.length);
  const view = new DataView(tcp.buffer);
  view.setUint16(0, source.port);
  view.setUint16(2, destination.port);
  view.setUint32(4, seq);
  view.setUint32(8, ack);
  tcp[12] = 5 << 4;
  tcp[13] = flags;
  view.setUint16(14, 64_240);
  tcp.set(payload, 20);
  view.setUint16(16, transportChecksum(6, source.address, destination.address, tcp));
  return ipv4(6, source.address, destination.address, tcp);
};

const ipv4 = (protocol: number, source: string, destination: string, body: Uint8Array): Packet => {
  const packet = new Uint8Array(14 + 20 + body.length);
  packet.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0], 0);
  const header = packet.subarray(14, 34);
  const view = new DataView(packet.buffer, 14, 20);
  header[0] = 0x45;
  view.setUint16(2, 20 + body.length);
  view.setUint16(4, 1);
  header[8] = 64;
  header[9] = protocol;
  header.set(octets(source), 12);
  header.set(octets(destination), 16);
  view.setUint16(10, checksum(header));
  packet.set(body, 34);
  return packet;
};

const octets = (address: string): number[] => address.split('.').map(Number);

const transportChecksum = (protocol: number, source: string, destination: string, body: Uint8Array): number => {
  const pseudo = new Uint8Array(12 + body.length);
  pseudo.set(octets(source), 0);
  pseudo.set(octets(destination), 4);
  pseudo[9] = protocol;
  new DataView(pseudo.buffer).setUint16(10, body.length);
  pseudo.set(body, 12);
  return checksum(pseudo);
};

/** RFC 1071. */
const checksum = (bytes: Uint8Array): number => {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += ((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
};
