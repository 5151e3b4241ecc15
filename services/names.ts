/** Which services there are, and where they keep what they share: for programs that start or look for them, and load none. */
import { join } from 'node:path';

export const serviceNames = [
  ...([
    'repository',
    'projector',
    'aggregator',
    'gateway',
    'judge',
    'lease',
    'alarms',
    'freezer',
    'worker',
    'api',
  ] as const),
] as const;
export type ServiceName = (typeof serviceNames)[number];

/** Folders of a state folder. */
export const storeDirOf = (stateDir: string): string => join(stateDir, 'store');
export const keysDirOf = (stateDir: string): string => join(stateDir, 'keys');
