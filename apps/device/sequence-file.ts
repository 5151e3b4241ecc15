/**
 * Where a device's numbering goes on after a reboot. Each life has a block of numbers of its own, put down before the first of
 * them is used: a clock that was reset, or a death at any moment, never brings back a number that the gateway has seen.
 */
import { readFile } from 'node:fs/promises';
import { writeWhole } from '../../infra/store/blobs.ts';

/** Reports of one life: 500 years with a heartbeat of 5 minutes and three reports each. */
const perLife = 2 ** 24;

/**
 * The number below the first report of this life: above the block of every life before and, should the file be lost with its
 * disk, above the clock in ms, which is ahead of every number that was used while devices live longer than some hours.
 */
export const beginSequence = async (file: string, now: number): Promise<number> => {
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return '';
    throw error;
  });
  // A damaged file is like a lost one: a device that does not start is worse than one that trusts its clock.
  const used = /^\d{1,15}\n$/.test(text) ? Number(text) : 0;
  const first = Math.max(used, now);
  await writeWhole(file, `${first + perLife}\n`);
  return first;
};
