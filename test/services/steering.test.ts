/** What people do and what they get wrong, through the command line itself. */
import { cp, mkdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { ReleaseEventType } from '../../events/catalogue.ts';
import { createFileBlobs } from '../../infra/store/blobs.ts';
import { createDirectorStore } from '../../infra/tuf/director-store.ts';
import { keysDirOf, storeDirOf } from '../../services/all.ts';
import type { ReleasesAnswer } from '../../services/api/contract.ts';
import { type Ran, runCli } from '../support/cli.ts';
import { examples, type Pipeline, quickPolicy, startPipeline, until } from '../support/pipeline.ts';

const good = join(examples, 'releases', 'good');
let pipeline: Pipeline;
let dir: string;

beforeAll(async () => {
  pipeline = await startPipeline({ namespace: 'steering', devices: 120 });
  dir = join(pipeline.config.stateDir, 'input');
  await mkdir(dir);
});
afterAll(async () => {
  await pipeline?.stop();
});

const sigrel = (...args: string[]): Promise<Ran> => runCli(args, pipeline.env);

const director = async () => {
  const folder = storeDirOf(pipeline.config.stateDir);
  const blobs = createFileBlobs(join(folder, 'blobs'));
  return createDirectorStore({ dir: folder, keysDir: keysDirOf(pipeline.config.stateDir), blobs, now: Date.now }).read(
    'ips',
  );
};
/** The stage is recorded first and granted then. */
const isRolling = (id: string) =>
  until(async () => {
    const { mode, rollout } = (await director()).document;
    return mode === 'rolling' && rollout?.content.releaseId === id;
  });
const releases = async () =>
  (await pipeline.api.get<ReleasesAnswer>('/releases')).releases.map(({ releaseId, seq }) => `${releaseId} ${seq}`);
/** Resolves when this has happened to the release, and the list shows all that has. */
const isShown = (id: string, type: ReleaseEventType) =>
  until(async () => {
    const { events } = await pipeline.stream(id);
    return events.some((event) => event.type === type) && (await releases()).includes(`${id} ${events.length}`);
  });
/** A refusal: this exit code, these words, and neither a release nor the director document has changed. */
const expectRefused = async (ran: () => Promise<Ran>, code: number, ...words: (string | RegExp)[]) => {
  const before = [await releases(), (await director()).document];
  const result = await ran();
  for (const word of words) expect(result.err).toMatch(word);
  expect(result.code).toBe(code);
  expect([await releases(), (await director()).document]).toEqual(before);
};

describe('steering', () => {
  // What a test that failed leaves under way would keep the family from the next one.
  afterEach(async () => {
    const open = await pipeline.api.get<ReleasesAnswer>('/releases?phase=open');
    for (const { releaseId } of open.releases) {
      for (const kind of ['halt', 'cancel']) {
        const request = { by: 'sam', reason: 'the test is over' };
        await pipeline.api.post(`/releases/${releaseId}/${kind}`, request).catch(() => {}); // one of them is refused
      }
      await pipeline.wait(releaseId);
    }
  });

  test('a release that waits for an approval gets it from somebody else only, and can be promoted', async () => {
    const id = await pipeline.release('good', 'approved', {
      approvals: 1,
      stages: quickPolicy.stages.map((stage) => ({ ...stage, minMs: stage.name === 'canary' ? '1h' : '1s' })),
    });
    await isShown(id, 'ApprovalRequested');
    await expectRefused(
      () => sigrel('release', 'approve', id, '--by', 'rita'),
      1,
      'SRP_RULE_FOUR_EYES',
      'somebody else',
    );
    await expectRefused(() => sigrel('release', 'halt', id, '--reason', 'x'), 1, 'SRP_RULE_PHASE', 'use cancel');
    const approved = await sigrel('release', 'approve', id, '--by', 'otto', '--note', 'looked at', '--json');
    expect(JSON.parse(approved.out)).toMatchObject({ releaseId: id });
    await isRolling(id);
    await isShown(id, 'StageOpened');
    await expectRefused(() => sigrel('release', 'approve', id, '--by', 'nina'), 1, 'does not wait for an approval');
    // The canary's minimum time is an hour: only a person can shorten it.
    const promoted = await sigrel('release', 'promote', id, '--reason', 'urgent', '--by', 'otto');
    expect(promoted).toMatchObject({ code: 0, out: expect.stringContaining('done') });
    const watched = await sigrel('release', 'get', '-w', '--timeout', '4m', id);
    expect(watched).toMatchObject({ code: 0, out: expect.stringContaining('completed') });
    const events = (await pipeline.stream(id)).events;
    expect(events.find((event) => event.type === 'StagePassed')?.data).toMatchObject({
      ...{ triggeredBy: 'person', by: 'otto', reason: 'urgent', reasonCode: 'person-promote' },
    });
  });

  test('pause freezes, resume goes on, halt rolls back', async () => {
    const slow = { stages: quickPolicy.stages.map((stage) => ({ ...stage, minMs: '1h' })) };
    const id = await pipeline.release('good', 'steered', slow);
    await isRolling(id);
    await isShown(id, 'StageOpened');
    const second = () => sigrel('release', 'start', good, '--id', 'second');
    await expectRefused(second, 1, 'SRP_RULE_FAMILY_BUSY', 'steered');
    await expectRefused(() => sigrel('release', 'cancel', id, '--reason', 'x'), 1, 'use halt');
    expect((await sigrel('release', 'pause', id, '--reason', 'lunch')).code).toBe(0);
    expect((await director()).document.mode).toBe('frozen');
    await isShown(id, 'ExposureFrozen');
    await expectRefused(() => sigrel('release', 'promote', id, '--reason', 'x'), 1, 'neither paused nor held');
    expect((await sigrel('release', 'resume', id, '--reason', 'fed')).code).toBe(0);
    await pipeline.wait(id, ({ phase }) => phase === 'rolling');
    expect((await sigrel('release', 'get', '-w', '--timeout', '1s', id)).code).toBe(4);
    const halted = await sigrel('release', 'halt', id, '--reason', 'customer reports', '--by', 'sam');
    expect(halted.code).toBe(0);
    expect(['frozen', 'rollback']).toContain((await director()).document.mode);
    const state = await pipeline.wait(id);
    expect(state.halt).toMatchObject({ by: 'sam', reason: 'customer reports', reasonCode: 'person-halt' });
    expect((await sigrel('release', 'status', id)).code).toBe(3);
    expect((await pipeline.stream(id)).findings).toEqual([]);
    await isShown(id, 'ReleaseHalted');
    await expectRefused(() => sigrel('release', 'resume', id, '--reason', 'x'), 1, 'SRP_RULE_ENDED');
  });

  test('cancel ends a release that nobody was offered', async () => {
    const id = await pipeline.release('good', 'cancelled', { approvals: 2 });
    await pipeline.wait(id, ({ phase }) => phase === 'approval');
    const before = (await director()).document;
    expect((await sigrel('release', 'cancel', id, '--reason', 'wrong ticket')).code).toBe(0);
    const state = await pipeline.wait(id);
    expect(state.phase).toBe('cancelled');
    expect((await director()).document).toEqual(before);
  });

  test('a second start with the same id starts nothing', async () => {
    await isShown('cancelled', 'ReleaseCancelled');
    await expectRefused(() => sigrel('release', 'start', good, '--id', 'cancelled'), 1, 'SRP_RULE_RELEASE_EXISTS');
  });
});

describe('looking', () => {
  test('every reading command answers people and programs', async () => {
    const get = await sigrel('release', 'get', 'steered');
    expect(get).toMatchObject({ code: 0, out: expect.stringContaining('by sam: customer reports') });
    expect(Math.max(...get.out.split('\n').map((line) => line.length))).toBeLessThanOrEqual(100);
    for (const args of [
      ['release', 'get', 'steered'],
      ['release', 'list', '--phase', 'ended'],
      ['matrix', 'show', 'steered'],
      ['fleet', 'status'],
      ['timeline', 'steered'],
      ['verify', 'steered'],
      ['evidence', 'steered'],
      ['judge', 'recompute', 'steered'],
      ['replay', 'steered', '--at', '5'],
      ['postmortem', 'steered'],
    ]) {
      const people = await sigrel(...args);
      expect([args, people.code, people.err.includes('SRP_')]).toEqual([args, 0, false]);
      // A postmortem is Markdown, whose paragraphs and tables are lines.
      const long = people.out.split('\n').filter((line) => line.length > 100 && args[0] !== 'postmortem');
      expect(long).toEqual([]);
      const programs = await sigrel(...args, '--json');
      expect(() => JSON.parse(programs.out)).not.toThrow();
    }
  });
  test('replay shows the state at a number and at a time', async () => {
    const { events } = await pipeline.stream('steered');
    const paused = events.find((event) => event.type === 'RolloutPaused');
    const at = await sigrel('replay', 'steered', '--at', String(paused?.seq), '--json');
    expect(JSON.parse(at.out)).toMatchObject({ phase: 'paused', seq: paused?.seq });
    const time = await sigrel('replay', 'steered', '--at', events[0]?.occurredAt ?? '', '--json');
    expect(JSON.parse(time.out).seq).toBeLessThan(events.length);
    expect(await sigrel('replay', 'steered', '--at', '999')).toMatchObject({ code: 1, err: /events 1 to/ });
    expect(await sigrel('replay', 'steered', '--at', 'noon')).toMatchObject({ code: 1, err: /SRP_INPUT_AT/ });
  });
  test('what is not there is named', async () => {
    for (const args of [
      ['release', 'get', 'no-such'],
      ['matrix', 'show', 'no-such'],
      ['timeline', 'no-such'],
      ['verify', 'no-such'],
      ['release', 'pause', 'no-such', '--reason', 'x'],
    ]) {
      expect(await sigrel(...args)).toMatchObject({
        code: 1,
        err: expect.stringMatching(/SRP_MISSING_RELEASE.*no-such/),
      });
    }
    expect(await sigrel('release', 'get', 'Not An Id')).toMatchObject({ code: 1, err: /SRP_INPUT/ });
    expect(await sigrel('release', 'list', '--phase', 'nap')).toMatchObject({ code: 1, err: /"nap" is no phase/ });
    expect(await sigrel('release', 'pause', 'x')).toMatchObject({ code: 2, err: /--reason/ });
    expect(await sigrel('nonsense')).toMatchObject({ code: 2, err: /unknown command/ });
  });
});

describe('content and policy that cannot be released', () => {
  const variant = async (name: string, change: (folder: string) => Promise<void>): Promise<string> => {
    const folder = join(dir, name);
    await cp(join(examples, 'families', 'ips'), folder, { recursive: true });
    await change(folder);
    return folder;
  };
  const start = (folder: string, ...more: string[]) => sigrel('release', 'start', folder, '--id', 'never', ...more);
  const rules = (folder: string) => join(folder, 'rules', 'http.rules');

  test('a folder that is not there, or empty', async () => {
    await expectRefused(() => start(join(dir, 'missing')), 1, 'SRP_INPUT_CONTENT', 'there is no folder');
    await mkdir(join(dir, 'empty'));
    await expectRefused(() => start(join(dir, 'empty')), 1, 'the content is empty');
  });
  test('a rule that is no rule', async () => {
    const folder = await variant('syntax', async (path) => {
      await writeFile(rules(path), 'alert http any any -> any any (msg:"no end"; sid:1; rev:1;\n');
    });
    await expectRefused(() => start(folder), 1, 'rules/http.rules:1');
  });
  test('two rules with one signature id', async () => {
    const folder = await variant('duplicate', async (path) => {
      const text = await readFile(rules(path), 'utf8');
      await writeFile(rules(path), `${text}${text.split('\n').find((line) => line.includes('sid:1000001'))}\n`);
    });
    await expectRefused(() => start(folder), 1, /rules\/http\.rules:\d+.*1000001/);
  });
  test('a file over the limit', async () => {
    const folder = await variant('large', async (path) => {
      await truncate(rules(path), 5 * 2 ** 20);
    });
    await expectRefused(() => start(folder), 1, 'rules/http.rules has 5242880 bytes, expected at most 4194304');
  });
  test('a family that was never initialised', async () => {
    const folder = await variant('unknown', async (path) => {
      const head = await readFile(join(path, 'family.yaml'), 'utf8');
      await writeFile(join(path, 'family.yaml'), head.replace('name: ips', 'name: other'));
    });
    await expectRefused(() => start(folder), 1, 'SRP_MISSING_FAMILY', 'there is no family "other"');
  });
  test('an engine that sigrel cannot run', async () => {
    const folder = await variant('engine', async (path) => {
      const head = await readFile(join(path, 'family.yaml'), 'utf8');
      await writeFile(join(path, 'family.yaml'), head.replace('engine: suricata', 'engine: snort'));
    });
    await expectRefused(() => start(folder), 1, 'family.yaml', 'snort');
  });
  test('a policy with an unknown field, a wrong value, or that is no YAML', async () => {
    const policy = async (text: string) => {
      const file = join(dir, 'policy.yaml');
      await writeFile(file, text);
      return () => start(good, '--policy', file);
    };
    await expectRefused(await policy('tickMs: 1s\nlaese: 6s\n'), 1, 'unknown field laese', 'leaseMs');
    await expectRefused(await policy('tickMs: soon\n'), 1, 'tickMs', '"soon" is no duration');
    await expectRefused(await policy('stages: [\n'), 1, 'policy.yaml', 'no valid YAML');
    await expectRefused(() => start(good, '--policy', join(dir, 'none.yaml')), 1, 'SRP_INPUT_POLICY', 'none.yaml');
  });
  test('another baseline for a family that is there', async () => {
    await expectRefused(() => sigrel('family', 'init', good), 1, 'SRP_RULE_FAMILY_EXISTS', 'sigrel release start');
  });
  test('an inventory that is malformed: a fleet file, and a report from the field', async () => {
    const file = join(dir, 'fleet.yaml');
    await writeFile(file, 'devices: many\nsegments: []\n');
    await expectRefused(() => sigrel('fleet', 'simulate', '--file', file), 1, 'SRP_INPUT_FLEET', 'devices');
    const devices = async () => (await pipeline.api.get<{ devices: number }>('/fleet')).devices;
    const before = await devices();
    const body = { kind: 'poll', engine: { name: '../../etc', version: '1' }, failMode: 'sometimes' };
    const response = await fetch(`${pipeline.services.urls.gateway}/v1/reports`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ reports: [{ deviceId: 'x', sequence: 1, body, mac: '0'.repeat(64) }] }),
    });
    expect(await response.json()).toMatchObject({ results: [{ status: 'rejected', reason: /engine|name/ }] });
    expect(await devices()).toBe(before);
    await rm(file);
  });
});
