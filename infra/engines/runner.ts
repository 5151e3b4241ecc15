import type { EngineRunner } from '../../domain/ports.ts';
import { engineId } from '../../domain/release.ts';
import type { Pack } from './packs.ts';
import { runSuricata } from './suricata.ts';

/** The engines that are here. A build is found by its identity: another build that prints the same version is not it. */
export const createEngineRunner = (packs: readonly Pack[]): EngineRunner => {
  const byId = new Map(packs.map((pack) => [engineId(pack.build), pack]));
  return {
    run: async (engine, input, signal) => {
      const pack = byId.get(engineId(engine));
      return pack ? runSuricata(pack, input, { signal }) : null;
    },
  };
};
