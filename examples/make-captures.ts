/**
 * Makes every capture of the examples and the `vectors.yaml` beside them: `node_modules/.bin/node examples/make-captures.ts`. Deterministic:
 * running it again changes nothing. Every vector has addresses of its own (engines mix up shared flows).
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { concat, type Payload, tcpCapture, udpCapture } from '../infra/engines/pcap.ts';
import { icmpEchoCapture } from './icmp.ts';

const bytes = (text: string): Uint8Array => Uint8Array.from(text, (character) => character.charCodeAt(0));
const client = (payload: string): Payload => ({ from: 'client', payload: bytes(payload) });
const server = (payload: string): Payload => ({ from: 'server', payload: bytes(payload) });

/** A capture between `<network>.1` and `<network>.2`; conversations of one capture have client ports of their own. */
type Traffic = (network: string, clientPort?: number) => Uint8Array;

const tcp =
  (port: number, ...exchanges: Payload[]): Traffic =>
  (network, clientPort = 40_000) =>
    tcpCapture({ client: `${network}.1`, server: `${network}.2`, port, clientPort, exchanges });
const udp =
  (port: number, ...exchanges: Payload[]): Traffic =>
  (network, clientPort = 40_000) =>
    udpCapture({ client: `${network}.1`, server: `${network}.2`, port, clientPort, exchanges });
const together =
  (...parts: Traffic[]): Traffic =>
  (network) =>
    concat(parts.map((part, index) => part(network, 40_000 + index)));

const http = (
  method: string,
  uri: string,
  options: { host?: string; agent?: string; header?: string; body?: string; status?: string; page?: string } = {},
): Traffic => {
  const {
    host = 'www.example.org',
    agent = 'Mozilla/5.0',
    header = '',
    body = '',
    status = '200 OK',
    page = 'ok',
  } = options;
  const length = body === '' ? '' : `Content-Length: ${body.length}\r\n`;
  return tcp(
    80,
    client(`${method} ${uri} HTTP/1.1\r\nHost: ${host}\r\nUser-Agent: ${agent}\r\n${header}${length}\r\n${body}`),
    server(`HTTP/1.1 ${status}\r\nContent-Type: text/html\r\nContent-Length: ${page.length}\r\n\r\n${page}`),
  );
};

const dns = (name: string): Traffic => {
  const labels = name.split('.').map((label) => String.fromCharCode(label.length) + label);
  const question = `${labels.join('')}\0\0\x01\0\x01`;
  return udp(
    53,
    client(`\x12\x34\x01\0\0\x01\0\0\0\0\0\0${question}`),
    server(`\x12\x34\x81\x80\0\x01\0\x01\0\0\0\0${question}\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x01`),
  );
};

const u16 = (value: number): string => String.fromCharCode(value >> 8, value & 255);
const tls = (name: string): Traffic => {
  const entry = `\0${u16(name.length)}${name}`;
  const list = `${u16(entry.length)}${entry}`;
  const extensions = `\0\0${u16(list.length)}${list}`;
  const hello = `\x03\x03${'\x11'.repeat(32)}\0${u16(2)}\x13\x01\x01\0${u16(extensions.length)}${extensions}`;
  const handshake = `\x01\0${u16(hello.length)}${hello}`;
  return tcp(443, client(`\x16\x03\x01${u16(handshake.length)}${handshake}`), server('\x15\x03\x03\0\x02\x02\x28'));
};

const ssh = (software: string): Traffic =>
  tcp(22, server('SSH-2.0-OpenSSH_9.2\r\n'), client(`SSH-2.0-${software}\r\n`), server('\0\0\0\x0c\x0a\x14aaaaaaaaaa'));

const smtp = (sender: string): Traffic =>
  tcp(
    25,
    server('220 mail.example.org ESMTP\r\n'),
    client('EHLO client.example.org\r\n'),
    server('250 mail.example.org\r\n'),
    client(`MAIL FROM:<${sender}>\r\n`),
    server('250 OK\r\n'),
    client('QUIT\r\n'),
    server('221 bye\r\n'),
  );

const ftp = (user: string): Traffic =>
  tcp(
    21,
    server('220 ready\r\n'),
    client(`USER ${user}\r\n`),
    server('331 password\r\n'),
    client('QUIT\r\n'),
    server('221 bye\r\n'),
  );

const raw = (port: number, ...payloads: string[]): Traffic =>
  tcp(port, ...payloads.flatMap((payload) => [client(payload), server('OK\r\n')]));

type VectorPlan = readonly [name: string, mustMatch: readonly number[], traffic: Traffic];

