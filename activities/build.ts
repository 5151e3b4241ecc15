/** Build: the stored source becomes one artefact per engine of the field, named by digest. The same bytes for the same input. */
import type { Family } from '../domain/content/family.ts';
import { findReusedIds, type Rule } from '../domain/content/rules.ts';
import { goodContent } from '../domain/director.ts';
import { fitRules, fitting } from '../domain/matrix/fit.ts';
import type { DirectorStore, EngineRunner } from '../domain/ports.ts';
import {
  type Artefact,
  artefactPath,
  type Content,
  type CoverageGap,
  type EngineBuild,
  engineId,
} from '../domain/release.ts';
import { canonicalJson } from '../events/canonical-json.ts';
import type { BuildActivities, WayBack } from './contract.ts';
import { type FleetPorts, fieldedEngines } from './fleet.ts';

export type BuildPorts = FleetPorts & {
  readonly director: DirectorStore;
  readonly engines: EngineRunner;
  readonly heartbeat: (details: unknown) => void;
  readonly cancelled: () => AbortSignal;
};

/** Findings beyond this number say nothing new, and an event is small. */
const findingsLimit = 50;
const wordsLimit = 120;
/** Of one coverage gap. */
const gapRules = 1_000;
/** Of all engines: the state of a release carries them, and what Temporal carries has a limit of 2 MB. */
const mostGaps = 5_000;
const heartbeatEveryMs = 2_000;

export const createBuildActivities = (ports: BuildPorts): BuildActivities => ({
  buildRelease: async ({ releaseId, family: name, sourceDigest }) => {
    const read = ports.openBundle(await ports.blobs.get(sourceDigest));
    if (!read.ok) return { ok: false, findings: read.findings.slice(0, findingsLimit) };
    const { family } = read;
    if (family.name !== name) {
      const message = `the content is of family "${family.name}", the release of "${name}"`;
      return { ok: false, findings: [{ code: 'family', message, file: 'family.yaml' }] };
    }
    const previous = goodContent((await ports.director.read(name)).document);
    const before = await rulesIn(ports, family, previous);
    const reused = findReusedIds(family.rules, before);
    if (reused.length > 0) return { ok: false, findings: reused.slice(0, findingsLimit) };
    const beat = setInterval(() => ports.heartbeat(name), heartbeatEveryMs);
    try {
      const { engines, devices, excluded } = await fieldedEngines(ports, family);
      const contentVersion = await ports.director.nextContentVersion(name, releaseId);
      const artefacts: Artefact[] = [];
      const waysBack: WayBack[] = [];
      const gaps: CoverageGap[] = [];
      let gapsInAll = 0;
      for (const engine of engines) {
        const id = engineId(engine);
        const fit = await fitting(ports.engines, engine, family, ports.cancelled());
        const bytes = family.language.artefact(fit.rules);
        const sha256 = await ports.blobs.put(bytes);
        artefacts.push({ engine: id, path: artefactPath(name, contentVersion, id), sha256, length: bytes.length });
        waysBack.push(await wayBack(ports, family, engine, previous, before));
        gapsInAll += fit.gaps.length;
        if (gapsInAll > mostGaps) return { ok: false, findings: [tooManyGaps(engine, fit.gaps.length)] };
        // Several events rather than one that is larger than a record may be.
        for (let at = 0; at < fit.gaps.length; at += gapRules) {
          const named = fit.gaps.slice(at, at + gapRules);
          const rules = named.map((gap) => ({ rule: gap.id, words: gap.words.slice(0, wordsLimit).toWellFormed() }));
          gaps.push({ engine: id, version: engine.version, rules, devices: devices[id] ?? 0 });
        }
      }
      const bundle = canonicalJson({ family: name, sourceDigest, contentVersion, artefacts });
      const bundleDigest = await ports.blobs.put(new TextEncoder().encode(bundle));
      const counts = { rules: family.rules.length, vectors: family.vectors.length };
      return {
        ok: true,
        bundle: { bundleDigest, ...counts, contentVersion, artefacts },
        ...{ gaps, excluded, waysBack },
      };
    } finally {
      clearInterval(beat);
    }
  },
});

const tooManyGaps = (engine: EngineBuild, count: number) => ({
  code: 'gaps',
  message: `${count} rules do not fit ${engine.name} ${engine.version}, more than ${mostGaps} on all engines: make a family for the engines that they fit`,
  file: 'family.yaml',
});

/** Every rule that content has for any engine. */
const rulesIn = async (ports: BuildPorts, family: Family, content: Content): Promise<readonly Rule[]> => {
  const digests = new Set(content.artefacts.map(({ sha256 }) => sha256));
  const known = new Map<Rule['ruleId'], Rule>();
  for (const digest of digests) {
    for (const rule of family.language.parseArtefact(await ports.blobs.get(digest)).rules) known.set(rule.ruleId, rule);
  }
  return [...known.values()];
};

/**
 * What an engine goes back to: its own artefact of the previous content. One that is new to the fleet takes what all others
 * have when they have the same and nothing is cut for this family, else what of all their rules fits it.
 */
const wayBack = async (
  ports: BuildPorts,
  family: Family,
  engine: EngineBuild,
  previous: Content,
  rules: readonly Rule[],
): Promise<WayBack> => {
  const id = engineId(engine);
  const same = new Set(previous.artefacts.map(({ sha256 }) => sha256)).size === 1;
  const common = same && family.misfit === 'block' ? previous.artefacts[0] : undefined;
  const found = previous.artefacts.find((artefact) => artefact.engine === id) ?? common;
  if (found) return { engine: id, sha256: found.sha256, length: found.length };
  const fit = await fitRules(ports.engines, engine, { ...family, rules }, ports.cancelled());
  const bytes = family.language.artefact(fit?.rules ?? rules);
  return { engine: id, sha256: await ports.blobs.put(bytes), length: bytes.length };
};
