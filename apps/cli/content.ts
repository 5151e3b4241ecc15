/** A content folder on its way to the api. */
import { readFile } from 'node:fs/promises';
import { parse } from 'yaml';
import type { SourceFile } from '../../domain/content/family.ts';
import { SigrelError } from '../../domain/errors.ts';
import { parsePolicy } from '../../events/policy-schema.ts';
import { encodeBundle } from '../../infra/content/bundle.ts';
import { loadFamily } from '../../infra/content/load-family.ts';
import { ApiError } from './context.ts';

/** What is wrong with a policy is said with the name that it was given by. */
const refusePolicy = (file: string, text: string): void => {
  const refuse = (messages: readonly string[]): never => {
    const detail = `the policy ${file} cannot be used; nothing was started`;
    throw new ApiError({
      ...{ type: 'about:blank', title: '', status: 400, code: 'SRP_INPUT_POLICY', detail },
      findings: messages.map((message) => ({ code: 'policy', file, message })),
    });
  };
  let written: unknown;
  try {
    written = parse(text);
  } catch (error) {
    refuse([`no valid YAML: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`]);
  }
  if (written === null || written === undefined)
    refuse(['it is empty: leave --policy out for the policy of the content']);
  const parsed = parsePolicy(written);
  if (!parsed.ok) refuse(parsed.findings.map((finding) => finding.message));
};

/** Base64 of the bundle. Throws ApiError with the findings of unusable content, as the api would. */
export const bundleFolder = async (dir: string, policyFile: string | undefined): Promise<string> => {
  const loaded = await loadFamily(dir);
  if (!loaded.ok) {
    const count = loaded.findings.length === 1 ? 'one finding' : `${loaded.findings.length} findings`;
    const detail = `the content of ${dir} has ${count}; nothing was started`;
    throw new ApiError({
      ...{ type: 'about:blank', title: '', status: 400, code: 'SRP_INPUT_CONTENT', detail },
      findings: loaded.findings,
    });
  }
  const files: SourceFile[] = loaded.files.filter(({ path }) => policyFile === undefined || path !== 'policy.yaml');
  if (policyFile !== undefined) {
    const bytes = await readFile(policyFile).catch((cause: Error) => {
      throw new SigrelError('SRP_INPUT_POLICY', `the policy ${policyFile} cannot be read: ${cause.message}`, { cause });
    });
    refusePolicy(policyFile, bytes.toString());
    files.push({ path: 'policy.yaml', bytes });
  }
  return Buffer.from(encodeBundle(files)).toString('base64');
};
