/** What every command needs: configuration, the api, and an exit code that is not an error. */
import type { Config } from '../../infra/config.ts';
import { type Api, openApi, openConfig } from './context.ts';

export type Global = {
  readonly config: () => Config;
  readonly api: () => Api;
  /** The code the process ends with once the command is done: 3 not completed, 4 waited in vain. */
  readonly exitWith: (code: number) => void;
};

export const createGlobal = (stateDir: () => string | undefined): Global => ({
  config: () => openConfig(stateDir()),
  api: () => openApi(openConfig(stateDir())),
  exitWith: (code) => {
    process.exitCode = code;
  },
});
