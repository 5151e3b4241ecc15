import { defineConfig } from 'vitest/config';
import { patient } from './test/support/patience.ts';

/** What tests wait for without saying how long. */
const expect = { poll: patient };

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/unit/**/*.test.ts'],
          // Loading the same modules once for each file would take a third of the time.
          isolate: false,
          expect,
          // For what hangs, as below.
          testTimeout: 300_000,
        },
      },
      {
        test: {
          // Long series, and programs as processes of their own: for `npm test`, not for `npm run check`.
          name: 'slow',
          include: ['test/slow/**/*.test.ts'],
          expect,
          // For what hangs, as below.
          testTimeout: 300_000,
        },
      },
      {
        test: {
          name: 'services',
          include: ['test/services/**/*.test.ts'],
          globalSetup: ['test/services/servers.ts'],
          expect,
          // For what hangs: a slow machine takes minutes where a quick one takes seconds.
          testTimeout: 600_000,
          // Whoever needs engines first fetches them.
          hookTimeout: 900_000,
          fileParallelism: false,
        },
      },
    ],
  },
});
