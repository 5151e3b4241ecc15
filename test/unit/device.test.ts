import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decideDevice } from '../../domain/device.ts';
import type { DirectorDocument } from '../../domain/director.ts';
import type { Content } from '../../domain/release.ts';

const content = (contentVersion: number, engines: readonly string[] = ['e']): Content => ({
  contentVersion,
  releaseId: `r${contentVersion}`,
  artefacts: engines.map((engine) => ({
    engine,
    path: `content/ips/${contentVersion}/${engine}.rules`,
    sha256: 'a'.repeat(64),
    length: 1,
  })),
});
const lease = { startedAt: 0, leaseMs: 60_000, freshMs: 10_000, clearedCells: [] };
const documentIn = (mode: DirectorDocument['mode'], threshold = 10): DirectorDocument => ({
  family: 'ips',
  directorVersion: 1,
  mode,
  steady: content(1),
  rollout:
    mode === 'steady' ? null : { content: content(2), salt: 's', stage: 0, thresholds: { seg: threshold }, lease },
  rollback: mode === 'rollback' ? content(3) : null,
});
const device = (contentVersion: number, rejected: readonly number[] = []) => ({
  ...{ deviceId: 'd', engine: 'e', segment: 'seg', contentVersion, rejected },
});
const inside = () => 5;
const outside = () => 15;

describe('what a device does', () => {
  test.each([
    ['rolling', 1, inside, { action: 'install', needsAcknowledgement: true, content: { contentVersion: 2 } }],
    ['rolling', 1, outside, { action: 'keep', why: 'holdout' }],
    ['rolling', 2, inside, { action: 'keep', why: 'up-to-date' }],
    ['frozen', 1, inside, { action: 'keep', why: 'frozen' }],
    ['frozen', 2, inside, { action: 'keep', why: 'frozen' }],
    ['rollback', 2, inside, { action: 'install', needsAcknowledgement: false, content: { contentVersion: 3 } }],
    ['rollback', 1, outside, { action: 'keep', why: 'holdout' }],
    ['steady', 1, inside, { action: 'keep', why: 'up-to-date' }],
  ] as const)('%s, running content %i', (mode, version, bucketOf, expected) => {
    expect(decideDevice(documentIn(mode), device(version), bucketOf)).toMatchObject(expected);
  });

  test('under a freeze nobody takes what rolls out; the way back and the steady content stay open', () => {
    const frozen = (mode: DirectorDocument['mode']) => ({ ...documentIn(mode), freezeId: 'freeze/ips#1' });
    expect(decideDevice(frozen('rolling'), device(1), inside)).toEqual({ action: 'keep', why: 'frozen' });
    expect(decideDevice(frozen('rolling'), device(1), outside)).toEqual({ action: 'keep', why: 'holdout' });
    expect(decideDevice(frozen('rolling'), device(0), inside)).toMatchObject({ content: { contentVersion: 1 } });
    expect(decideDevice(frozen('rollback'), device(2), inside)).toMatchObject({ content: { contentVersion: 3 } });
  });

  test('a device behind the steady content takes it without an acknowledgement, whatever rolls', () => {
    for (const mode of ['steady', 'frozen'] as const) {
      expect(decideDevice(documentIn(mode), device(0), outside)).toMatchObject({
        content: { contentVersion: 1 },
        needsAcknowledgement: false,
      });
    }
  });

  test('what was reverted is not tried again, what does not fit is not taken', () => {
    expect(decideDevice(documentIn('rolling'), device(1, [2]), inside)).toMatchObject({ action: 'keep' });
    expect(decideDevice(documentIn('rolling'), { ...device(1), engine: 'other' }, inside)).toEqual({
      action: 'keep',
      why: 'no-artefact',
    });
  });

  test('never to a lower version, never newly while frozen, and cohorts only grow', () => {
    fc.assert(
      fc.property(
        fc.constantFrom<DirectorDocument['mode']>('steady', 'rolling', 'frozen', 'rollback'),
        fc.nat(5),
        fc.nat(20),
        fc.nat(20),
        (mode, version, bucket, threshold) => {
          const decide = (limit: number) => decideDevice(documentIn(mode, limit), device(version), () => bucket);
          const decision = decide(threshold);
          if (decision.action === 'install') {
            expect(decision.content.contentVersion).toBeGreaterThan(version);
            if (mode === 'frozen') expect(decision.content.contentVersion).toBe(1);
          }
          const takes = (limit: number) => {
            const found = decide(limit);
            return found.action === 'install' && found.content.contentVersion === 2;
          };
          if (takes(threshold)) expect(takes(threshold + 1)).toBe(true);
        },
      ),
    );
  });
});
