/**
 * Which reports of a device were seen: the highest sequence number and, as a bit mask, the 32 below it. A sliding window
 * (as in RFC 4303, section 3.4.3), because two requests of one device may overtake each other.
 */
export type Seen = { highest: number; mask: number };

const width = 32;

export const nothingSeen = (): Seen => ({ highest: -1, mask: 0 });

/** True when this number is new; what is older than the window counts as seen. */
export const isNew = (seen: Seen, sequence: number): boolean => {
  if (sequence > seen.highest) return true;
  const bit = seen.highest - sequence - 1;
  return bit >= 0 && bit < width && (seen.mask & (1 << bit)) === 0;
};

/** Marks in place; true when the number was new. */
export const markSeen = (seen: Seen, sequence: number): boolean => {
  if (!isNew(seen, sequence)) return false;
  const ahead = sequence - seen.highest;
  if (ahead > 0) {
    seen.mask = ahead > width ? 0 : (ahead === width ? 0 : seen.mask << ahead) | (1 << (ahead - 1));
    seen.highest = sequence;
  } else {
    seen.mask |= 1 << (-ahead - 1);
  }
  return true;
};
