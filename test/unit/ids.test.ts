import { expect, test } from 'vitest';
import { releaseWorkflowId } from '../../domain/ids.ts';

test('the workflow id of a release is derived from its id alone', () => {
  expect(releaseWorkflowId('ips-2')).toBe('release/ips-2');
});
