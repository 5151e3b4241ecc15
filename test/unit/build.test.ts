/** A build gives the same bytes, whoever builds and in whatever order a folder is read; and only for whom it should. */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type BuildPorts, createBuildActivities } from '../../activities/build.ts';
import type { SourceFile } from '../../domain/content/family.ts';
import type { DirectorDocument } from '../../domain/director.ts';
import type { EngineRun, EnrolledDevice } from '../../domain/ports.ts';
import { type EngineBuild, engineId, type Waiver } from '../../domain/release.ts';
import { decodeBundle, encodeBundle } from '../../infra/content/bundle.ts';
import { loadFamily, parseFamily } from '../../infra/content/load-family.ts';
import { createMemoryInventory } from '../../infra/memory/inventory.ts';
import { directorThat, standing } from '../support/directors.ts';
import { seeded, seedOfRun, shuffled } from '../support/random.ts';

const examples = join(import.meta.dirname, '..', '..', 'examples');
const engine = (name: string, version: string): EngineBuild => ({
  ...{ name, version, packageVersion: `${version}-1` },
  digest: createHash('sha256').update(`${name} ${version}`).digest('hex'),
});
const device = (deviceId: string, build: EngineBuild): EnrolledDevice => ({
  ...{ deviceId, engine: build, failMode: 'fail-open', contentVersion: 1 },
});
const six = engine('suricata', '6.0.1');
const seven = engine('suricata', '7.0.10');

const today = Date.parse('2026-11-26');

/** A worker of its own: blobs, and an engine that loads every rule but those that it is told to lose. */
const worker = (options: {
  readonly devices: readonly EnrolledDevice[];
  readonly waivers?: readonly Waiver[];
  readonly lost?: (build: EngineBuild) => readonly string[];
  readonly now?: number;
  /** The content of an earlier release, and when it had completed. */
  readonly released?: readonly SourceFile[];
  readonly releasedSince?: string;
  /** The last one now, where it is another. */
  readonly releasedLast?: readonly SourceFile[];
  /** Steady content: rules by engine id. */
  readonly steady?: Readonly<Record<string, string>>;
}) => {
  const blobs = new Map<string, Uint8Array>();
  const put = async (bytes: Uint8Array) => {
    const digest = createHash('sha256').update(bytes).digest('hex');
    blobs.set(digest, bytes);
    return digest;
  };
  const run = async (build: EngineBuild, input: { rules: Uint8Array }): Promise<EngineRun> => {
    const rules = new TextDecoder().decode(input.rules).trim().split('\n');
    const lost = new Set(options.lost?.(build));
    const bad = rules.flatMap((rule) => /sid:(\d+);/.exec(rule)?.[1] ?? []).filter((id) => lost.has(id));
    return {
      ...{ kind: 'completed', loaded: rules.length - bad.length, failed: bad.length, skipped: 0, alerts: [] },
      ...{ errors: bad.map((id) => ({ ruleId: Number(id), words: 'no' })), wallMs: 1, peakBytes: null },
    };
  };
  const artefacts = Object.entries(options.steady ?? {}).map(([id, text]) => {
    const bytes = new TextEncoder().encode(text);
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    blobs.set(sha256, bytes);
    return { engine: id, path: `content/ips/1/${id}.rules`, sha256, length: bytes.length };
  });
  const document: DirectorDocument = {
    ...{ family: 'ips', directorVersion: 1, mode: 'steady', rollout: null, rollback: null },
    steady: { contentVersion: 1, releaseId: 'baseline', artefacts },
  };
  const ports: BuildPorts = {
    blobs: { put, get: async (digest: string) => blobs.get(digest) ?? new Uint8Array() },
    openBundle: (bytes: Uint8Array) => parseFamily(decodeBundle(bytes)),
    inventory: createMemoryInventory(options.devices),
    catalogue: {
      find: async (name: string) => [six, seven].find((one) => `${one.name}@${one.version}` === name) ?? null,
    },
    waivers: { list: async () => options.waivers ?? [] },
    history: {
      firstUses: async () => [],
      sourceAt: async (_family: string, time: number) =>
        options.released && Date.parse(options.releasedSince ?? '') <= time
          ? await put(
              encodeBundle(
                time === (options.now ?? today) ? (options.releasedLast ?? options.released) : options.released,
              ),
            )
          : null,
    },
    engines: { run },
    director: directorThat({ nextContentVersion: async () => 2, read: async () => standing(document) }),
    now: () => options.now ?? today,
    heartbeat: () => {},
    cancelled: () => new AbortController().signal,
  };
  const build = async (files: readonly SourceFile[]) => {
    const sourceDigest = await put(encodeBundle(files));
    const built = await createBuildActivities(ports).buildRelease({ releaseId: 'r-1', family: 'ips', sourceDigest });
    if (!built.ok) throw new Error(JSON.stringify(built.findings));
    return built;
  };
  return { build, blobs };
};

