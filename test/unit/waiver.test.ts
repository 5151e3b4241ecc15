import { describe, expect, test } from 'vitest';
import type { CellResult } from '../../domain/release.ts';
import {
  covers,
  decideWaiver,
  failuresOf,
  isInForce,
  type KnownWaiver,
  stateOfWaiver,
  type WaiverRequest,
  withdrawWaivers,
} from '../../domain/waiver.ts';

const now = Date.parse('2026-11-26T12:00:00Z');
const request = (more: Partial<WaiverRequest> = {}): WaiverRequest => ({
  ...{ family: 'ips', kind: 'exclude', target: 'suricata-5.0.2-11111111', sourceDigest: null },
  ...{ by: 'ann', reason: 'three devices in the lab', expiresAt: '2027-01-31' },
  ...more,
});
const decide = (known: readonly KnownWaiver[], more: Partial<WaiverRequest> = {}, result: CellResult | null = null) =>
  decideWaiver(known, request(more), { now, waiverId: 'w-1', result });
const proposed = (): KnownWaiver => {
  const made = decide([]);
  if (!made.ok) throw new Error(made.message);
  return made.waiver;
};

describe('two people decide', () => {
  test('one proposes, another puts it in force, until its end', () => {
    expect(isInForce(proposed(), now)).toBe(false);
    const granted = decide([proposed()], { by: 'bob' });
    if (!granted.ok) throw new Error(granted.message);
    expect(granted).toMatchObject({ granted: true, waiver: { by: ['ann', 'bob'], waiverId: 'w-1' } });
    expect(isInForce(granted.waiver, now)).toBe(true);
    expect(isInForce(granted.waiver, Date.parse('2027-01-31'))).toBe(false);
    expect(decide([granted.waiver], { by: 'eve' })).toMatchObject({ ok: false, code: 'SRP_RULE_WAIVER' });
  });

  test('what is in force is what both said: the reasons of both, and the earlier end', () => {
    const granted = decide([proposed()], { by: 'bob', reason: 'they are replaced', expiresAt: '2026-12-24' });
    expect(granted).toMatchObject({
      waiver: {
        ...{ reason: 'three devices in the lab; they are replaced', expiresAt: '2026-12-24T00:00:00.000Z' },
        askedUntil: ['2027-01-31T00:00:00.000Z', '2026-12-24T00:00:00.000Z'],
      },
    });
    expect(decide([proposed()], { by: 'bob', expiresAt: '2027-02-10' })).toMatchObject({
      waiver: { reason: 'three devices in the lab', expiresAt: '2027-01-31T00:00:00.000Z' },
    });
  });

  test.each([
    ['2027-01-31', '2027-01-31T00:00:00.000Z'],
    ['2027-01-31T12:00:00Z', '2027-01-31T12:00:00.000Z'],
    ['2027-01-31T01:00:00+02:00', '2027-01-30T23:00:00.000Z'],
  ])('an end is a moment in UTC: %s', (expiresAt, moment) => {
    expect(decide([], { expiresAt })).toMatchObject({ waiver: { expiresAt: moment, askedUntil: [moment] } });
  });

  test.each(['ann', 'Ann ', 'ANN', '\uff41nn'])('the same person twice is one person: %s', (by) => {
    expect(decide([proposed()], { by })).toMatchObject({ ok: false, code: 'SRP_RULE_FOUR_EYES' });
  });

  test('a proposal for another engine, family or kind, or one that is over, does not count', () => {
    const own = proposed();
    const others: KnownWaiver[] = [
      { ...own, target: 'suricata-6.0.1-00000000' },
      { ...own, family: 'yara' },
      { ...own, expiresAt: '2026-11-25' },
      { ...own, sourceDigest: 'a'.repeat(64) },
    ];
    expect(decide(others, { by: 'bob' })).toMatchObject({ ok: true, granted: false });
  });

  test.each([
    ['no reason', { reason: ' ' }, 'SRP_INPUT_REASON'],
    ['no name', { by: '' }, 'SRP_INPUT_BY'],
    ['an end that is no time', { expiresAt: 'soon' }, 'SRP_INPUT_EXPIRY'],
    ['an end in the past', { expiresAt: '2026-11-01' }, 'SRP_INPUT_EXPIRY'],
    ['an end after more than 90 days', { expiresAt: '2027-03-01' }, 'SRP_INPUT_EXPIRY'],
  ])('%s is refused', (_name, more, code) => {
    expect(decide([], more)).toMatchObject({ ok: false, code });
  });
});

describe('one person takes it back', () => {
  const said = { family: 'ips', target: proposed().target, by: 'eve', reason: 'the pack is there' };
  const granted = (): KnownWaiver => {
    const made = decide([proposed()], { by: 'bob', expiresAt: '2027-02-10' });
    if (!made.ok) throw new Error(made.message);
    return made.waiver;
  };

  test('proposed or in force; it says who, why and when', () => {
    for (const waiver of [proposed(), granted()]) {
      expect(withdrawWaivers([waiver], said, now)).toEqual({
        ok: true,
        waivers: [{ ...waiver, withdrawn: { by: 'eve', reason: said.reason, at: '2026-11-26T12:00:00.000Z' } }],
      });
    }
  });
  test('what is over, was taken back or is of something else is not there to be taken back', () => {
    const gone = withdrawWaivers([granted()], said, now);
    const others = gone.ok ? [...gone.waivers, { ...granted(), expiresAt: '2026-11-25' }] : [];
    expect(withdrawWaivers([...others, { ...granted(), target: 'other' }], said, now)).toMatchObject({
      ...{ ok: false, code: 'SRP_MISSING_WAIVER', message: expect.stringContaining('sigrel matrix waivers ips') },
    });
    // Nobody puts in force what was taken back: it is proposed anew.
    expect(decide(others, { by: 'bob' })).toMatchObject({ ok: true, granted: false, waiver: { by: ['bob'] } });
  });
  test('each is proposed, in force, over or withdrawn', () => {
    const states = [proposed(), granted(), { ...granted(), expiresAt: '2026-11-25' }].map((one) =>
      stateOfWaiver(one, now),
    );
    expect(states).toEqual(['proposed', 'in force', 'over']);
    const gone = withdrawWaivers([granted()], said, now);
    expect(gone.ok && gone.waivers.map((one) => stateOfWaiver(one, now))).toEqual(['withdrawn']);
  });
});

