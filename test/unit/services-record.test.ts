import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { identify } from '../../infra/servers/processes.ts';
import { forgetServices, readServices, recordServices } from '../../infra/servers/services-record.ts';
import { checkout, startNode } from '../support/plain-node.ts';

let dir = '';
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'sigrel-services-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

const inFile = () => JSON.parse(readFileSync(join(dir, 'services.json'), 'utf8'));
const ours = identify(process.pid);
const endedProcess = async () => {
  const child = spawn('true');
  const identity = identify(child.pid ?? 0);
  await new Promise((resolve) => child.on('close', resolve));
  return identity ?? { pid: child.pid ?? 0, started: 1 };
};

describe('services of a state folder', () => {
  test('nothing was ever started there: none', () => {
    expect(readServices(dir)).toEqual({});
  });

  test('a process records what it runs, and forgets it', async () => {
    await recordServices(dir, { api: { url: 'http://127.0.0.1:1' }, judge: {} });
    expect(readServices(dir)).toEqual({
      api: { process: ours, startedAt: expect.stringMatching(/^\d{4}-.*Z$/), url: 'http://127.0.0.1:1' },
      judge: { process: ours, startedAt: expect.any(String) },
    });
    await recordServices(dir, { simulator: {} });
    expect(Object.keys(readServices(dir))).toEqual(['api', 'judge', 'simulator']);
    await forgetServices(dir);
    expect(readServices(dir)).toEqual({});
  });

  test('processes that ended, or whose pid somebody else has now, are left out; the next change forgets them', async () => {
    const startedAt = new Date(0).toISOString();
    const reused = { pid: process.pid, started: (ours?.started ?? 0) + 1 };
    const parent = identify(process.ppid);
    const written = {
      gone: { process: await endedProcess(), startedAt },
      reused: { process: reused, startedAt, url: 'http://127.0.0.1:2' },
      alive: { process: parent, startedAt },
    };
    writeFileSync(join(dir, 'services.json'), JSON.stringify(written));
    expect(readServices(dir)).toEqual({ alive: written.alive });
    expect(Object.keys(inFile())).toHaveLength(3);
    await recordServices(dir, { worker: {} });
    expect(Object.keys(inFile())).toEqual(['alive', 'worker']);
    await forgetServices(dir);
    expect(inFile()).toEqual({ alive: written.alive });
  });

  test('a service that is started again stands there once, as the new process', async () => {
    const written = { api: { process: identify(process.ppid), startedAt: 'before', url: 'http://127.0.0.1:1' } };
    writeFileSync(join(dir, 'services.json'), JSON.stringify(written));
    await recordServices(dir, { api: { url: 'http://127.0.0.1:2' } });
    expect(readServices(dir)).toMatchObject({ api: { process: ours, url: 'http://127.0.0.1:2' } });
  });
});

/** Records `count` services one after the other as soon as a line comes in, and lives until its input ends. */
const writer = `
  const [module, dir, name, count] = process.argv.slice(1);
  const { recordServices } = await import(module);
  console.log('ready');
  await new Promise((resolve) => process.stdin.once('data', resolve));
  for (let i = 0; i < Number(count); i += 1) await recordServices(dir, { [name + i]: {} });
  console.log('done');
  process.stdin.resume();`;

test('processes that write at once lose nothing, also when a dead one holds the lock', async () => {
  const count = 8;
  const module = pathToFileURL(join(checkout, 'infra', 'servers', 'services-record.ts')).href;
  const names = ['a', 'b', 'c', 'd'];
  const dead = await endedProcess();
  writeFileSync(join(dir, 'services.lock'), `${dead.pid}-${dead.started}`);
  const writers = names.map((name) => startNode(writer, [module, dir, name, String(count)]));
  const says = ({ child }: (typeof writers)[number], word: string) =>
    new Promise<void>((resolve, reject) => {
      child.stdout.on('data', (chunk: Buffer) => chunk.toString().includes(word) && resolve());
      child.on('close', () => reject(new Error(`ended before it said ${word}`)));
    });
  await Promise.all(writers.map((one) => says(one, 'ready')));
  const done = Promise.all(writers.map((one) => says(one, 'done')));
  for (const { child } of writers) child.stdin.write('go\n');
  await done;
  const expected = names.flatMap((name) => Array.from({ length: count }, (_, i) => `${name}${i}`));
  expect(Object.keys(readServices(dir)).sort()).toEqual(expected.sort());
  for (const { child } of writers) child.stdin.end();
  for (const { ended } of writers) expect(await ended).toMatchObject({ code: 0, error: '' });
  expect(readServices(dir)).toEqual({});
});
