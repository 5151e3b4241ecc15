import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/unit/**/*.test.ts'],
          // For what hangs, as below.
          testTimeout: 300_000,
        },
      },
      {
        test: {
          name: 'services',
          include: ['test/services/**/*.test.ts'],
          globalSetup: ['test/services/servers.ts'],
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
