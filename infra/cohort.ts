/** The hash behind every cohort; domain/exposure.ts does the arithmetic and takes it as an argument. */
import { hash } from 'node:crypto';
import type { BucketOf } from '../domain/exposure.ts';

/** First 4 bytes, big-endian, of SHA-256(salt \n id). */
export const bucketOf: BucketOf = (salt, id) => hash('sha256', `${salt}\n${id}`, 'buffer').readUInt32BE(0);
