/** The engine's configuration: our own and the same for every version, so that a difference is the engine's and not its packager's. */
import { join } from 'node:path';
import type { EngineInput } from '../../domain/ports.ts';

/** As in Debian's packages: a rule for a protocol that devices have switched off must not load in the matrix. */
const off = ['modbus', 'dnp3', 'enip', 'pgsql'];

const on = [
  ...['bittorrent-dht', 'dcerpc', 'dhcp', 'ftp', 'http', 'ike', 'imap', 'krb5', 'mqtt', 'nfs', 'ntp', 'quic', 'rdp'],
  ...['rfb', 'sip', 'smb', 'smtp', 'snmp', 'ssh', 'telnet', 'tftp', 'tls'],
];

/**
 * `major`: the engine's first version number. `data`: folder with classification, reference and threshold files and the
 * file type database of the pack. `log`: an empty folder, which gets `eve.json` and `suricata.log`.
 *
 * Unless a device that fails closed is meant, exception policies are off, so that what is dropped was dropped by a rule and not
 * because the engine distrusts a capture.
 */
export const suricataConfig = (
  paths: { readonly pack: string; readonly log: string },
  major: number,
  { protocols = {}, failMode = 'fail-open' }: Pick<EngineInput, 'protocols' | 'failMode'> = {},
): string => {
  const switches = [
    ...on.map((name) => ({ name, enabled: 'yes' })),
    ...off.map((name) => ({ name, enabled: 'no' })),
    { name: 'http2', enabled: major < 7 ? 'no' : 'yes' }, // experimental in version 6, and off in its package
  ].filter(({ name }) => protocols[name] === undefined);
  for (const [name, on] of Object.entries(protocols)) switches.push({ name, enabled: on ? 'yes' : 'no' });
  return `%YAML 1.1
---
vars:
  address-groups:
${variables(['HOME_NET', 'EXTERNAL_NET', ...servers], 'any')}
  port-groups:
    HTTP_PORTS: "80"
    SHELLCODE_PORTS: "!80"
    ORACLE_PORTS: "1521"
    SSH_PORTS: "22"
    DNP3_PORTS: "20000"
    MODBUS_PORTS: "502"
    FILE_DATA_PORTS: "[$HTTP_PORTS,110,143]"
    FTP_PORTS: "21"
default-log-dir: ${paths.log}
classification-file: ${join(paths.pack, 'etc', 'classification.config')}
reference-config-file: ${join(paths.pack, 'etc', 'reference.config')}
threshold-file: ${join(paths.pack, 'etc', 'threshold.config')}
magic-file: ${join(paths.pack, 'share', 'magic.mgc')}
stats:
  enabled: yes
  interval: 3600
logging:
  default-log-level: notice
  outputs:
    - console: { enabled: yes }
    - file: { enabled: yes, filename: suricata.log, level: notice }
outputs:
  - eve-log:
      enabled: yes
      filetype: regular
      filename: eve.json
      pcap-file: yes
      types:
        - alert
        - drop: { alerts: yes, flows: start }
        - stats: { totals: yes, threads: no }
unix-command: { enabled: no }
exception-policy: ${failMode === 'fail-closed' ? 'drop-flow' : 'ignore'}
app-layer:
  protocols:
${switches.map(({ name, enabled }) => `    ${name}: { enabled: ${enabled} }`).join('\n')}
    dns:
      tcp: { enabled: yes, detection-ports: { dp: 53 } }
      udp: { enabled: yes, detection-ports: { dp: 53 } }
stream:
  memcap: 64mb
  inline: auto
  drop-invalid: no
  reassembly: { memcap: 64mb, depth: 1mb }
flow: { memcap: 64mb, hash-size: 4096, prealloc: 256 }
defrag: { memcap: 16mb, hash-size: 4096, prealloc: 64 }
host: { memcap: 16mb, hash-size: 1024, prealloc: 64 }
detect: { profile: low }
mpm-algo: auto
spm-algo: auto
host-mode: auto
`;
};

const servers = [
  ...['HTTP_SERVERS', 'SMTP_SERVERS', 'SQL_SERVERS', 'DNS_SERVERS', 'TELNET_SERVERS', 'AIM_SERVERS', 'DC_SERVERS'],
  ...['DNP3_SERVER', 'DNP3_CLIENT', 'MODBUS_CLIENT', 'MODBUS_SERVER', 'ENIP_CLIENT', 'ENIP_SERVER'],
];

const variables = (names: readonly string[], value: string): string =>
  names.map((name) => `    ${name}: "${value}"`).join('\n');
