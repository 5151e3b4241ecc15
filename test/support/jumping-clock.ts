/**
 * Preloaded into a process of a service (`node --import`): shifts what `Date` says by the milliseconds in the file that
 * CLOCK_OFFSET_FILE names, as when somebody sets the clock of that machine. Monotonic time goes on as it does on such a machine.
 */
import { readFileSync, writeFileSync } from 'node:fs';

const file = process.env.CLOCK_OFFSET_FILE ?? '';
const Real = Date;
let offset = 0;

const now = (): number => Real.now() + offset;

globalThis.Date = new Proxy(Real, {
  construct: (target, given, self) => Reflect.construct(target, given.length === 0 ? [now()] : given, self),
  apply: () => new Real(now()).toString(),
  get: (target, name, self) => (name === 'now' ? now : Reflect.get(target, name, self)),
});

/** The file's own end of the handshake: what was taken over stands beside it. */
const look = (): void => {
  const wanted = Number(readFileSync(file, 'utf8'));
  if (wanted === offset) return;
  offset = wanted;
  writeFileSync(`${file}.taken`, String(offset));
};
look();
setInterval(look, 20).unref();
