import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { decodeFamilyEvent, encodeFamilyEvent, familyEventTypes } from '../../events/family-events.ts';
import { openAlarms } from '../../services/alarms.ts';

const folder = join(import.meta.dirname, '..', 'golden', 'family-v1');
const files = readdirSync(folder);
const golden = (file: string) => {
  const decoded = decodeFamilyEvent(readFileSync(join(folder, file)));
  if (!decoded.ok) throw new Error(decoded.reason);
  return decoded.event;
};

describe('golden events of families', () => {
  test('there is one of every type', () => {
    expect(files.map((file) => file.replace('.json', '')).sort()).toEqual([...familyEventTypes].sort());
  });
  test.each(files)('%s decodes and keeps its bytes', (file) => {
    const event = golden(file);
    expect(Buffer.from(encodeFamilyEvent(event)).equals(readFileSync(join(folder, file)))).toBe(true);
    expect(`${event.type}.json`).toBe(file);
  });
});

test.each([
  ['no JSON', '{', /not JSON/],
  ['another type', JSON.stringify({ ...golden('LeaseRenewed.json'), type: 'Other' }), /type/],
  ['data of another type', JSON.stringify({ ...golden('LeaseRenewed.json'), type: 'FamilyThawed' }), /FamilyThawed/],
  ['a newer version', JSON.stringify({ ...golden('LeaseRenewed.json'), schemaVersion: 2 }), /schemaVersion/],
])('%s is refused with a reason', (_, text, reason) => {
  const decoded = decodeFamilyEvent(new TextEncoder().encode(text));
  expect(decoded).toMatchObject({ ok: false });
  expect(decoded.ok ? '' : decoded.reason).toMatch(reason);
});

test('an alarm stands from the event that raises it to the one that clears it', () => {
  const [raised, cleared] = [golden('AlarmRaised.json'), golden('AlarmCleared.json')];
  expect([...openAlarms([raised]).keys()]).toEqual(['windows-late/r-1']);
  expect(openAlarms([raised, cleared]).size).toBe(0);
  expect(openAlarms([cleared, raised]).size).toBe(1);
});
