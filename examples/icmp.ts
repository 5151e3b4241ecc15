/** One ICMP echo request as a classic pcap file; conversations over TCP and UDP come from infra/engines/pcap.ts. */
export const icmpEchoCapture = (from: string, to: string, payload: Uint8Array): Uint8Array => {
  const icmp = Uint8Array.from([8, 0, 0, 0, 0, 0, 0, 1, ...payload]);
  new DataView(icmp.buffer).setUint16(2, checksum(icmp));
  const ip = new Uint8Array(20);
  const header = new DataView(ip.buffer);
  ip.set([0x45, 0]);
  header.setUint16(2, ip.length + icmp.length);
  ip.set([64, 1], 8); // time to live, protocol ICMP
  ip.set([...from.split('.'), ...to.split('.')].map(Number), 12);
  header.setUint16(10, checksum(ip));
  const frame = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, ...ip, ...icmp];
  const file = new Uint8Array(24 + 16 + frame.length);
  const view = new DataView(file.buffer);
  view.setUint32(0, 0xa1b2c3d4, true);
  view.setUint16(4, 2, true);
  view.setUint16(6, 4, true);
  view.setUint32(16, 0x40000, true);
  view.setUint32(20, 1, true); // Ethernet
  view.setUint32(24, Date.UTC(2026, 0, 1) / 1000, true);
  view.setUint32(32, frame.length, true);
  view.setUint32(36, frame.length, true);
  file.set(frame, 40);
  return file;
};

/** The Internet checksum (RFC 1071). */
const checksum = (bytes: Uint8Array): number => {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) sum += ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
};
