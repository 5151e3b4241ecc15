// Runs in a process of its own: compiles the rules of a job with the package of a pack, and scans its inputs.
// One JSON value per line goes to the job's file; standard output belongs to what rules print.
import { appendFileSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const job = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const say = (value) => appendFileSync(job.out, `${JSON.stringify(value)}\n`);
const words = (error) => String(error?.message ?? error);

const folder = join(job.pack, 'pkg');
const { default: init, Compiler } = await import(pathToFileURL(join(folder, 'yara_x_js.js')).href);
await init({ module_or_path: readFileSync(join(folder, 'yara_x_js_bg.wasm')) });

const compile = () => {
  const compiler = new Compiler();
  compiler.addSource(readFileSync(job.rules, 'utf8'));
  if (job.apart !== null) {
    compiler.newNamespace('sigrel');
    compiler.addSource(job.apart);
  }
  return compiler.build(); // reading compiler.errors after this traps
};

let rules = null;
try {
  rules = compile();
} catch (error) {
  // A trap (also of memory) is the engine's end, and says nothing about a rule.
  if (error instanceof WebAssembly.RuntimeError || error instanceof RangeError) throw error;
  say({ refused: words(error) });
}
if (rules) {
  say({ compiled: true, count: null });
  for (const { name, path } of job.inputs) {
    const bytes = readFileSync(path);
    const started = performance.now();
    try {
      const result = rules.scan(bytes);
      const ms = Math.round(performance.now() - started);
      if (!result.valid) say({ input: name, failed: `no valid result: ${JSON.stringify(result.errors ?? '')}` });
      else {
        const public_ = result.matches.filter((match) => !match.isPrivate);
        say({ input: name, ms, matches: public_.map((match) => match.identifier ?? match.rule ?? match.name) });
      }
    } catch (error) {
      say({ input: name, failed: words(error) });
    }
  }
}
