/** Traffic without which a device cannot be helped any more: its own update, and what it looks names up with. */
import type { EngineFile } from '../../domain/ports.ts';
import { concat, tcpCapture, udpCapture } from './pcap.ts';

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

/** Addresses of TEST-NET-3 (RFC 5737), which no vector has. */
const device = '203.0.113.10';
const updateServer = '203.0.113.20';
const nameServer = '203.0.113.53';

/** A DNS question for an address, and its answer (RFC 1035, section 4). */
const dnsExchange = (name: string, address: string): { question: Uint8Array; answer: Uint8Array } => {
  const labels = name.split('.').flatMap((label) => [label.length, ...utf8(label)]);
  const query = [...labels, 0, 0, 1, 0, 1];
  const record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, ...address.split('.').map(Number)];
  return {
    question: Uint8Array.from([0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, ...query]),
    answer: Uint8Array.from([0, 7, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0, ...query, ...record]),
  };
};

const fetchOf = (path: string, body: string, clientPort: number): Uint8Array =>
  tcpCapture({
    ...{ client: device, server: updateServer, port: 80, clientPort },
    exchanges: [
      {
        from: 'client',
        payload: utf8(
          `GET ${path} HTTP/1.1\r\nHost: updates.example\r\nUser-Agent: sigrel-device/1\r\nAccept: */*\r\n\r\n`,
        ),
      },
      {
        from: 'server',
        payload: utf8(
          `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
        ),
      },
    ],
  });

/** The traffic that every engine must let through, in either fail mode. */
export const smokeCaptures = (): readonly EngineFile[] => {
  const { question, answer } = dnsExchange('updates.example', updateServer);
  const lookup = udpCapture({
    ...{ client: device, server: nameServer, port: 53, clientPort: 40_053 },
    exchanges: [
      { from: 'client', payload: question },
      { from: 'server', payload: answer },
    ],
  });
  const timestamp = JSON.stringify({ signatures: [], signed: { _type: 'timestamp', version: 7 } });
  const report = JSON.stringify({ reports: [{ deviceId: 'device-00001', body: { kind: 'poll' } }] });
  const upload = tcpCapture({
    ...{ client: device, server: updateServer, port: 80, clientPort: 40_003 },
    exchanges: [
      {
        from: 'client',
        payload: utf8(
          `POST /v1/reports HTTP/1.1\r\nHost: updates.example\r\nUser-Agent: sigrel-device/1\r\nContent-Type: application/json\r\nContent-Length: ${report.length}\r\n\r\n${report}`,
        ),
      },
      { from: 'server', payload: utf8('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}') },
    ],
  });
  const updates = [
    fetchOf('/metadata/timestamp.json', timestamp, 40_001),
    fetchOf('/targets/content.rules', '#', 40_002),
  ];
  return [{ name: 'update-server', bytes: concat([lookup, ...updates, upload]) }];
};
