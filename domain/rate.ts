/** A token bucket: `perSecond` in the long run, `burst` at once. */
export type Rate = { readonly perSecond: number; readonly burst: number };
export type Bucket = { tokens: number; at: number };

export const fullBucket = (rate: Rate, now: number): Bucket => ({ tokens: rate.burst, at: now });

/** Takes one, in place; returns 0, or how many ms from now there will be one. A clock that steps back gives nothing. */
export const takeToken = (bucket: Bucket, rate: Rate, now: number): number => {
  if (now > bucket.at) {
    bucket.tokens = Math.min(rate.burst, bucket.tokens + ((now - bucket.at) * rate.perSecond) / 1_000);
  }
  bucket.at = now;
  if (bucket.tokens < 1) return Math.ceil(((1 - bucket.tokens) * 1_000) / rate.perSecond);
  bucket.tokens -= 1;
  return 0;
};

/** What was taken for nothing comes back. */
export const giveBack = (bucket: Bucket, rate: Rate): void => {
  bucket.tokens = Math.min(rate.burst, bucket.tokens + 1);
};
