import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect, test } from 'vitest';
import { checkout, startNode } from '../support/plain-node.ts';

const rooms = ['domain', 'events', 'activities', 'infra', 'services', 'apps'];
/** Programs: they run when they are imported. */
const programs = [join('apps', 'cli', 'main.ts'), join('services', 'main.ts')];

// A test runner resolves names of CommonJS packages (kafkajs) in its own way; a wrong one only shows in Node itself.
test('plain Node can import every module, and none of them keeps it running', async () => {
  const modules = rooms
    .flatMap((room) =>
      readdirSync(join(checkout, room), { recursive: true, encoding: 'utf8' }).map((name) => join(room, name)),
    )
    .filter((path) => path.endsWith('.ts') && !programs.includes(path));
  expect(modules.length).toBeGreaterThan(80);
  const importAll = `
    const broken = [];
    for (const path of process.argv.slice(1)) {
      await import(path).catch((error) => broken.push(path + ': ' + error.message));
    }
    console.log(JSON.stringify(broken));`;
  const { ended } = startNode(
    importAll,
    modules.map((path) => pathToFileURL(join(checkout, path)).href),
  );
  const { code, out, error } = await ended;
  expect({ code, broken: JSON.parse(out), error }).toEqual({ code: 0, broken: [], error: '' });
});
