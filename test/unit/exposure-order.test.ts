/** Activities that change exposure, on a real store: what comes late, twice or in the wrong order cannot raise it. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { createHaltActivities } from '../../activities/halt.ts';
import { createPublishActivities } from '../../activities/publish.ts';
import { createRolloutActivities } from '../../activities/rollout.ts';
import { goodContent } from '../../domain/director.ts';
import { defaultPolicy } from '../../domain/policy.ts';
import type { DirectorStore } from '../../domain/ports.ts';
import { type Content, engineId } from '../../domain/release.ts';
import type { JudgeStatus } from '../../domain/stage-rule.ts';
import type { ControlRecord } from '../../domain/telemetry.ts';
import { createMemoryInventory } from '../../infra/memory/inventory.ts';
import { createFileBlobs } from '../../infra/store/blobs.ts';
import { createDirectorStore } from '../../infra/tuf/director-store.ts';
import { judgeStatus, sampleVerdict } from '../support/streams.ts';

const engine = { name: 'suricata', version: '7.0.10', packageVersion: '1:7.0.10-1', digest: 'a'.repeat(64) };
const segment = `${engineId(engine)}/fail-open`;
const family = 'ips';

let root: string;
let number = 0;
let director: DirectorStore;
let blobs: ReturnType<typeof createFileBlobs>;
/** Kafka is away until this resolves. */
let telemetryIsBack: Promise<void>;
let controls: ControlRecord[];
/** Heartbeats of watches. */
let beats: number;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'sigrel-exposure-'));
});
afterAll(async () => {
  await rm(root, { recursive: true, force: true });
});
beforeEach(async () => {
  number += 1;
  clockOffset = 0;
  const dir = join(root, String(number));
  blobs = createFileBlobs(join(dir, 'blobs'));
  director = createDirectorStore({ dir, keysDir: join(root, 'keys'), blobs, now: workerNow });
  await director.initialiseFamily(family, [{ engine, bytes: new TextEncoder().encode('baseline') }]);
  telemetryIsBack = Promise.resolve();
  controls = [];
  beats = 0;
  status = () => freshStatus();
});

/** The judge's last window ends now, and nothing speaks against the release. */
let status: () => JudgeStatus | null;
const evidence = { judgeStatus: async () => status() };
const freshStatus = (changes: Partial<JudgeStatus> = {}): JudgeStatus =>
  judgeStatus({ lastWindowClosedAt: Date.now(), ...changes });

/** What the worker's clock is wrong by. */
let clockOffset: number;
const workerNow = () => Date.now() + clockOffset;

const halt = () => createHaltActivities({ director, evidence, now: workerNow });
const rollout = () =>
  createRolloutActivities({
    director,
    inventory: createMemoryInventory([]),
    evidence,
    watches: { note: async () => {}, lastSeen: async () => null },
    telemetry: {
      append: async () => {},
      control: async (record) => {
        await telemetryIsBack;
        controls.push(record);
      },
    },
    bucketOf: () => 0,
    now: workerNow,
    heartbeat: () => {
      beats += 1;
    },
    cancelled: () => new AbortController().signal,
  });

/** A signed release, as far as its first stage. */
const prepare = async (releaseId: string) => {
  const contentVersion = await director.nextContentVersion(family, releaseId);
  const bytes = new TextEncoder().encode(releaseId);
  const path = `content/${family}/${contentVersion}/${engineId(engine)}.rules`;
  const artefacts = [{ engine: engineId(engine), path, sha256: await blobs.put(bytes), length: bytes.length }];
  const { document: before } = await director.read(family);
  const publish = createPublishActivities({ director });
  const { release, rollback } = await publish.signRelease({
    ...{ releaseId, family, contentVersion, artefacts, bundleDigest: 'b'.repeat(64) },
    waysBack: goodContent(before).artefacts.map(({ engine: id, sha256, length }) => ({ engine: id, sha256, length })),
  });
  await publish.publishContent({ releaseId, family, release, rollback });
  const open = (stage: number, startedAt = 0) =>
    rollout().openStage({
      ...{ releaseId, family, stage, salt: 's', thresholds: { [segment]: (stage + 1) * 1_000 }, release },
      ...{ rollbackVersion: rollback.contentVersion, policy: defaultPolicy, startedAt, clearedCells: [] },
    });
  return { releaseId, release, rollback, open };
};
const document = async () => (await director.read(family)).document;
const freeze = (releaseId: string, stopId = `${releaseId}/1`) =>
  halt().freezeExposure({ releaseId, family, triggeredBy: 'person', reason: 'because', stopId });
