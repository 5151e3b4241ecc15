/**
 * Development keys, made on first use. Root, targets and content keys belong to people and are kept offline in a real
 * installation; the director's, snapshot's and timestamp's are the online keys. The names are the files.
 */
import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Key, Signature } from '@tufjs/models';
import { SigrelError } from '../../domain/errors.ts';
import { canonicalJson } from '../../events/canonical-json.ts';

export type Signer = { readonly name: string; readonly key: Key; readonly sign: (data: Buffer) => Signature };

/**
 * The signing key of that name (Ed25519, PKCS #8 PEM, readable by its owner only). Made on first use only where `create` says
 * that the role is new: in its place a new key would sign what nobody trusts. Throws SRP_MISSING_KEY.
 */
export const readSigner = async (keysDir: string, name: string, create: 'create' | 'expect'): Promise<Signer> => {
  const path = join(keysDir, `${name}.pem`);
  const pem = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null;
    throw error;
  });
  if (pem === null && create === 'expect') {
    throw new SigrelError('SRP_MISSING_KEY', `the key ${path} is missing: bring it back; nothing was signed`, {
      details: { key: name },
    });
  }
  const secret = pem === null ? await createKey(keysDir, path) : createPrivateKey(pem);
  const der = createPublicKey(secret).export({ format: 'der', type: 'spki' });
  // The last 32 bytes of an Ed25519 SPKI are the key itself, which is what TUF writes down.
  const keyVal = { public: der.subarray(-32).toString('hex') };
  const body = { keytype: 'ed25519', scheme: 'ed25519', keyval: keyVal };
  const keyID = createHash('sha256').update(canonicalJson(body)).digest('hex');
  const key = new Key({ keyID, keyType: 'ed25519', scheme: 'ed25519', keyVal });
  return { name, key, sign: (data) => new Signature({ keyID, sig: sign(null, data, secret).toString('hex') }) };
};

/** `count` people's keys of a role: `<role>-key-1` and so on. */
export const readSigners = (
  keysDir: string,
  role: string,
  count: number,
  create: 'create' | 'expect',
): Promise<Signer[]> =>
  Promise.all(Array.from({ length: count }, (_, index) => readSigner(keysDir, `${role}-key-${index + 1}`, create)));

const createKey = async (keysDir: string, path: string): Promise<KeyObject> => {
  await mkdir(keysDir, { recursive: true, mode: 0o700 });
  const { privateKey } = generateKeyPairSync('ed25519');
  const pem = privateKey.export({ format: 'pem', type: 'pkcs8' });
  // Two processes that start together must end with the same key: the first file wins.
  await writeFile(path, pem, { mode: 0o600, flag: 'wx' }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error;
  });
  return createPrivateKey(await readFile(path, 'utf8'));
};