const filesOf = async (folder: string, changes: Readonly<Record<string, string>> = {}): Promise<SourceFile[]> => {
  const loaded = await loadFamily(join(examples, folder));
  if (!loaded.ok) throw new Error(JSON.stringify(loaded.findings));
  const changed = Object.entries(changes).map(([path, text]) => ({ path, bytes: new TextEncoder().encode(text) }));
  return [...loaded.files.filter(({ path }) => changes[path] === undefined), ...changed];
};
const cut = { 'family.yaml': 'name: ips\nengine: suricata\nmodes: [ids]\nmisfit: cut\n' };
const fleet = [device('a', six), device('b', six), device('c', seven), device('d', engine('yara-x', '1.20.0'))];
const lost = (build: EngineBuild) => (build.version === '6.0.1' ? ['1000001', '1000007'] : []);

describe('a build', () => {
  test(`gives the same bytes twice, on another worker, and from files in another order (seed ${seedOfRun})`, async () => {
    const files = await filesOf('families/ips', cut);
    const builds = [];
    for (const list of [files, files, files.toReversed(), shuffled(seeded(seedOfRun), files)]) {
      builds.push(await worker({ devices: fleet, lost }).build(list));
    }
    const devices = fleet.toReversed();
    builds.push(await worker({ devices, lost }).build(files));
    for (const built of builds) expect(built).toEqual(builds[0]);
  });

  test('cuts for each engine what it does not load, and names it with its devices; engines of other languages get nothing', async () => {
    const { build, blobs } = worker({ devices: fleet, lost });
    const { bundle, gaps } = await build(await filesOf('families/ips', cut));
    const ids = [...new Set(bundle.artefacts.map(({ engine: id }) => id))];
    expect(ids).toContain(engineId(six));
    expect(ids.some((id) => id.startsWith('yara'))).toBe(false);
    expect(gaps).toMatchObject([{ engine: engineId(six), version: '6.0.1', devices: 2 }]);
    expect(gaps[0]?.rules.map(({ rule }) => rule)).toEqual([1000001, 1000007]);
    const textOf = (id: string) => {
      const digest = bundle.artefacts.find((one) => one.engine === id)?.sha256 ?? '';
      return new TextDecoder().decode(blobs.get(digest));
    };
    expect(textOf(engineId(six))).not.toMatch(/sid:(1000001|1000007);/);
    expect(textOf(engineId(seven))).toMatch(/sid:1000001;/);
  });

  test('with block every engine gets the same, whatever it loads: the matrix says so', async () => {
    const { bundle, gaps } = await worker({ devices: fleet, lost }).build(await filesOf('families/ips'));
    expect(gaps).toEqual([]);
    expect(new Set(bundle.artefacts.map(({ sha256 }) => sha256)).size).toBe(1);
  });

  test('an engine goes back to what it has; one that is new to the fleet to what of that fits it', async () => {
    const text = (...sids: number[]) =>
      sids.map((sid) => `alert tcp any any -> any any (msg:"m"; sid:${sid}; rev:1;)\n`).join('');
    const eight = engine('suricata', '8.0.8');
    const devices = [...fleet, device('e', eight)];
    const misfits = (build: EngineBuild) => (build.version === '8.0.8' ? ['5'] : []);
    const backOf = async (steady: Readonly<Record<string, string>>, changes: Readonly<Record<string, string>> = {}) => {
      const { build, blobs } = worker({ devices, lost: misfits, steady });
      const { waysBack } = await build(await filesOf('families/ips', changes));
      const found = waysBack.find(({ engine: id }) => id === engineId(eight));
      return new TextDecoder().decode(blobs.get(found?.sha256 ?? ''));
    };
    expect(await backOf({ [engineId(eight)]: text(4), [engineId(six)]: text(5) })).toBe(text(4));
    expect(await backOf({ [engineId(six)]: text(5, 6), [engineId(seven)]: text(5, 6) })).toBe(text(5, 6));
    // Content that was cut for others is cut for the new one as well.
    expect(await backOf({ [engineId(six)]: text(6), [engineId(seven)]: text(5, 6) })).toBe(text(6));
    expect(await backOf({ [engineId(six)]: text(5, 6), [engineId(seven)]: text(5, 6) }, cut)).toBe(text(6));
  });

  const waiver: Waiver = {
    ...{ waiverId: 'w', family: 'ips', kind: 'exclude', target: engineId(six), sourceDigest: null },
    ...{ reason: 'lab', expiresAt: '2026-12-31', by: ['ann', 'bob'] },
  };

  test('more rules that do not fit than a release can carry are a finding', async () => {
    const many = Array.from(
      { length: 10_050 },
      (_, n) => `alert tcp any any -> any any (msg:"m"; sid:${n + 1}; rev:1;)`,
    );
    const rules = { 'rules/many.rules': `${many.join('\n')}\n` };
    const family = 'name: ips\nengine: suricata\nmodes: [ids]\nmisfit: cut\nvectors: optional\n';
    const files = await filesOf('families/ips', { ...rules, 'family.yaml': family });
    const { build } = worker({
      devices: fleet,
      lost: (one) => (one.version === '6.0.1' ? many.slice(0, 5_010).map((_, n) => String(n + 1)) : []),
    });
    await expect(build(files)).rejects.toThrow(/5010 rules do not fit suricata 6\.0\.1, more than 5000/);
  });

  test('an engine that two people excluded, or whose end has come, gets nothing; others do', async () => {
    const files = await filesOf('families/ips');
    const engines = async (options: Partial<Parameters<typeof worker>[0]>, list = files) => {
      const { bundle, excluded } = await worker({ devices: fleet, ...options }).build(list);
      const has = bundle.artefacts.some(({ engine: id }) => id === engineId(six));
      return { has, excluded: excluded.map(({ engine: id, devices }) => [id, devices]) };
    };
    expect(await engines({ waivers: [waiver] })).toEqual({ has: false, excluded: [[engineId(six), 2]] });
    expect(await engines({ waivers: [{ ...waiver, by: ['ann'] }] })).toEqual({ has: true, excluded: [] });
    expect(await engines({ waivers: [{ ...waiver, expiresAt: '2026-11-25' }] })).toEqual({ has: true, excluded: [] });
    const support =
      '- { engine: suricata@6.0.1, notice: 2026-05-01, endOfLife: 2026-11-01 }\n- { engine: suricata@7.0.10 }\n';
    const ended = await filesOf('families/ips', { 'support.yaml': support });
    const told = { releasedSince: '2026-06-01', released: ended };
    expect(await engines(told, ended)).toEqual({ has: false, excluded: [[engineId(six), 2]] });
    expect(await engines({ ...told, now: Date.parse('2026-10-31') }, ended)).toEqual({ has: true, excluded: [] });
    // Nobody takes an engine out of a release by what that release alone says.
    const kept = { has: true, excluded: [] };
    expect(await engines({}, ended)).toEqual(kept);
    expect(await engines({ releasedSince: '2026-06-01', released: files }, ended)).toEqual(kept);
    expect(await engines({ releasedSince: '2026-10-20', released: ended }, ended)).toEqual(kept);
    const later = await filesOf('families/ips', { 'support.yaml': support.replace('2026-11-01', '2026-12-01') });
    expect(await engines({ releasedSince: '2026-06-01', released: later }, ended)).toEqual(kept);
    // An end that was withdrawn since is none: to name it again is another announcement.
    const withdrawn = { ...told, releasedLast: files };
    expect(await engines(withdrawn, ended)).toEqual(kept);
  });
});
