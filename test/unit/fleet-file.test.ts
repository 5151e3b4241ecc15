import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readFleetFile } from '../../apps/simulator/fleet-file.ts';
import { SigrelError } from '../../domain/errors.ts';

let dir = '';
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'sigrel-fleet-'));
  writeFileSync(join(dir, 'office.pcap'), 'traffic');
});
afterAll(() => rmSync(dir, { recursive: true }));

const segments = 'segments: [{ engine: 7.0.10, failMode: fail-open, share: 1 }]';
const profiles = 'profiles: [{ name: office, share: 1 }]';
const whole = ['devices: 10', segments, 'traffic: .', profiles];
/** The whole file with the line of one field changed. */
const withLine = (line: string): string =>
  [...whole.filter((one) => one.split(':')[0] !== line.split(':')[0]), line].join('\n');
const write = (text: string): string => {
  const path = join(dir, 'fleet.yaml');
  writeFileSync(path, text);
  return path;
};
const refusal = async (path: string): Promise<string> => {
  const error = await readFleetFile(path).then(
    () => null,
    (reason: unknown) => reason,
  );
  if (!(error instanceof SigrelError)) throw new Error(`not refused as expected: ${error}`);
  expect(error.code).toBe('SRP_INPUT_FLEET');
  expect(error.message.startsWith(`${path}: `)).toBe(true);
  return error.message.slice(path.length + 2);
};

test('the example is a fleet, with the traffic of its profiles', async () => {
  const fleet = await readFleetFile(join(import.meta.dirname, '..', '..', 'examples', 'demo', 'fleet.yaml'));
  expect(fleet.devices).toBe(3000);
  expect(fleet.segments).toHaveLength(6);
  expect([...fleet.captures.keys()]).toEqual(['office', 'plant']);
  for (const capture of fleet.captures.values()) expect(capture.length).toBeGreaterThan(1_000);
});

test('a small file is read; captures are looked for from the file', async () => {
  const fleet = await readFleetFile(write(whole.join('\n')));
  expect(fleet).toMatchObject({ devices: 10, segments: [{ engine: '7.0.10', failMode: 'fail-open', share: 1 }] });
  expect(Buffer.from(fleet.captures.get('office') ?? []).toString()).toBe('traffic');
});

test('shares that do not add up exactly in binary are accepted', async () => {
  const thirds = ['0.1', '0.2', '0.7'].map((share) => `{ engine: e${share}, failMode: fail-open, share: ${share} }`);
  expect((await readFleetFile(write(withLine(`segments: [${thirds.join(', ')}]`)))).segments).toHaveLength(3);
});

describe('refused, naming the file, the field and what was expected', () => {
  test.each([
    ['devices: many', 'devices', 'expected number, received string'],
    ['devices: 0', 'devices', 'expected number to be >=1'],
    ['devices: 2.5', 'devices', 'expected int'],
    ['devices: 100001', 'devices', 'expected number to be <=100000'],
    ['segments: []', 'segments', 'expected array to have >=1 items'],
    ['segments: one', 'segments', 'expected array, received string'],
    [
      'segments: [{ engine: 7, failMode: fail-open, share: 1 }]',
      'segments.0.engine',
      'expected string, received number',
    ],
    ['segments: [{ engine: "", failMode: fail-open, share: 1 }]', 'segments.0.engine', '>=1 characters'],
    ['segments: [{ engine: a, failMode: open, share: 1 }]', 'segments.0.failMode', '"fail-open"|"fail-closed"'],
    ['segments: [{ engine: a, failMode: fail-open }]', 'segments.0.share', 'expected number'],
    ['segments: [{ engine: a, failMode: fail-open, share: 0 }]', 'segments.0.share', 'expected number to be >0'],
    ['segments: [{ engine: a, failMode: fail-open, share: 1.1 }]', 'segments.0.share', 'expected number to be <=1'],
    ['segments: [{ engine: a, failMode: fail-open, share: 0.9 }]', 'segments', 'shares add up to 0.9, expected 1'],
    [
      'segments: [{ engine: a, failMode: fail-open, share: 1, mode: ids }]',
      'segments.0',
      '"mode"; expected engine, failMode, share',
    ],
    ['traffic: 1', 'traffic', 'expected string, received number'],
    ['traffic: ""', 'traffic', 'expected string to have >=1 characters'],
    ['profiles: []', 'profiles', 'expected array to have >=1 items'],
    ['profiles: [{ name: ../office, share: 1 }]', 'profiles.0.name', 'expected a-z 0-9 -'],
    [
      'profiles: [{ name: office, share: 0.5 }, { name: plant, share: 0.6 }]',
      'profiles',
      'shares add up to 1.1, expected 1',
    ],
    ['profiles: [{ name: office, share: 1, pcap: x }]', 'profiles.0', '"pcap"; expected name, share'],
    ['heartbeat: 2', 'the file', '"heartbeat"; expected devices, segments, traffic, profiles'],
  ])('%s', async (line, field, expected) => {
    const said = await refusal(write(withLine(line)));
    expect(said.startsWith(`${field}: `)).toBe(true);
    expect(said).toContain(expected);
  });

  test.each(['devices', 'segments', 'traffic', 'profiles'])('a file without %s', async (field) => {
    const said = await refusal(write(whole.filter((line) => !line.startsWith(field)).join('\n')));
    expect(said).toMatch(new RegExp(`^${field}: .*expected (number|string|array), received undefined`));
  });

  test('what is no list of fields', async () => {
    expect(await refusal(write(''))).toContain('the file: Invalid input: expected object');
    expect(await refusal(write('- devices'))).toContain('the file: Invalid input: expected object');
  });

  test('what is no YAML, with the place', async () => {
    const said = await refusal(write('devices: [1\nsegments: 2'));
    expect(said).toMatch(/^no valid YAML: .*line \d/);
    expect(said).not.toContain('\n');
  });

  test('a file that is not there, and a capture that is not there', async () => {
    expect(await refusal(join(dir, 'nothing.yaml'))).toContain('there is no such file; see examples/demo/fleet.yaml');
    const said = await refusal(write(withLine('profiles: [{ name: plant, share: 1 }]')));
    expect(said).toBe(
      `profile plant: there is no capture ${join(dir, 'plant.pcap')} (nor a file plant.bin); expected one in "traffic" (.)`,
    );
  });
});
