import { describe, expect, test } from 'vitest';
import { cellsFor, enginesOf, isPromised, unknownBuild } from '../../domain/matrix/plan.ts';
import { type EngineBuild, engineId } from '../../domain/release.ts';

const build = (name: string, version: string, digest = 'ab'): EngineBuild => ({
  ...{ name, version, packageVersion: `${version}-1`, digest: digest.repeat(32) },
});

describe('the cells of a matrix', () => {
  test('engines by name, older versions first; the same build once, another build of the same version beside it', () => {
    const all = [
      build('yara-x', '1.15.0'),
      build('yara-x', '1.5.0'),
      build('yara', '4.5.8'),
      build('yara', '4.5.8', 'cd'),
    ];
    expect(enginesOf([...all, ...all]).map(engineId)).toEqual([
      ...['yara-4.5.8-abababab', 'yara-4.5.8-cdcdcdcd', 'yara-x-1.5.0-abababab', 'yara-x-1.15.0-abababab'],
    ]);
    expect(enginesOf(all.toReversed())).toEqual(enginesOf(all));
  });

  test('a build whose digest only begins like that of another one is another engine, with cells of its own', () => {
    const real = build('suricata', '7.0.10');
    const forged = { ...real, digest: `${real.digest.slice(0, 8)}${'0'.repeat(56)}` };
    expect(enginesOf([real, forged, { ...real, packageVersion: '7.0.10-1+x' }])).toHaveLength(2);
    expect(cellsFor([real, forged], [{ name: 'ids', mode: 'ids' }], {}).map(({ cellId }) => cellId)).toEqual([
      `suricata-7.0.10-${forged.digest}/ids`,
      `suricata-7.0.10-${real.digest}/ids`,
    ]);
  });

  test('one per engine and configuration, with the devices of the engine; promised ones have none', () => {
    const [six, seven] = [build('suricata', '6.0.1'), build('suricata', '7.0.10')];
    const configurations = [
      { name: 'ids', mode: 'ids' },
      { name: 'plant', mode: 'ips', protocols: { modbus: true } },
    ] as const;
    expect(cellsFor([seven, six], configurations, { [engineId(six)]: 12 })).toEqual([
      { cellId: 'suricata-6.0.1-abababab/ids', engine: six, mode: 'ids', devices: 12 },
      { cellId: 'suricata-6.0.1-abababab/plant', engine: six, mode: 'ips', devices: 12, protocols: { modbus: true } },
      { cellId: 'suricata-7.0.10-abababab/ids', engine: seven, mode: 'ids', devices: 0 },
      { cellId: 'suricata-7.0.10-abababab/plant', engine: seven, mode: 'ips', devices: 0, protocols: { modbus: true } },
    ]);
  });

  test('a version is promised until its end; one that nobody has is an engine that no pack answers to', () => {
    const support = { engine: 'suricata@6.0.1', notice: '2026-05-01', endOfLife: '2026-11-01' };
    expect(isPromised(support, Date.parse('2026-10-31T23:59:59Z'))).toBe(true);
    expect(isPromised(support, Date.parse('2026-11-01T00:00:00Z'))).toBe(false);
    expect(isPromised({ engine: 'suricata@6.0.1' }, Date.parse('2099-01-01'))).toBe(true);
    expect(engineId(unknownBuild('suricata@5.0.2'))).toBe('suricata-5.0.2-00000000');
  });
});