const rollBack = (releaseId: string, rollback: Content) => halt().publishRollback({ releaseId, family, rollback });
const thaw = (releaseId: string, stopId = `${releaseId}/1`) =>
  halt().thawExposure({ releaseId, family, stopId, clearedCells: [] });
/** What an opening is refused with that waits for evidence. */
const stale = { refused: { kind: 'stale', why: expect.stringContaining('the last window') } };

describe('opening a stage', () => {
  test('telemetry knows of it before the director does, and a repetition changes nothing', async () => {
    const { open } = await prepare('r1');
    let telemetryComesBack = () => {};
    telemetryIsBack = new Promise((resolve) => {
      telemetryComesBack = resolve;
    });
    const opening = open(0);
    expect((await document()).mode).toBe('steady');
    telemetryComesBack();
    const { directorVersion } = await opening;
    expect(controls).toMatchObject([{ kind: 'stage-opened', stage: 0 }]);
    expect(await document()).toMatchObject({ mode: 'rolling', rollout: { stage: 0 } });
    expect(await open(0)).toEqual({ directorVersion });
  });

  test.each([
    ['an hour ahead', 3_600_000],
    ['an hour behind', -3_600_000],
  ])('a worker whose clock is %s grants nothing, not the first stage either', async (_, offset) => {
    const { open } = await prepare('r1');
    clockOffset = offset;
    expect(await open(0)).toMatchObject(stale);
    clockOffset = 0;
    await open(0);
    clockOffset = offset;
    expect(await open(1)).toMatchObject(stale);
    expect(await document()).toMatchObject({ mode: 'rolling', rollout: { stage: 0 } });
    // What takes exposure away asks no clock.
    await freeze('r1');
    expect(await document()).toMatchObject({ mode: 'frozen' });
  });

  test('an attempt that comes after a later stage was opened changes nothing', async () => {
    const { open } = await prepare('r1');
    await open(0);
    const { directorVersion } = await open(1);
    expect(await open(0)).toEqual({ directorVersion });
    expect((await document()).rollout?.thresholds).toEqual({ [segment]: 2_000 });
  });

  test('an attempt that comes after the freeze is refused, until the stop is lifted', async () => {
    const { open } = await prepare('r1');
    await open(0);
    await freeze('r1');
    await expect(open(1)).rejects.toMatchObject({ code: 'SRP_RULE_STOPPED' });
    expect(await document()).toMatchObject({ mode: 'frozen', rollout: { stage: 0 } });
    await thaw('r1');
    await open(1);
    expect(await document()).toMatchObject({ mode: 'rolling', rollout: { stage: 1 } });
  });

  test.each([true, false])(
    'an attempt that comes after the rollback is refused (opened before: %s)',
    async (opened) => {
      const { open, rollback } = await prepare('r1');
      if (opened) await open(0);
      await freeze('r1');
      await rollBack('r1', rollback);
      const before = await document();
      expect(before.mode).toBe('rollback');
      await expect(open(0)).rejects.toMatchObject({ code: 'SRP_RULE_ENDED' });
      await thaw('r1');
      expect(await document()).toEqual(before);
      // The next release is not stopped by the end of this one.
      const next = await prepare('r2');
      await next.open(0);
      expect(await document()).toMatchObject({ mode: 'rolling', steady: rollback, rollout: { content: next.release } });
      await expect(open(0)).rejects.toMatchObject({ code: 'SRP_RULE_ENDED' });
    },
  );

  test('an attempt that comes after the release completed is refused', async () => {
    const { open, release } = await prepare('r1');
    await open(0);
    await rollout().completeRollout({ releaseId: 'r1', family, release });
    const before = await document();
    expect(before).toMatchObject({ mode: 'steady', steady: release, rollout: null });
    await expect(open(0)).rejects.toMatchObject({ code: 'SRP_RULE_ENDED' });
    expect(await document()).toEqual(before);
  });

  test('a second release of the family is refused while the first one rolls out or is frozen', async () => {
    const first = await prepare('r1');
    await first.open(0);
    const second = await prepare('r2');
    await expect(second.open(0)).rejects.toMatchObject({ code: 'SRP_RULE_FAMILY_BUSY' });
    await freeze('r1');
    await expect(second.open(0)).rejects.toMatchObject({ code: 'SRP_RULE_FAMILY_BUSY' });
  });
});

