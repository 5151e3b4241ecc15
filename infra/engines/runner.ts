import { identityOf } from '../../domain/matrix/plan.ts';
import type { EngineRunner } from '../../domain/ports.ts';
import { runClamav } from './clamav.ts';
import { defaultLimits, type Limits } from './isolated.ts';
import type { Pack } from './packs.ts';
import type { Adapter } from './run.ts';
import { runSuricata } from './suricata.ts';
import { runYara } from './yara.ts';
import { runYaraX } from './yara-x.ts';

/** By the name of the engine, as in packs.json. */
const adapters: Readonly<Record<string, Adapter>> = {
  suricata: runSuricata,
  yara: runYara,
  'yara-x': runYaraX,
  clamav: runClamav,
};

/** The engines that are here. A build is found by its identity: another build that prints the same version is not it. */
export const createEngineRunner = (packs: readonly Pack[], limits: Limits = defaultLimits): EngineRunner => {
  const byId = new Map(packs.map((pack) => [identityOf(pack.build), pack]));
  return {
    run: async (engine, input, signal) => {
      const pack = byId.get(identityOf(engine));
      const adapter = adapters[engine.name];
      return pack && adapter ? adapter(pack, input, { limits, signal }) : null;
    },
  };
};
