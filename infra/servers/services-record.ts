/**
 * Which service of a state folder runs where: `services.json`, written by the processes themselves. Entries of processes
 * that have ended (crash, reboot, a pid that somebody else has now) are left out when it is read.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { writeWhole } from '../store/blobs.ts';
import { withLock } from '../store/lock.ts';
import { type Identity, identify, isSame } from './processes.ts';

export type ServiceRecord = {
  readonly process: Identity;
  readonly startedAt: string;
  /** Where it listens, when it does. */
  readonly url?: string;
};
export type ServicesRecord = Readonly<Record<string, ServiceRecord>>;

const recordFile = (stateDir: string): string => join(stateDir, 'services.json');

const readAll = (stateDir: string): ServicesRecord => {
  const file = recordFile(stateDir);
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : {};
};

/** Services whose process lives. */
export const readServices = (stateDir: string): ServicesRecord =>
  Object.fromEntries(Object.entries(readAll(stateDir)).filter(([, service]) => isSame(service.process)));

const change = (stateDir: string, update: (alive: ServicesRecord) => ServicesRecord): Promise<void> =>
  withLock(join(stateDir, 'services.lock'), () =>
    writeWhole(recordFile(stateDir), `${JSON.stringify(update(readServices(stateDir)), null, 2)}\n`),
  );

/** This process runs these services from now on. */
export const recordServices = (
  stateDir: string,
  services: Readonly<Record<string, { readonly url?: string }>>,
): Promise<void> => {
  const process_ = identify(process.pid) ?? { pid: process.pid, started: 0 };
  const startedAt = new Date().toISOString();
  const mine = Object.fromEntries(
    Object.entries(services).map(([name, service]) => [name, { process: process_, startedAt, ...service }]),
  );
  return change(stateDir, (alive) => ({ ...alive, ...mine }));
};

/** This process runs nothing any more. */
export const forgetServices = (stateDir: string): Promise<void> =>
  change(stateDir, (alive) =>
    Object.fromEntries(Object.entries(alive).filter(([, service]) => service.process.pid !== process.pid)),
  );
