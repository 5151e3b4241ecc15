/** What content does in the field, answered by the real engine: as if inline for traffic, as a scan for files. */
import { languageOf } from '../../domain/content/language.ts';
import { blockedIn } from '../../domain/matrix/gates.ts';
import type { EngineRunner } from '../../domain/ports.ts';
import { type EngineBuild, engineId } from '../../domain/release.ts';
import type { Trial } from './cycle.ts';

const wordsLimit = 400;

/** Loads the rules and lets the traffic (or a legitimate file) pass through them. Throws when there is no such engine here. */
export const tryContent = async (
  engines: EngineRunner,
  engine: EngineBuild,
  rules: Uint8Array,
  traffic: Uint8Array,
): Promise<Trial> => {
  const language = languageOf(engine.name);
  const expected = language.parseArtefact(rules).rules.length;
  const files = language.looksAt === 'files';
  const input = { rules, inputs: [{ name: 'traffic', bytes: traffic }], mode: files ? 'scan' : 'ips' } as const;
  const run = await engines.run(engine, input, new AbortController().signal);
  if (run === null) throw new Error(`there is no engine ${engineId(engine)} here`);
  if (run.kind === 'no-result') return { outcome: 'load-failure', words: run.words.slice(0, wordsLimit) };
  if (run.loaded !== expected) {
    const words = run.errors[0]?.words ?? `${run.loaded} of ${expected} rules were loaded`;
    return { outcome: 'load-failure', words: words.slice(0, wordsLimit) };
  }
  // What a scanner detects it quarantines.
  const hit = files ? run.alerts.map(({ ruleId }) => ruleId) : blockedIn(run).map(({ rule }) => rule);
  if (hit.length === 0) return { outcome: 'healthy' };
  const named = [...new Set(hit)].filter((rule) => rule !== null).join(', ');
  const who = named === '' ? 'the engine' : `rule ${named}`;
  const words = files ? `${who} condemned a legitimate file` : `${who} blocked legitimate traffic`;
  return { outcome: 'blocked-traffic', words };
};

/** Each (engine, content, profile) is asked once; the answer serves every device that is the same. */
export const createTrials = (
  engines: EngineRunner,
  profiles: ReadonlyMap<string, Uint8Array>,
): ((engine: EngineBuild, digest: string, rules: () => Promise<Uint8Array>, profile: string) => Promise<Trial>) => {
  const known = new Map<string, Promise<Trial>>();
  return (engine, digest, rules, profile) => {
    const name = `${engineId(engine)} ${digest} ${profile}`;
    const before = known.get(name);
    if (before) return before;
    const found = rules().then((bytes) =>
      tryContent(engines, engine, bytes, profiles.get(profile) ?? new Uint8Array()),
    );
    known.set(name, found);
    // A failed fetch is this device's failure, not the answer for the next one.
    found.catch(() => known.delete(name));
    return found;
  };
};
