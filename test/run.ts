// `npm test`: runs every test and ends with one plain line for people and for CI, taken from the runner's own report.
import { startVitest } from 'vitest/node';

const vitest = await startVitest('test', process.argv.slice(2), { watch: false, reporters: ['default'] });
const tests = vitest.state.getTestModules().flatMap((module) => [...module.children.allTests()]);
const count = (state: string) => tests.filter((test) => test.result().state === state).length;
const brokenModules = vitest.state.getTestModules().filter((module) => module.errors().length > 0).length;
const errors = vitest.state.getUnhandledErrors().length;
await vitest.close();
const failed = count('failed') + brokenModules + errors;
if (count('skipped') > 0) process.stdout.write(`${count('skipped')} skipped: their lines above say what they need\n`);
process.stdout.write(`${count('passed')} passed, ${failed} failed\n`);
process.exit(failed > 0 || count('passed') === 0 ? 1 : 0);