describe('halting', () => {
  test('a release that came second, and was granted nothing, does not stop the first one', async () => {
    const first = await prepare('r1');
    await first.open(0);
    const second = await prepare('r2');
    const before = await director.read(family);
    await freeze('r2');
    await rollBack('r2', second.rollback);
    expect(await director.read(family)).toEqual(before);
    await first.open(1);
    // Nor does it lift the stop of the first one.
    await freeze('r1');
    await rollBack('r2', second.rollback);
    expect(await director.read(family)).toMatchObject({ stopped: true, document: { mode: 'frozen' } });
  });

  test('a release that was granted nothing yet, after another one was halted', async () => {
    const first = await prepare('r1');
    await first.open(0);
    await freeze('r1');
    await rollBack('r1', first.rollback);
    const second = await prepare('r2');
    await freeze('r2');
    await expect(second.open(0)).rejects.toMatchObject({ code: 'SRP_RULE_STOPPED' });
    await rollBack('r2', second.rollback);
    // Who still runs the first one's content gets its rollback; nobody gets anything of the second one.
    expect(await director.read(family)).toMatchObject({
      stopped: false,
      document: { mode: 'rollback', steady: first.rollback, rollout: null, rollback: second.rollback },
    });
    await expect(second.open(0)).rejects.toMatchObject({ code: 'SRP_RULE_ENDED' });
    const third = await prepare('r3');
    await third.open(0);
    expect(await document()).toMatchObject({ mode: 'rolling', steady: second.rollback });
  });

  test('a freeze that comes after the rollback leaves no stop behind', async () => {
    const first = await prepare('r1');
    await first.open(0);
    await freeze('r1');
    await rollBack('r1', first.rollback);
    const before = await director.read(family);
    await freeze('r1');
    expect(await director.read(family)).toEqual(before);
    expect(before.stopped).toBe(false);
  });

  test('twice gives the same document', async () => {
    const { open, rollback } = await prepare('r1');
    await open(0);
    const { directorVersion, frozenAt } = await freeze('r1');
    expect((await freeze('r1')).directorVersion).toBe(directorVersion);
    expect(frozenAt).toBeGreaterThan(0);
    expect(await rollBack('r1', rollback)).toEqual(await rollBack('r1', rollback));
  });
});

