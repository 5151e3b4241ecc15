/** Devices as people keep them: a list in YAML or JSON, or lines with commas under a heading. */
import { readFile } from 'node:fs/promises';
import { parse } from 'yaml';
import { SigrelError } from '../../domain/errors.ts';
import { type ImportRequest, importRequest } from '../../services/api/contract.ts';

const heading = 'device,engine,failMode';

/** Throws SRP_INPUT_FLEET naming the file, the entry, what is wrong and what was expected. */
export const readDeviceList = async (path: string): Promise<ImportRequest['devices']> => {
  const refuse = (what: string): SigrelError => new SigrelError('SRP_INPUT_FLEET', `${path}: ${what}`);
  const text = await readFile(path, 'utf8').catch((cause: Error) => {
    throw refuse(`cannot be read: ${cause.message}`);
  });
  const written = text.trimStart().startsWith(heading) ? fromLines(text) : fromYaml(text, refuse);
  const parsed = importRequest.safeParse({ devices: written });
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const [, index, field] = issue?.path ?? [];
    const where = typeof index === 'number' ? `entry ${index + 1}${field ? `, ${String(field)}` : ''}: ` : '';
    throw refuse(
      `${where}${issue?.message}; expected a list of { device, engine: suricata@6.0.1, failMode: fail-open }`,
    );
  }
  const { devices } = parsed.data;
  const seen = new Set<string>();
  for (const [index, { device }] of devices.entries()) {
    if (seen.has(device)) throw refuse(`entry ${index + 1}: device ${device} is there twice`);
    seen.add(device);
  }
  return devices;
};

const fromLines = (text: string): unknown => {
  const [, ...lines] = text.split(/\r?\n/).filter((line) => line.trim() !== '');
  return lines.map((line) => {
    const [device, engine, failMode] = line.split(',').map((field) => field.trim());
    return { device, engine, failMode };
  });
};

const fromYaml = (text: string, refuse: (what: string) => SigrelError): unknown => {
  try {
    return parse(text);
  } catch (error) {
    throw refuse(`no valid YAML or JSON: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`);
  }
};
