/**
 * The local servers of one state folder: `servers.json` there names addresses, ports and processes. Two checkouts have two
 * state folders and run side by side; a stale record (crash, reboot, a pid that somebody else has now) is seen as such.
 */
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SigrelError } from '../../domain/errors.ts';
import { acquireKafka, type KafkaProgram, startKafka } from './kafka.ts';
import { acquirePostgres, discardPostgres, type PostgresProgram, startPostgres } from './postgres.ts';
import { endProcess, freePort, type Identity, isSame } from './processes.ts';
import type { Progress } from './progress.ts';
import { acquireTemporal, startTemporal } from './temporal.ts';

export const serverNames = ['temporal', 'kafka', 'postgres'] as const;
export type ServerName = (typeof serverNames)[number];

/** One server: ours with its process, or somebody else's address that was given. */
export type ServerRecord = {
  readonly address: string;
  readonly ports: readonly number[];
  readonly process: Identity | null;
  /** Web UI, where the server has one. */
  readonly uiUrl?: string;
};

export type ServersRecord = Partial<Readonly<Record<ServerName, ServerRecord>>>;

/** Addresses that are given: nothing is started for them. */
export type GivenAddresses = {
  readonly temporal?: string | undefined;
  readonly kafka?: readonly string[] | undefined;
  readonly postgres?: string | undefined;
};

export type LocalServers = {
  readonly temporal: { readonly address: string; readonly uiUrl: string | undefined };
  readonly kafka: { readonly brokers: readonly string[] };
  readonly postgres: { readonly url: string };
  /** Servers that ran already. */
  readonly found: readonly ServerName[];
  /** Sends SIGKILL and waits for the end: for tests of faults. */
  kill(name: ServerName): Promise<void>;
  /** Starts a stopped server again on the same port and data. */
  start(name: ServerName): Promise<void>;
  stop(): Promise<void>;
};

const recordFile = (stateDir: string): string => join(stateDir, 'servers.json');

/** What is recorded; servers whose process is not that process any more are left out. */
export const readServers = (stateDir: string): ServersRecord => {
  const file = recordFile(stateDir);
  if (!existsSync(file)) return {};
  const record = JSON.parse(readFileSync(file, 'utf8')) as ServersRecord;
  return Object.fromEntries(
    Object.entries(record).filter(([, server]) => server.process === null || isSame(server.process)),
  );
};

/**
 * Brings the three servers up, in parallel: those that run already are used, those whose address is given are not
 * started. When one fails the ones started by this call are stopped again. Errors: SRP_DEP_*, naming what to install.
 */
export const startServers = async (options: {
  readonly stateDir: string;
  readonly given?: GivenAddresses;
  /** Temporal namespaces that a server started here has beside `default`. */
  readonly namespaces?: readonly string[];
  readonly progress: Progress;
}): Promise<LocalServers> => {
  const { stateDir, progress, namespaces = [] } = options;
  await mkdir(stateDir, { recursive: true });
  const previous = existsSync(recordFile(stateDir))
    ? (JSON.parse(readFileSync(recordFile(stateDir), 'utf8')) as ServersRecord)
    : {};
  const running = readServers(stateDir);
  const record: { [N in ServerName]?: ServerRecord } = {};
  const programs = new Map<ServerName, Program>();

  const start = async (name: ServerName): Promise<void> => {
    const program = programs.get(name) ?? (await acquire[name](progress));
    programs.set(name, program);
    const ports = (record[name] ?? previous[name])?.ports ?? [];
    record[name] = await launch(name, program, { stateDir, ports, namespaces });
    await write(stateDir, record);
  };
  const found: ServerName[] = [];
  const bring = async (name: ServerName): Promise<void> => {
    const given = givenRecord(name, options.given ?? {});
    const alive = running[name];
    if (given) record[name] = given;
    else if (alive) {
      record[name] = alive;
      found.push(name);
    } else await start(name);
  };

  const outcomes = await Promise.allSettled(serverNames.map(bring));
  const failed = outcomes.find((outcome) => outcome.status === 'rejected');
  if (failed) {
    await Promise.all(serverNames.map((name) => (found.includes(name) ? undefined : end(record[name]))));
    await write(stateDir, running);
    throw failed.reason;
  }
  await write(stateDir, record);
  const of = (name: ServerName): ServerRecord => {
    const server = record[name];
    if (!server) throw new SigrelError('SRP_DEP_START', `${name} is not running`);
    return server;
  };
  return {
    temporal: { address: of('temporal').address, uiUrl: of('temporal').uiUrl },
    kafka: { brokers: of('kafka').address.split(',') },
    postgres: { url: of('postgres').address },
    found,
    kill: async (name) => {
      const { process } = of(name);
      if (process) await endProcess(process, 0);
    },
    start,
    stop: async () => {
      await stopServers(stateDir);
    },
  };
};

/** Stops what the state folder records and still runs; returns the names. Given servers are left alone. */
export const stopServers = async (stateDir: string): Promise<readonly ServerName[]> => {
  const running = readServers(stateDir);
  const ours = serverNames.filter((name) => running[name]?.process);
  await Promise.all(ours.map((name) => end(running[name])));
  await rm(recordFile(stateDir), { force: true });
  return ours;
};

/** Removes all data of stopped local servers, so that the next start is a fresh one. */
export const discardServers = async (stateDir: string): Promise<void> => {
  await stopServers(stateDir);
  await discardPostgres(join(stateDir, 'postgres'));
  for (const name of serverNames) await rm(join(stateDir, name), { recursive: true, force: true });
};

type Program = string | KafkaProgram | PostgresProgram;

const acquire: Readonly<Record<ServerName, (progress: Progress) => Promise<Program>>> = {
  temporal: acquireTemporal,
  kafka: acquireKafka,
  postgres: acquirePostgres,
};

const launch = async (
  name: ServerName,
  program: Program,
  options: {
    readonly stateDir: string;
    readonly ports: readonly number[];
    readonly namespaces: readonly string[];
  },
): Promise<ServerRecord> => {
  const { stateDir, ports: wanted, namespaces } = options;
  const dir = join(stateDir, name);
  const log = join(stateDir, 'logs', `${name}.log`);
  const first = await freePort(wanted[0]);
  if (name === 'postgres') {
    const { identity, url } = await startPostgres(program as PostgresProgram, { dir, port: first, log });
    return { address: url, ports: [first], process: identity };
  }
  const second = await freePort(wanted[1]);
  const address = `127.0.0.1:${first}`;
  if (name === 'kafka') {
    const process = await startKafka(program as KafkaProgram, { dir, port: first, controllerPort: second, log });
    return { address, ports: [first, second], process };
  }
  const process = await startTemporal(program as string, { dir, port: first, uiPort: second, log, namespaces });
  return { address, ports: [first, second], process, uiUrl: `http://127.0.0.1:${second}` };
};

const givenRecord = (name: ServerName, given: GivenAddresses): ServerRecord | null => {
  const value = given[name];
  const address = Array.isArray(value) ? value.join(',') : value;
  return typeof address === 'string' ? { address, ports: [], process: null } : null;
};

const end = async (server: ServerRecord | undefined): Promise<void> => {
  if (server?.process) await endProcess(server.process);
};

/** To a temporary name first: a reader never sees half a record. */
const write = async (stateDir: string, record: ServersRecord): Promise<void> => {
  const temporary = `${recordFile(stateDir)}.${process.pid}`;
  await writeFile(temporary, `${JSON.stringify(record, null, 2)}\n`);
  await rename(temporary, recordFile(stateDir));
};
