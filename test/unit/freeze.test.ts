import { beforeAll, describe, expect, test } from 'vitest';
import { bundleFreeze } from '../../services/freezer.ts';

describe('the bundle of the freeze', () => {
  let modules: readonly string[];
  beforeAll(async () => {
    const { code } = await bundleFreeze();
    modules = [...code.matchAll(/^\s*!\*\*\* (\S+) /gm)].map((match) => match[1] ?? '');
  }, 60_000);
  test('holds its workflow and ids, and nothing of a release', () => {
    const rooms = /^\.\/(workflows|domain|events|activities|infra|services|apps)\/.*\.ts$/;
    expect(modules.filter((name) => rooms.test(name)).sort()).toEqual(['./domain/ids.ts', './workflows/freeze.ts']);
  });
});
