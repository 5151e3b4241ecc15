/** What every GatewayLog must do, at least once and in order; run against the one on Kafka and the one in memory. */
import { expect, test } from 'vitest';
import { type DeviceReport, reportsPerRequest, type TelemetryRecord } from '../../domain/telemetry.ts';
import type { GatewayLog } from '../../infra/kafka/telemetry-log.ts';

export type OpenLog = {
  readonly log: GatewayLog;
  /** Everything in the log, partition by partition, oldest first. */
  read(): Promise<readonly (readonly TelemetryRecord[])[]>;
  readRefused(): Promise<readonly unknown[]>;
};

const report = (deviceId: string, sequence: number): DeviceReport => ({
  deviceId,
  sequence,
  body: { kind: 'healthy', contentVersion: 1 },
});

/** A produce that was repeated after a lost answer may stand in the log twice, one after the other. */
const once = <T>(items: readonly T[]): T[] => {
  const texts = items.map((item) => JSON.stringify(item));
  return items.filter((_, index) => texts.indexOf(texts[index] ?? '') === index);
};

export const telemetryLogContract = (open: () => Promise<OpenLog>): void => {
  test('reports of a device stay in one partition, in the order in which they were appended', async () => {
    const { log, read } = await open();
    const devices = Array.from({ length: 40 }, (_, n) => `device-${n}`);
    await log.append(devices.map((id) => report(id, 1)));
    await log.append(devices.map((id) => report(id, 2)));
    await Promise.all([log.append(devices.map((id) => report(id, 3))), log.append([])]);
    const partitions = await read();
    for (const id of devices) {
      const found = partitions.map((records) =>
        records.flatMap((record) =>
          'report' in record && record.report.deviceId === id ? [record.report.sequence] : [],
        ),
      );
      expect(found.filter((sequences) => sequences.length > 0).map(once)).toEqual([[1, 2, 3]]);
    }
    expect(partitions.filter((records) => records.length > 0).length).toBeGreaterThan(1);
  });

  test('a control record is once in every partition, after what was appended before it', async () => {
    const { log, read } = await open();
    await log.append([report('device-0', 1)]);
    await log.control({ kind: 'release-ended', releaseId: 'r1' });
    const partitions = await read();
    expect(partitions.length).toBe(12);
    for (const records of partitions) {
      expect(once(records.filter((record) => 'control' in record))).toEqual([
        { control: { kind: 'release-ended', releaseId: 'r1' } },
      ]);
      expect(records.at(-1)).toHaveProperty('control');
    }
  });

  test('the largest request there is, all of one site, is kept in its order', async () => {
    const { log, read } = await open();
    const body: DeviceReport['body'] = { kind: 'crash', contentVersion: 1, words: 'ж'.repeat(500) };
    const request = Array.from({ length: reportsPerRequest }, (_, n): DeviceReport => {
      return { deviceId: `device-${n % 40}`, site: 'one', sequence: n, body };
    });
    await Promise.all([log.append(request), log.append([{ ...report('device-0', request.length), site: 'one' }])]);
    const filled = (await read()).filter((records) => records.length > 0);
    expect(filled.length).toBe(1);
    const sequences = once(filled.flat()).map((record) => ('report' in record ? record.report.sequence : null));
    expect(sequences).toEqual(Array.from({ length: request.length + 1 }, (_, n) => n));
  });

  test('a refused report is kept with its reason, apart from the others', async () => {
    const { log, read, readRefused } = await open();
    await log.refuse([{ reason: 'the MAC is wrong', received: { deviceId: 'x' } }]);
    expect(once(await readRefused())).toEqual([{ reason: 'the MAC is wrong', received: { deviceId: 'x' } }]);
    expect((await read()).flat()).toEqual([]);
  });
};