describe('an override', () => {
  const cellId = 'suricata-6.0.1-00000000/ids';
  const result = (verdict: CellResult['verdict'], rulesLoaded: number | null = 2): CellResult => ({
    ...{ cellId, verdict, rulesExpected: 2, rulesLoaded, gates: [], wallMs: 1 },
  });
  const override = (found: CellResult | null, known: readonly KnownWaiver[] = [], by = 'ann') =>
    decide(known, { kind: 'override', target: cellId, sourceDigest: 'a'.repeat(64), by }, found);
  const red = (...failing: [string, ...string[]][]): CellResult => ({
    ...result('fail'),
    gates: [
      { gate: 'restart', verdict: 'pass', observed: 3, operator: '==', limit: 3, details: [] },
      ...failing.map(([gate, ...vectors]) => ({
        ...{ gate, verdict: 'fail' as const, observed: vectors.length, operator: '==', limit: 0 },
        details: vectors.map((vector) => ({
          ...(gate === 'budget-vector' ? {} : { rule: 7 }),
          vector,
          words: 'alerted',
        })),
      })),
    ],
  });
  const signed = (found: CellResult): KnownWaiver => {
    const first = override(found);
    const second = first.ok ? override(found, [first.waiver], 'bob') : first;
    if (!second.ok) throw new Error(second.message);
    return second.waiver;
  };

  test('is for what was wrong with a red cell: gate, count, and the first rules and inputs', () => {
    expect(failuresOf(red(['goodware', 'sh', 'ls', 'cp', 'mv'], ['budget-load']))).toEqual([
      'budget-load',
      'goodware: 4, rule 7 on sh, rule 7 on ls, rule 7 on cp',
    ]);
    expect(override(red(['budget-load']))).toMatchObject({ granted: false, waiver: { failures: ['budget-load'] } });
  });
  test('covers that and less, and neither another rule, another input nor another gate', () => {
    const waiver = signed(red(['goodware', 'sh'], ['budget-load']));
    expect(covers(waiver, red(['goodware', 'sh'], ['budget-load']))).toBe(true);
    expect(covers(waiver, red(['goodware', 'sh']))).toBe(true);
    expect(covers(waiver, red(['goodware', 'agent']))).toBe(false);
    expect(covers(waiver, red(['goodware', 'sh', 'agent']))).toBe(false);
    expect(covers(waiver, red(['goodware', 'sh'], ['revert']))).toBe(false);
    // One slow input that was signed is no other slow input, and times that were measured are not times that were not.
    const slow = signed(red(['budget-vector', 'one'], ['budget-load']));
    expect(covers(slow, red(['budget-vector', 'one']))).toBe(true);
    expect(covers(slow, red(['budget-vector', 'two']))).toBe(false);
    const [start, load] = red(['budget-load']).gates;
    const unmeasured = { ...red(), gates: [start, { ...load, observed: 'none' }] } as CellResult;
    expect(covers(slow, unmeasured)).toBe(false);
    expect(covers(waiver, { ...red(['goodware', 'sh']), cellId: 'suricata-6.0.1-00000000/ips' })).toBe(false);
  });
  test('of something else that went wrong is another one: it needs two people of its own', () => {
    const known = [signed(red(['goodware', 'sh']))];
    expect(override(red(['goodware', 'sh']), known, 'eve')).toMatchObject({ code: 'SRP_RULE_WAIVER' });
    expect(override(red(['revert']), known, 'eve')).toMatchObject({ ok: true, granted: false });
    const proposal = override(red(['goodware', 'sh']));
    if (!proposal.ok) throw new Error(proposal.message);
    // Bob looks at a release in which something else is wrong: he does not grant what he never saw.
    expect(override(red(['budget-load']), [proposal.waiver], 'bob')).toMatchObject({
      ...{ ok: true, granted: false },
      waiver: { failures: ['budget-load'], by: ['bob'] },
    });
  });
  test.each([
    ['a void cell', result('void'), 'SRP_RULE_WAIVER'],
    ['a cell that passed', result('pass'), 'SRP_RULE_WAIVER'],
    ['a cell that was not tested', result('error', null), 'SRP_RULE_WAIVER'],
    ['a cell in which something went wrong', result('error'), 'SRP_RULE_WAIVER'],
    ['a cell that loaded nothing', result('fail', 0), 'SRP_RULE_WAIVER'],
    ['a cell that is not there', null, 'SRP_MISSING_CELL'],
  ])('is never for %s', (_name, found, code) => {
    expect(override(found)).toMatchObject({ ok: false, code });
  });
});
