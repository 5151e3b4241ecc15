/** `-w` through the command line itself, while the services end, and come back on another port. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { pathToFileURL } from 'node:url';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { defaultPolicy } from '../../domain/policy.ts';
import { foldEvents } from '../../domain/release-state.ts';
import { forgetServices, recordServices } from '../../infra/servers/services-record.ts';
import type { ReleaseAnswer } from '../../services/api/contract.ts';
import { main, runCli } from '../support/cli.ts';
import { patient } from '../support/patience.ts';
import { number, sampleStream } from '../support/streams.ts';

const events = number(sampleStream('completed', defaultPolicy));
const answerAfter = (type: (typeof events)[number]['type']): ReleaseAnswer => {
  const release = foldEvents(events.slice(0, events.findIndex((event) => event.type === type) + 1));
  if (release === null) throw new Error('empty');
  return { now: Date.now(), release, judge: null, workflowUrl: null, quarantined: 0, director: null };
};
const [rolling, completed] = [answerAfter('StageOpened'), answerAfter('ReleaseCompleted')];

let dir = '';
let open: Server[] = [];
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sigrel-watch-'));
});
afterEach(async () => {
  for (const server of open) server.close();
  open = [];
  await rm(dir, { recursive: true });
});

/** An api that says this of every release, as the services of the folder. `answered`: after each answer. */
const serve = async (answer: ReleaseAnswer, answered: (server: Server) => void = () => {}): Promise<void> => {
  const server = createServer((_, response) => {
    response.writeHead(200, { 'content-type': 'application/json', connection: 'close' });
    response.end(JSON.stringify(answer), () => answered(server));
  });
  open.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  await recordServices(dir, { api: { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` } });
};
const sigrel = (...args: string[]) => runCli(['--state', dir, ...args], { SIGREL_API_URL: undefined });

test('progress goes to standard error, the result alone to standard output', async () => {
  await serve(completed);
  const people = await sigrel('release', 'get', '-w', 'r-1');
  expect(people).toMatchObject({ code: 0, out: expect.stringMatching(/^r-1\n/), err: /\d s completed · / });
  expect(people.out).not.toMatch(/\d s {2}completed/);
  const programs = await sigrel('release', 'get', '-w', 'r-1', '--json');
  expect(programs).toMatchObject({ code: 0, err: /\d s completed · / });
  expect(JSON.parse(programs.out)).toMatchObject({ releaseId: 'r-1', phase: 'completed' });
});

test('the result and the exit code come also when nobody reads the progress any more', async () => {
  await serve(rolling, async (server) => {
    server.close();
    await serve(completed);
  });
  const { SIGREL_API_URL: _, ...env } = process.env;
  const watching = spawn(process.execPath, [main, '--state', dir, 'release', 'get', '-w', 'r-1', '--json'], { env });
  watching.stderr.destroy();
  const [result, [code]] = await Promise.all([text(watching.stdout), once(watching, 'close')]);
  expect(code).toBe(0);
  expect(JSON.parse(result)).toMatchObject({ releaseId: 'r-1', phase: 'completed' });
});

test('services that come back on another port are found again, and that is said once', async () => {
  await serve(rolling, async (server) => {
    await forgetServices(dir);
    server.close();
  });
  let heard = '';
  const watching = runCli(['--state', dir, 'release', 'get', '-w', 'r-1'], { SIGREL_API_URL: undefined }, (err) => {
    heard = err;
  });
  await expect.poll(() => heard, patient).toMatch(/looked\s+for\s+again/);
  await serve(completed);
  const { code, err } = await watching;
  expect(code).toBe(0);
  expect(err.match(/goes on meanwhile, and is looked for again/g)).toHaveLength(1);
  expect(err.match(/the services answer again/g)).toHaveLength(1);
});

test('at its timeout it says how old the state is that it shows', async () => {
  await serve(rolling, (server) => server.close());
  // Its clock is set forward, so that nobody waits.
  const clock = join(dir, 'clock');
  await writeFile(clock, '0');
  const preload = pathToFileURL(join(import.meta.dirname, '..', 'support', 'jumping-clock.ts'));
  let heard = '';
  const watching = runCli(
    ['--state', dir, 'release', 'get', '-w', 'r-1', '--timeout', '50m'],
    { SIGREL_API_URL: undefined, NODE_OPTIONS: `--import ${preload}`, CLOCK_OFFSET_FILE: clock },
    (err) => {
      heard = err;
    },
  );
  await expect.poll(() => heard, patient).toMatch(/looked\s+for\s+again/);
  await writeFile(clock, String(2.5 * 3_600_000));
  const people = await watching;
  expect(people.code).toBe(4);
  expect(people.err).toMatch(/has not ended after 50 min 0 s, as far as is known; it is shown as it was 2\.\d h ago/);
  expect(people.out).toMatch(/^as it was 2\.\d h ago: the services have not answered since\nr-1\n/);
});
