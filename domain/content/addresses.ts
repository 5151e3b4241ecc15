/**
 * The IP addresses in a capture (classic pcap of Ethernet, either byte order). An engine that reads a folder of captures
 * in one run names the wrong file for alerts that it raises late; the addresses are always right, so each vector has its own.
 */

/** Empty when the file is not such a capture, or not a whole one. */
export const captureAddresses = (capture: Uint8Array): ReadonlySet<string> => {
  const found = new Set<string>();
  const read = readCapture(capture);
  if (read?.linkType === ETHERNET) for (const frame of read.frames) addressesOf(frame, found);
  return found;
};

/** How many packets an engine has to read in it, whatever they are; null: an engine would not read all of it. */
export const capturePackets = (capture: Uint8Array): number | null => readCapture(capture)?.frames.length ?? null;

const ETHERNET = 1;

/**
 * A classic pcap file of version 2.4; null when it is none, when its last record is not whole, or when a record is longer
 * than the file says that records are. Engines skip or cut what is so, say a word in their log and go on.
 */
const readCapture = (
  capture: Uint8Array,
): { readonly linkType: number; readonly frames: readonly Uint8Array[] } | null => {
  if (capture.length < 24) return null;
  const view = new DataView(capture.buffer, capture.byteOffset, capture.byteLength);
  const magic = view.getUint32(0);
  const little = magic === 0xd4c3b2a1 || magic === 0x4d3cb2a1;
  if (!little && magic !== 0xa1b2c3d4 && magic !== 0xa1b23c4d) return null;
  if (view.getUint16(4, little) !== 2 || view.getUint16(6, little) !== 4) return null;
  const longest = view.getUint32(16, little) || Number.POSITIVE_INFINITY;
  const frames: Uint8Array[] = [];
  let at = 24;
  while (at + 16 <= capture.length) {
    const length = view.getUint32(at + 8, little);
    if (length > longest || at + 16 + length > capture.length) return null;
    frames.push(capture.subarray(at + 16, at + 16 + length));
    at += 16 + length;
  }
  return at === capture.length ? { linkType: view.getUint32(20, little), frames } : null;
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
  'holds no IP packet, or is not whole: expected a classic pcap file (version 2.4) of Ethernet frames up to its last byte; an engine would see nothing in it, or not all of it';