const baseline: readonly VectorPlan[] = [
  ['admin-page', [1000001], http('GET', '/admin/config.php?id=1')],
  ['scanner', [1000002], http('GET', '/', { agent: 'SQLMap/1.7' })],
  ['stolen-session', [1000003], http('GET', '/', { header: 'Cookie: session=deadbeef01\r\n' })],
  ['trace', [1000004], http('TRACE', '/')],
  ['form-command', [1000005], http('POST', '/form', { body: 'cmd=whoami' })],
  ['hash-exe', [1000006], http('GET', `/${'0123456789abcdef'.repeat(2)}.exe`)],
  ['evil-host', [1000007], http('GET', '/', { host: 'cdn.evil.example' })],
  ['beacon', [1000008], http('GET', '/x99')],
  ['tool-download', [1000009], http('GET', '/download/tool', { agent: 'curl/8.0' })],
  ['teapot', [1000010], http('GET', '/task', { status: "418 I'm a teapot" })],
  ['template-exploit', [1000011], http('GET', '/render?tpl={{7*7}}')],
  ['backdoor-header', [1000012], http('GET', '/', { header: 'X-Backdoor: open\r\n' })],
  ['page-marker', [1000013], http('GET', '/page', { page: '<p>IPS-MALWARE-MARKER</p>' })],
  ['control-name', [1000014], dns('www.C2.example')],
  ['name-tunnel', [1000015], dns('a1b2c3.tunnel.example')],
  ['phishing-sni', [1000016], tls('login.phish.example')],
  ['old-libssh', [1000017], ssh('libssh_0.1.4')],
  ['bulk-mail', [1000018], smtp('bulk@spam.example')],
  ['anonymous-ftp', [1000019], ftp('anonymous')],
  ['magic-offset', [1000020], raw(9000, 'abcd\xde\xad\xbe\xefrest')],
  ['wrapped-command', [1000021], raw(9001, 'BEGIN-CMD ls -l END-CMD')],
  ['length-field', [1000022], raw(9002, 'MAGC\x10\x00body')],
  ['letter-datagram', [1000023], udp(9003, client('A'.repeat(240)))],
  ['echo-tunnel', [1000024], (network) => icmpEchoCapture(`${network}.1`, `${network}.2`, bytes('PINGTUNNEL data'))],
  ['admin-drops-table', [1000025, 1000026], raw(9004, 'LOGIN admin\r\n', 'DROP TABLE users\r\n')],
  ['password-guessing', [1000027], raw(9005, 'GUESS a\r\n', 'GUESS b\r\n', 'GUESS c\r\n')],
  ['worm', [1000028], raw(9006, 'xWORM-BODY\x00\x01\x02')],
  ['encoded-secret', [1000029], raw(9007, 'token=U0VDUkVUMTIzNDU2Nzg5MDEy&')],
  // Near misses: one thing differs, nothing may alert.
  ['clean-browsing', [], together(http('GET', '/index.html'), dns('www.example.org'))],
  ['clean-download', [], http('GET', '/download/tool', { agent: 'Mozilla/5.0' })],
  ['clean-form', [], http('POST', '/form', { body: 'name=whoami' })],
  ['clean-host', [], http('GET', '/', { host: 'notevil.example' })],
  ['clean-beacon', [], http('GET', '/x990')],
  ['clean-table', [], raw(9008, 'LOGIN guest\r\n', 'DROP TABLE users\r\n')],
  ['clean-magic', [], raw(9009, 'abcde\xde\xad\xbe\xef')],
  ['clean-length', [], raw(9010, 'MAGC\x00\x10body')],
  ['clean-tls', [], tls('login.example.org')],
  ['clean-mail', [], smtp('ann@example.org')],
];

const releases: Readonly<Record<string, readonly VectorPlan[]>> = {
  good: [
    ['campaign-stage2', [1000030], http('GET', '/campaign/stage2?id=7')],
    ['fresh-control-name', [1000031], dns('cdn.fresh-c2.test')],
    ['clean-campaign', [], http('GET', '/campaign/stage1')],
  ],
  astaro: [
    ['campaign-stage3', [1000032], http('GET', '/campaign/stage3?id=7')],
    ['encrypted-channel', [1000033], raw(7777, 'q7Zr0Xk2Lm9PwVt4Bn6Hy1Jd8Gf3Sc5Ae')],
  ],
  'blocks-field': [['api-upload', [1000034], http('POST', '/api/upload', { body: 'file=evil' })]],
};

/** Legitimate traffic of the field, as simulated devices see it. Not part of any family: nobody tested against it. */
const field: Readonly<Record<string, Traffic>> = {
  office: together(
    dns('intranet.example.org'),
    http('GET', '/intranet/news'),
    http('POST', '/login', { body: 'user=ann' }),
    tls('mail.example.org'),
    smtp('ann@example.org'),
    ssh('OpenSSH_9.2'),
  ),
  plant: together(
    dns('historian.plant.example'),
    raw(502, '\x00\x01\x00\x00\x00\x06\x01\x03\x00\x00\x00\x02'),
    http('GET', '/status', { host: 'plc-7.plant.example', agent: 'plc/2.1' }),
    // What releases/blocks-field drops: maintenance of a controller.
    http('POST', '/api/v1/maintenance', { host: 'plc-7.plant.example', agent: 'plc/2.1', body: '{"interval":30}' }),
    udp(123, client(`\x1b${'\0'.repeat(47)}`), server(`\x1c${'\0'.repeat(47)}`)),
  ),
};

/** Every file that this script makes, by its path below examples/. */
export const exampleFiles = (): ReadonlyMap<string, Uint8Array> => {
  const files = new Map<string, Uint8Array>();
  let network = 0;
  const addVectors = (folder: string, plans: readonly VectorPlan[]): void => {
    const entries = plans.map(([name, mustMatch, traffic]) => {
      network += 1;
      files.set(`${folder}/vectors/${name}.pcap`, traffic(`10.20.${network}`));
      return `- { name: ${name}, capture: ${name}.pcap, mustMatch: [${mustMatch.join(', ')}] }\n`;
    });
    const head = '# Made by examples/make-captures.ts: a capture and exactly the signatures that alert on it.\n';
    files.set(`${folder}/vectors.yaml`, bytes(head + entries.join('')));
  };
  addVectors('families/ips', baseline);
  for (const [name, plans] of Object.entries(releases)) addVectors(`releases/${name}`, plans);
  files.set('families/ips/controls/control.pcap', raw(9999, 'SIGREL-CONTROL')('10.21.0'));
  Object.entries(field).forEach(([name, traffic], index) => {
    files.set(`field/${name}.pcap`, traffic(`10.22.${index}`));
  });
  return files;
};

if (import.meta.main) {
  for (const [path, content] of exampleFiles()) {
    const file = join(import.meta.dirname, path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, content);
  }
}
