/** What the gateway refuses, with which words, and what is kept of it. */
import { describe, expect, test, vi } from 'vitest';
import { SigrelError } from '../../domain/errors.ts';
import type { ReportResult } from '../../domain/telemetry.ts';
import { engineA, pollBody } from '../support/devices.ts';
import { gatewayPerTest, healthy, statuses } from '../support/gateways.ts';

const world = gatewayPerTest();
const { start, sign, post, postText } = world;

describe('what is refused', () => {
  test.each([
    ['no JSON', '{"reports":', 'application/json', 400, 'SRP_INPUT_REPORTS'],
    ['nothing at all', '', 'application/json', 400, 'SRP_INPUT_REPORTS'],
    ['another type', '{"reports":[{}]}', 'text/plain', 415, 'SRP_INPUT_REPORTS'],
    [
      'more than a request may hold',
      `{"reports":["${'x'.repeat(4 * 2 ** 20)}"]}`,
      'application/json',
      413,
      'SRP_INPUT_SIZE',
    ],
  ])('%s is refused as a whole, with what was expected', async (_, body, type, status, code) => {
    const response = await postText(body, type);
    expect(response.status).toBe(status);
    expect(response.headers.get('content-type')).toContain('application/problem+json');
    const problem = (await response.json()) as { code: string; detail: string };
    expect(problem.code).toBe(code);
    expect(problem.detail).toMatch(/expected application\/json|larger than 4194304 bytes|reports/);
    expect(world.gateway.status().requests).toEqual({ unreadable: 1, overloaded: 0 });
  });

  const good = healthy('a', 1);
  const crash = (words: string) => ({ ...good, body: { kind: 'crash', contentVersion: 1, words } });
  const poll = (changes: object) => ({ ...good, body: { ...pollBody(), ...changes } });
  test.each<[string, RegExp, unknown]>([
    ['a device id that is no name', /^deviceId: expected 1 to 128 of/, { ...good, deviceId: '../../etc' }],
    ['a device id that is too long', /^deviceId: expected 1 to 128 of/, { ...good, deviceId: 'x'.repeat(129) }],
    ['a negative sequence', /^sequence: .*>=0/, { ...good, sequence: -1 }],
    ['a sequence beyond what a number holds', /^sequence: .*<=9007199254740991/, { ...good, sequence: 2 ** 53 }],
    ['words that are too long', /^body.words: .*<=500/, crash('x'.repeat(501))],
    ['words that no MAC can be of', /^body.words: expected well-formed/, crash('\ud800')],
    ['a digest of another length', /^body.engine.digest: expected 64/, poll({ engine: { ...engineA, digest: 'ab' } })],
    ['an engine that is a path', /^body.engine.name: expected 1 to 64/, poll({ engine: { ...engineA, name: '../x' } })],
    ['another fail mode', /^body.failMode: .*fail-open/, poll({ failMode: 'open' })],
    [
      'a version that the inventory cannot hold',
      /^body.directorVersion: .*<=2147483647/,
      poll({ directorVersion: 2 ** 31 }),
    ],
    ['an offer without a release', /^body.offer.releaseId: /, poll({ offer: { contentVersion: 1 } })],
    ['a field that nobody knows', /^report: .*"surplus"/, { ...good, surplus: 1 }],
    ['a field with an endless name', /^report: .{0,300}$/, { ...good, ['x'.repeat(100_000)]: 1 }],
    ['another prototype', /^report: .*"__proto__"/, JSON.parse(JSON.stringify(good).replace('{', '{"__proto__":{},'))],
    ['a key epoch of none', /^keyEpoch: .*>=1/, { ...good, keyEpoch: 0 }],
    ['a depth that cannot be written', /^body: /, { ...good, body: '@deep' }],
  ])('%s is refused by name, and its neighbours are taken', async (_, reason, report) => {
    const deep = '['.repeat(100_000) + ']'.repeat(100_000);
    const mac = { mac: 'ab'.repeat(32) };
    const text = JSON.stringify([sign(good), Object.assign(report as object, mac), sign(healthy('b', 1))]);
    const response = await postText(`{"reports":${text.replace('"@deep"', deep)}}`);
    expect(response.status).toBe(200);
    const { results } = (await response.json()) as { results: ReportResult[] };
    expect(results.map(({ status }) => status)).toEqual(['accepted', 'rejected', 'accepted']);
    expect(results[1]?.reason).toMatch(reason);
    expect(world.telemetry.refused).toEqual([{ reason: results[1]?.reason, received: expect.any(String) }]);
    expect(JSON.stringify(world.telemetry.refused).length).toBeLessThan(10_000);
    expect(world.gateway.status()).toMatchObject({
      reports: { received: 3, accepted: 2, rejected: 1 },
      rejected: { schema: 1 },
    });
  });

  test('beyond what is kept it is counted, the log of refusals says how much, and /v1/status has it all', async () => {
    await start({ limits: { deadLetterRate: { perSecond: 0.001, burst: 3 } } });
    await post(Array.from({ length: 10 }, () => 'nonsense'));
    await post(['more']);
    expect(world.telemetry.refused.map(({ received }) => received)).toEqual(['', ...Array(3).fill('"nonsense"')]);
    expect(world.telemetry.refused[0]?.reason).toBe('7 more refused reports were not kept');
    const status = await (await fetch(`${world.gateway.url}/v1/status`)).json();
    expect(status).toEqual(world.gateway.status());
    expect(status).toMatchObject({
      reports: { received: 11, accepted: 0, duplicate: 0, rejected: 11, limited: 0, unavailable: 0 },
      deadLetters: { kept: 3, dropped: 8, waiting: 0 },
    });
  });

  test('and not taken by the log of refusals is counted, and said with the next one that is', async () => {
    const refuse = vi.spyOn(world.telemetry, 'refuse');
    refuse.mockRejectedValueOnce(new SigrelError('SRP_DEP_KAFKA', 'Kafka did not take records'));
    expect(statuses(await post(['one', 'two', sign(good)]))).toEqual(['rejected', 'rejected', 'accepted']);
    await expect.poll(() => world.gateway.status().deadLetters).toEqual({ kept: 0, dropped: 2, waiting: 0 });
    await post(['three']);
    expect(world.telemetry.refused).toEqual([
      { reason: '2 more refused reports were not kept', received: '' },
      { reason: expect.stringContaining('expected object'), received: '"three"' },
    ]);
    expect(world.gateway.status().deadLetters).toEqual({ kept: 1, dropped: 2, waiting: 0 });
  });
});
