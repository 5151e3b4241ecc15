/** What the benchmarks of the whole pipeline share. */
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { stringify } from 'yaml';
import { bringDown } from '../../apps/cli/commands/servers.ts';
import { checkout, openConfig } from '../../apps/cli/context.ts';
import type { StoredEvent } from '../../events/catalogue.ts';
import type { Config } from '../../infra/config.ts';
import type { Pool } from '../../infra/postgres/pool.ts';
import { discardServers } from '../../infra/servers/local.ts';
import { devicesOf, type FamilyPlan } from './fleet/plan.ts';

export const examples = join(checkout, 'examples');

/** With another value of an environment variable, which is as before when `work` is over. */
export const withEnv = async <T>(name: string, value: string, work: () => Promise<T>): Promise<T> => {
  const before = process.env[name];
  process.env[name] = value;
  try {
    return await work();
  } finally {
    if (before === undefined) delete process.env[name];
    else process.env[name] = before;
  }
};

/** In a folder of its own, without anything that an earlier run has left. */
export const fresh = async (name: string): Promise<Config> => {
  const stateDir = join(openConfig(undefined).stateDir, 'bench', name);
  const config = openConfig(stateDir);
  await bringDown(config);
  await discardServers(stateDir);
  await rm(stateDir, { recursive: true, force: true });
  await mkdir(stateDir, { recursive: true });
  return config;
};

/** An example family with fewer engines, modes and nothing else changed; returns its folder. */
export const deriveFamily = async (
  dir: string,
  family: {
    readonly example: string;
    readonly name: string;
    readonly language: string;
    readonly modes: readonly string[];
    readonly engines: readonly string[];
  },
): Promise<string> => {
  const { example, name, language, modes, engines } = family;
  const folder = join(dir, name);
  await mkdir(folder, { recursive: true });
  const base = relative(folder, join(examples, 'families', example));
  await writeFile(join(folder, 'family.yaml'), stringify({ base, name, engine: language, modes }));
  await writeFile(join(folder, 'support.yaml'), stringify(engines.map((engine) => ({ engine }))));
  return folder;
};

/** Until all of them are: what the gateway has heard takes a moment, and a release is planned from it. */
export const inInventory = async (pool: Pool, families: readonly FamilyPlan[]): Promise<void> => {
  const devices = families.flatMap(devicesOf).reduce((sum, share) => sum + share, 0);
  for (const deadline = Date.now() + 120_000; Date.now() < deadline; await sleep(250)) {
    const { rows } = await pool.query<{ devices: string }>('select count(*) as devices from devices');
    if (Number(rows[0]?.devices) >= devices) return;
  }
  throw new Error(`${devices} devices were heard and are not in the inventory after two minutes`);
};

export type Distribution = {
  readonly n: number;
  readonly median: number;
  readonly p99: number;
  readonly worst: number;
  readonly all: readonly number[];
};

/** Quantiles are order statistics: values that were measured. */
export const distribution = (all: readonly number[]): Distribution => {
  const sorted = all.toSorted((a, b) => a - b);
  const at = (quantile: number) => sorted[Math.max(0, Math.ceil(quantile * sorted.length) - 1)] ?? 0;
  return { n: all.length, median: at(0.5), p99: at(0.99), worst: sorted.at(-1) ?? 0, all };
};

export const find = <T extends StoredEvent['type']>(events: readonly StoredEvent[], type: T) => {
  const found = events.find((event): event is Extract<StoredEvent, { type: T }> => event.type === type);
  if (!found) throw new Error(`the release has no ${type}: it ended with ${events.at(-1)?.type}`);
  return found;
};
