import { readdir, readFile } from 'node:fs/promises';
import { builtinModules } from 'node:module';
import { join } from 'node:path';
import { DefaultLogger, makeTelemetryFilterString, Runtime, Worker } from '@temporalio/worker';
import { beforeAll, describe, expect, test } from 'vitest';
import { bundleWorkflows } from '../../services/worker.ts';

const folder = join(import.meta.dirname, '..', 'histories');
const files = (await readdir(folder)).filter((name) => name.endsWith('.json')).sort();
let code: string;
beforeAll(async () => {
  Runtime.install({
    logger: new DefaultLogger('ERROR'),
    telemetryOptions: { logging: { filter: makeTelemetryFilterString({ core: 'ERROR', other: 'ERROR' }) } },
  });
  ({ code } = await bundleWorkflows());
});

/** Modules of the bundle, as webpack names them in its comments. */
const modules = () => [...code.matchAll(/^\s*!\*\*\* (\S+) /gm)].map((match) => match[1] ?? '');

describe('the workflow bundle', () => {
  test('holds the workflows and the domain', () => {
    expect(modules()).toEqual(expect.arrayContaining(['./workflows/release.ts', './domain/decide.ts']));
  });
  test('holds no zod, no module of Node, and nothing of the rooms with input and output', () => {
    const forbidden = modules().filter(
      (name) =>
        /\/node_modules\/(?!@temporalio\/)/.test(name) ||
        name.startsWith('node:') ||
        builtinModules.includes(name) ||
        /^\.\/(infra|services|apps|activities)\//.test(name),
    );
    // The only others are what @temporalio/workflow itself brings for use in workflows.
    expect(forbidden.filter((name) => !/\/node_modules\/(ms|long|nexus-rpc)\//.test(name))).toEqual([]);
    expect(modules().some((name) => name.includes('/zod/'))).toBe(false);
  });
});

describe('recorded histories replay with today’s code', () => {
  test('a completed, a blocked and a halted release are there, with their matrix', () => {
    for (const kind of ['completed', 'blocked', 'halted']) {
      expect(files).toContain(`${kind}-release-1.json`);
      expect(files).toContain(`${kind}-matrix.json`);
    }
  });
  test.each(files)('%s', async (file) => {
    const history = JSON.parse(await readFile(join(folder, file), 'utf8'));
    await Worker.runReplayHistory({ workflowBundle: { code } }, history);
  });
  test('a history of other code is refused', async () => {
    const text = await readFile(join(folder, 'blocked-release-1.json'), 'utf8');
    const changed = JSON.parse(text.replaceAll('"buildRelease"', '"anotherActivity"'));
    await expect(Worker.runReplayHistory({ workflowBundle: { code } }, changed)).rejects.toThrow(/[Nn]ondeterminis/);
  });
});
