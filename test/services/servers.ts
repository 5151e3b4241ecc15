/** Starts the real servers once per run of the `services` project, on free ports with fresh data, and stops them. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { discardServers, startServers } from '../../infra/servers/local.ts';
import { stderrProgress } from '../../infra/servers/progress.ts';

declare module 'vitest' {
  interface ProvidedContext {
    temporalAddress: string;
    kafkaBrokers: string[];
    postgresUrl: string;
  }
}

/** One for each test file that runs workflows: what one leaves running is not another's. */
export const testNamespaces = [
  'pipeline',
  'matrix',
  'faults',
  'clock',
  'duplicates',
  'disk',
  'steering',
  'release-path',
  'release-matrix',
  'release-holds',
  'release-ends',
  'bench',
  'six-ways',
  'freeze',
  'freeze-release',
  'freeze-workflow',
  'same-task',
  'opening-waits',
] as const;

export default async (project: TestProject): Promise<() => Promise<void>> => {
  const stateDir = await mkdtemp(join(tmpdir(), 'sigrel-test-'));
  const discard = async () => {
    await discardServers(stateDir);
    await rm(stateDir, { recursive: true, force: true });
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => discard().finally(() => process.exit(130)));
  }
  const servers = await startServers({ stateDir, namespaces: testNamespaces, progress: stderrProgress() });
  project.provide('temporalAddress', servers.temporal.address);
  project.provide('kafkaBrokers', [...servers.kafka.brokers]);
  project.provide('postgresUrl', servers.postgres.url);
  return discard;
};
