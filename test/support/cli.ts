/** The command line as a process of its own. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';

export const main = join(import.meta.dirname, '..', '..', 'apps', 'cli', 'main.ts');

export type Ran = { readonly code: number | null; readonly out: string; readonly err: string };

/** `env` comes on top of this process's. Messages are wrapped for people; in `err` they are on one line, for tests. */
export const runCli = (args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Ran> =>
  new Promise((resolve) => {
    const child = spawn(process.execPath, [main, ...args], { env: { ...process.env, ...env } });
    let out = '';
    let err = '';
    child.stdout.on('data', (chunk) => {
      out += chunk;
    });
    child.stderr.on('data', (chunk) => {
      err += chunk;
    });
    child.on('close', (code) => resolve({ code, out, err: err.replaceAll(/\s+/g, ' ') }));
  });
