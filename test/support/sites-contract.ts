/** What every store of the devices' sites must do; run against the one on PostgreSQL and the one in memory. */
import { expect, test } from 'vitest';
import type { DeviceSites } from '../../domain/ports.ts';

export const sitesContract = (open: () => Promise<DeviceSites>): void => {
  test('the first word counts, no site is a word too, and devices do not disturb each other', async () => {
    const sites = await open();
    expect(await sites.pin([{ deviceId: 'a', site: 'x' }])).toEqual([{ deviceId: 'a', site: 'x' }]);
    const more = [
      { deviceId: 'c', site: 'z' },
      { deviceId: 'a', site: 'y' },
      { deviceId: 'b', site: null },
      { deviceId: 'c', site: 'w' },
    ];
    const stand = [
      { deviceId: 'a', site: 'x' },
      { deviceId: 'b', site: null },
      { deviceId: 'c', site: 'z' },
    ];
    const byId = (found: readonly { deviceId: string }[]) =>
      found.toSorted((a, b) => a.deviceId.localeCompare(b.deviceId));
    expect(byId(await sites.pin(more))).toEqual(stand);
    expect(await sites.pin([{ deviceId: 'b', site: 'late' }])).toEqual([{ deviceId: 'b', site: null }]);
    expect(await sites.pin([])).toEqual([]);
  });

  test('gateways that hear the same devices at once agree, and wait for nobody for ever', async () => {
    const sites = await open();
    const devices = Array.from({ length: 200 }, (_, n) => `device-${n}`);
    const asked = Array.from({ length: 12 }, (_, round) => {
      const said = devices.map((deviceId) => ({ deviceId, site: `site-${round}` }));
      return sites.pin(round % 2 === 0 ? said : said.toReversed());
    });
    const answers = (await Promise.all(asked)).flat();
    expect(answers.length).toBe(12 * 200);
    expect(new Set(answers.map(({ deviceId, site }) => `${deviceId} ${site}`)).size).toBe(200);
  });
};
