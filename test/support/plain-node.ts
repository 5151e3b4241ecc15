/** Node as sigrel runs it, without a test runner: it takes types away by itself and sees CommonJS as it is. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';

export const checkout = join(import.meta.dirname, '..', '..');

/** The one that came with the dependencies, else the running one (infra/servers/bootstrap.mjs). */
const installed = join(checkout, 'node_modules', '.bin', 'node');

/** Starts a module given as text; `args` are its `process.argv` from 1 on. It does not outlive the test. */
export const startNode = (code: string, args: readonly string[] = []) => {
  const child = spawn(
    existsSync(installed) ? installed : process.execPath,
    ['--input-type=module', '-e', code, ...args],
    {
      cwd: checkout,
      stdio: ['pipe', 'pipe', 'pipe'],
    },
  );
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  const said = { out: '', error: '' };
  child.stdout.on('data', (chunk: Buffer) => {
    said.out += chunk.toString();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    said.error += chunk.toString();
  });
  const ended = new Promise<{ readonly code: number | null; readonly out: string; readonly error: string }>((resolve) =>
    child.on('close', (exitCode) => resolve({ code: exitCode, ...said })),
  );
  return { child, said, ended };
};