describe('evidence before exposure', () => {
  const held = { verdict: { ...sampleVerdict, kind: 'hold' }, clearedAt: null } as const;
  test('a stage waits for fresh evidence; the first one not before a window can be due', async () => {
    const { open } = await prepare('r1');
    status = () => null;
    // Who asked shows what the stage waits for.
    expect(await open(0)).toMatchObject(stale);
    expect((await document()).mode).toBe('steady');
    await open(0, Date.now());
    status = () => freshStatus({ lastWindowClosedAt: 0 });
    expect(await open(1)).toMatchObject(stale);
    expect((await document()).rollout?.stage).toBe(0);
    status = () => freshStatus();
    await open(1);
    expect((await document()).rollout?.stage).toBe(1);
  });
  test('a verdict against the release leaves everything as it is', async () => {
    const { open } = await prepare('r1');
    await open(0);
    const before = await director.read(family);
    for (const verdict of [{ holds: [held] }, { halt: sampleVerdict }]) {
      status = () => freshStatus(verdict);
      // Who asked must not take it for granted.
      expect(await open(1)).toMatchObject({ refused: { kind: 'verdict' } });
      expect(await director.read(family)).toEqual(before);
    }
  });
  test('telemetry hears of no later stage that is refused; of the first one always: with it evidence begins', async () => {
    const frozen = { freezeId: 'f', by: 'sam', reason: 'complaints', at: '2026-01-01T00:00:00.000Z', until: null };
    const { open } = await prepare('r1');
    await director.freeze(family, frozen);
    await open(0);
    expect(controls).toHaveLength(1);
    await director.thaw(family, 'f');
    await open(0);
    const told = controls.length;
    await director.freeze(family, frozen);
    await open(1);
    await director.thaw(family, 'f');
    status = () => freshStatus({ holds: [held] });
    await open(1);
    status = () => null;
    expect(await open(1)).toMatchObject(stale);
    expect(controls).toHaveLength(told);
    status = () => freshStatus();
    await open(1);
    expect(controls).toHaveLength(told + 1);
  });
  test('a pause ends on fresh evidence only, and not while the judge is against it', async () => {
    const { open } = await prepare('r1');
    await open(0);
    await freeze('r1');
    const frozen = await director.read(family);
    status = () => freshStatus({ lastWindowClosedAt: 0 });
    expect(await thaw('r1')).toMatchObject({ refused: { kind: 'stale' } });
    status = () => freshStatus({ holds: [held] });
    expect(await thaw('r1')).toMatchObject({ refused: { kind: 'verdict' } });
    expect(await director.read(family)).toEqual(frozen);
    status = () => freshStatus();
    expect(await thaw('r1')).not.toHaveProperty('refused');
    expect(await director.read(family)).toMatchObject({ stopped: false, document: { mode: 'rolling' } });
  });
  test.each([true, false])(
    'a thaw that comes late lifts no stop that came after its own (granted: %s)',
    async (granted) => {
      const { open } = await prepare('r1');
      if (granted) await open(0);
      await freeze('r1', 'r1/1');
      let evidenceIsBack = () => {};
      const away = new Promise<void>((resolve) => {
        evidenceIsBack = resolve;
      });
      const slow = createHaltActivities({
        ...{ director, now: workerNow },
        evidence: {
          judgeStatus: async () => {
            await away;
            return status();
          },
        },
      });
      const late = slow.thawExposure({ releaseId: 'r1', family, stopId: 'r1/1', clearedCells: [] });
      // Not granted: nobody is asked, so that the late attempt is one that begins late.
      if (!granted) await late;
      await freeze('r1', 'r1/2');
      evidenceIsBack();
      const attempt = granted ? late : thaw('r1', 'r1/1');
      expect(await attempt).toMatchObject({ refused: { kind: 'stopped' } });
      expect(await director.read(family)).toMatchObject({
        ...{ stopped: true, document: { mode: granted ? 'frozen' : 'steady' } },
      });
      expect(await thaw('r1', 'r1/2')).not.toHaveProperty('refused');
      expect((await director.read(family)).stopped).toBe(false);
      // An attempt whose answer was lost finds that it is done.
      expect(await thaw('r1', 'r1/2')).not.toHaveProperty('refused');
    },
  );
  test('a late attempt of an earlier stop takes no later one for its own, so that nothing of the earlier one lifts it', async () => {
    const { open } = await prepare('r1');
    await open(0);
    await freeze('r1', 'r1/9');
    await thaw('r1', 'r1/9');
    await freeze('r1', 'r1/10');
    await freeze('r1', 'r1/9');
    expect(await thaw('r1', 'r1/9')).toMatchObject({ refused: { kind: 'stopped' } });
    expect(await director.read(family)).toMatchObject({ stopped: true, document: { mode: 'frozen' } });
    expect(await thaw('r1', 'r1/10')).not.toHaveProperty('refused');
    // The stop of another release, which has numbers of its own, is another one.
    await freeze('r1', 'r1/20');
    await director.change(family, () => null, { expiresInMs: 1, stop: 'set', stopId: 'r2/3' });
    expect(await thaw('r1', 'r1/20')).toMatchObject({ refused: { kind: 'stopped' } });
  });
  test('a thaw of a release that has ended does not lift the stop of the next one', async () => {
    const first = await prepare('r1');
    await first.open(0);
    await freeze('r1');
    await rollBack('r1', first.rollback);
    await prepare('r2');
    await freeze('r2');
    expect(await thaw('r1')).toMatchObject({ refused: { kind: 'stopped' } });
    expect((await director.read(family)).stopped).toBe(true);
  });
  test('nothing completes against a verdict that came after the last look, nor without fresh evidence', async () => {
    const { open, release } = await prepare('r1');
    await open(0, Date.now());
    const before = await document();
    const complete = () => rollout().completeRollout({ releaseId: 'r1', family, release });
    for (const [kind, found] of [
      ['verdict', freshStatus({ halt: sampleVerdict })],
      ['verdict', freshStatus({ holds: [held] })],
      ['stale', freshStatus({ lastWindowClosedAt: Date.now() - 3_600_000 })],
      ['stale', null],
    ] as const) {
      const startedAt = kind === 'stale' && found !== null ? 3_600_000 : 0;
      clockOffset = startedAt; // the time in which no window can be due is over
      status = () => found;
      expect(await complete()).toMatchObject({ refused: { kind } });
      clockOffset = 0;
      expect(await document()).toEqual(before);
    }
    status = () => freshStatus();
    expect(await complete()).not.toHaveProperty('refused');
    expect(await document()).toMatchObject({ mode: 'steady', steady: release });
    // An attempt whose answer was lost finds that it is done, whatever came since.
    status = () => freshStatus({ halt: sampleVerdict });
    expect(await complete()).not.toHaveProperty('refused');
  });
  test('a release that was frozen or halted meanwhile is not completed', async () => {
    const { open, release, rollback } = await prepare('r1');
    await open(0);
    await freeze('r1');
    const complete = () => rollout().completeRollout({ releaseId: 'r1', family, release });
    await expect(complete()).rejects.toMatchObject({ code: 'SRP_RULE_STOPPED' });
    await rollBack('r1', rollback);
    await expect(complete()).rejects.toMatchObject({ code: 'SRP_RULE_STOPPED' });
    expect((await document()).steady.contentVersion).toBe(1);
  });
});

