/** The command line as a process of its own. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';

export const main = join(import.meta.dirname, '..', '..', 'apps', 'cli', 'main.ts');

export type Ran = { readonly code: number | null; readonly out: string; readonly err: string };

/** `env` comes on top of this process's; `heard` gets what was said to standard error so far. Messages are wrapped for people; in `err` they are on one line, for tests. */
export const runCli = (
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
  heard: (err: string) => void = () => {},
): Promise<Ran> =>
  new Promise((resolve) => {
    const child = spawn(process.execPath, [main, ...args], { env: { ...process.env, ...env } });
    let out = '';
    let err = '';
    child.stdout.on('data', (chunk) => {
      out += chunk;
    });
    child.stderr.on('data', (chunk) => {
      err += chunk;
      heard(err);
    });
    child.on('close', (code) => resolve({ code, out, err: err.replaceAll(/\s+/g, ' ') }));
  });
