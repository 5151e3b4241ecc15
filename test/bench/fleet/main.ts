/** The process of a scripted fleet: started by process.ts with its plan, ends when told to or when its parent has gone. */
import { runFleet } from './fleet.ts';
import type { Fault, FleetPlan, FromFleet, ToFleet } from './plan.ts';

const plan: FleetPlan = JSON.parse(process.argv[2] ?? 'null');
const stopping = new AbortController();
let fault: Fault = { kind: 'none' };
process.on('message', (message: ToFleet) => {
  if (message.kind === 'stop') stopping.abort();
  else fault = message.fault;
});
process.on('disconnect', () => process.exit(1));
// Ctrl-C reaches the whole group: the benchmark tells when to stop.
process.on('SIGINT', () => {});

const say = (message: FromFleet): void => {
  process.send?.(message);
};

await runFleet(plan, {
  fault: () => fault,
  signal: stopping.signal,
  enrolled: () => say({ kind: 'enrolled' }),
  second: (second) => say({ kind: 'second', ...second }),
});
process.exit();