describe('a frozen family', () => {
  const frozen = { freezeId: 'f', by: 'sam', reason: 'complaints', at: '2026-01-01T00:00:00.000Z', until: null };
  const policy = { ...defaultPolicy, tickMs: 1_000 };
  const watch = (releaseId: string, held: boolean) =>
    rollout().watchStage({
      ...{ releaseId, family, stage: 0, policy, openedAt: Date.now(), promote: false, clearedCells: [] },
      heldFor: held ? { reason: 'frozen', cells: [] } : null,
    });

  test('grants no stage and completes nothing, says by whom it is frozen, and fails nothing', async () => {
    const { open, release } = await prepare('r1');
    await director.freeze(family, frozen);
    expect(await open(0)).toMatchObject({ refused: { kind: 'frozen', why: expect.stringContaining('frozen by sam') } });
    expect((await document()).mode).toBe('steady');
    await director.thaw(family, 'f');
    expect(await open(0)).not.toHaveProperty('refused');
    await director.freeze(family, frozen);
    const before = await document();
    const refused = { refused: { kind: 'frozen' } };
    expect(await rollout().completeRollout({ releaseId: 'r1', family, release })).toMatchObject(refused);
    expect(await open(1)).toMatchObject(refused);
    expect(await document()).toEqual(before);
    // A pause may begin under it and may not end under it.
    await freeze('r1');
    expect(await thaw('r1')).toMatchObject(refused);
    expect(await director.read(family)).toMatchObject({ stopped: true, document: { mode: 'frozen', freezeId: 'f' } });
  });

  test('halts and rolls back as ever, and the freeze outlives it', async () => {
    const { open, rollback } = await prepare('r1');
    await open(0);
    await director.freeze(family, frozen);
    await freeze('r1');
    await rollBack('r1', rollback);
    expect(await director.read(family)).toMatchObject({
      ...{ stopped: false, freeze: { freezeId: 'f' } },
      document: { mode: 'rollback', rollback, freezeId: 'f' },
    });
    const next = await prepare('r2');
    expect(await next.open(0)).toMatchObject({ refused: { kind: 'frozen' } });
  });

  test('holds the stage until the freeze is lifted and evidence is fresh; a HALT is heard under it', async () => {
    const { open } = await prepare('r1');
    await open(0);
    await director.freeze(family, frozen);
    expect(await watch('r1', false)).toMatchObject({
      ...{ outcome: 'held', reason: 'frozen' },
      evidence: {
        waitingFor: expect.arrayContaining([{ code: 'frozen', message: expect.stringContaining('frozen by sam') }]),
      },
    });
    let over = false;
    const waiting = watch('r1', true).finally(() => {
      over = true;
    });
    await expect.poll(() => beats).toBeGreaterThan(1);
    expect(over).toBe(false);
    // Nor is it lifted for a watch that cannot read the store as it begins.
    const { read } = director;
    let unread = 2;
    director = {
      ...director,
      read: async (name) => {
        unread -= 1;
        if (unread >= 0) throw new Error('the store is away');
        return read(name);
      },
    };
    const blind = watch('r1', true).finally(() => {
      over = true;
    });
    await expect.poll(() => unread).toBeLessThan(0);
    expect(over).toBe(false);
    await director.thaw(family, 'f');
    expect(await blind).toMatchObject({ outcome: 'released' });
    expect(await waiting).toMatchObject({ outcome: 'released' });
    await director.freeze(family, frozen);
    status = () => freshStatus({ halt: sampleVerdict });
    expect(await watch('r1', true)).toMatchObject({ outcome: 'regression' });
  });
});
