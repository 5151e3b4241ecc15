// The walls between the rooms (README, "Map of the rooms"). `npm run check` fails when an import goes through one.
const rooms = ['domain', 'events', 'workflows', 'activities', 'infra', 'services', 'apps'];
const others = (...allowed) => `^(${rooms.filter((room) => !allowed.includes(room)).join('|')})/`;

export default {
  forbidden: [
    { name: 'no-cycles', severity: 'error', from: {}, to: { circular: true } },
    { name: 'unresolved', severity: 'error', from: {}, to: { couldNotResolve: true } },
    {
      name: 'domain-is-pure',
      comment:
        'domain/ imports nothing but itself and the types of events: no I/O, no third-party package, no Node module.',
      severity: 'error',
      from: { path: '^domain/' },
      to: { pathNot: '^(domain/|events/catalogue\\.ts$)' },
    },
    { name: 'events', severity: 'error', from: { path: '^events/' }, to: { path: others('events', 'domain') } },
    {
      name: 'catalogue-is-types-only',
      comment: 'The catalogue is bundled into workflows: it must stay free of zod and of Node modules.',
      severity: 'error',
      from: { path: '^events/catalogue\\.ts$' },
      to: { pathNot: '^domain/' },
    },
    {
      name: 'activity-contract-is-types-only',
      comment: 'Workflows import the activity contract: it must not pull anything into their bundle.',
      severity: 'error',
      from: { path: '^activities/contract\\.ts$' },
      to: { pathNot: '^(domain/|events/catalogue\\.ts$)' },
    },
    {
      name: 'workflows',
      comment: 'Workflows see domain, the event catalogue, the Temporal workflow package, and activity types only.',
      severity: 'error',
      from: { path: '^workflows/' },
      to: {
        pathNot:
          '^(workflows/|domain/|events/catalogue\\.ts$|activities/contract\\.ts$|node_modules/@temporalio/(workflow|common)/)',
      },
    },
    {
      name: 'activities',
      severity: 'error',
      from: { path: '^activities/' },
      to: { path: others('activities', 'domain', 'events') },
    },
    { name: 'infra', severity: 'error', from: { path: '^infra/' }, to: { path: others('infra', 'domain', 'events') } },
    { name: 'services-not-apps', severity: 'error', from: { path: '^services/' }, to: { path: '^apps/' } },
    {
      name: 'apps',
      comment:
        'Programs for people and devices talk to services through the api contract; only the cli knows their names, to start them.',
      severity: 'error',
      from: { path: '^apps/', pathNot: '^apps/cli/' },
      to: { path: others('apps', 'domain', 'events', 'infra'), pathNot: '^services/api/contract\\.ts$' },
    },
    {
      name: 'cli',
      severity: 'error',
      from: { path: '^apps/cli/' },
      to: { path: others('apps', 'domain', 'events', 'infra'), pathNot: '^services/(api/contract|names)\\.ts$' },
    },
    {
      name: 'product-not-test',
      severity: 'error',
      from: { path: `^(${rooms.join('|')})/` },
      to: { path: '^test/' },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true,
    parser: 'swc',
    enhancedResolveOptions: {
      extensions: ['.ts', '.mjs', '.js', '.json'],
      exportsFields: ['exports'],
      conditionNames: ['import', 'node', 'types', 'default'],
    },
  },
};
