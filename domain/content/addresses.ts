/**
 * The IP addresses in a capture (classic pcap of Ethernet, either byte order). An engine that reads a folder of captures
 * in one run names the wrong file for alerts that it raises late; the addresses are always right, so each vector has its own.
 */

/** Empty when the file is not such a capture. */
export const captureAddresses = (capture: Uint8Array): ReadonlySet<string> => {
  const found = new Set<string>();
  const view = new DataView(capture.buffer, capture.byteOffset, capture.byteLength);
  if (capture.length < 24) return found;
  const magic = view.getUint32(0);
  const little = magic === 0xd4c3b2a1 || magic === 0x4d3cb2a1;
  const ethernet = view.getUint32(20, little) === 1;
  if (!ethernet || (!little && magic !== 0xa1b2c3d4 && magic !== 0xa1b23c4d)) return found;
  for (let at = 24; at + 16 <= capture.length; ) {
    const length = view.getUint32(at + 8, little);
    addressesOf(capture.subarray(at + 16, at + 16 + length), found);
    at += 16 + length;
  }
  return found;
};

const addressesOf = (frame: Uint8Array, found: Set<string>): void => {
  const type = ((frame[12] ?? 0) << 8) | (frame[13] ?? 0);
  if (type === 0x0800 && frame.length >= 34) {
    for (const start of [26, 30]) found.add([...frame.subarray(start, start + 4)].join('.'));
  }
  if (type === 0x86dd && frame.length >= 54) {
    for (const start of [22, 38]) {
      const bytes = frame.subarray(start, start + 16);
      const groups = Array.from({ length: 8 }, (_, i) =>
        (((bytes[2 * i] ?? 0) << 8) | (bytes[2 * i + 1] ?? 0)).toString(16),
      );
      found.add(groups.map((group) => group.padStart(4, '0')).join(':'));
    }
  }
};

export const noPackets =
  'holds no IP packet: expected a classic pcap file of Ethernet frames; an engine would see nothing in it';
