/** RFC 8785 (JSON Canonicalization Scheme): the same data gives the same bytes, so that a hash of it means something. */
import { SigrelError } from '../domain/errors.ts';

/**
 * Keys in UTF-16 order, numbers and strings as ECMAScript writes them. Properties that are `undefined` are left out, as in
 * JSON.stringify; throws SRP_INTEGRITY_JSON with the path of anything else that JSON cannot hold.
 */
export const canonicalJson = (value: unknown): string => write(value, '$');

const write = (value: unknown, path: string): string => {
  switch (typeof value) {
    case 'boolean':
      return String(value);
    case 'number':
      if (!Number.isFinite(value)) throw refuse(path, `the number ${value}`);
      return JSON.stringify(value);
    case 'string':
      if (!value.isWellFormed()) throw refuse(path, 'a string with half a surrogate pair');
      return JSON.stringify(value);
    case 'object':
      if (value === null) return 'null';
      if (Array.isArray(value)) return writeArray(value, path);
      // A Date or a Map has no entries of its own: written as an object it would silently become {}.
      if (Object.prototype.toString.call(value) !== '[object Object]')
        throw refuse(path, `a ${value.constructor.name}`);
      return writeObject(value, path);
    default:
      throw refuse(path, `a ${typeof value}`);
  }
};

const writeArray = (items: readonly unknown[], path: string): string =>
  `[${Array.from(items, (item, index) => write(item, `${path}[${index}]`)).join(',')}]`;

const writeObject = (value: object, path: string): string => {
  const entries: [string, unknown][] = Object.entries(value).filter(([, item]) => item !== undefined);
  // The default order of strings is by UTF-16 code units, which is what section 3.2.3 asks for.
  entries.sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${entries.map(([key, item]) => `${write(key, path)}:${write(item, `${path}.${key}`)}`).join(',')}}`;
};

const refuse = (path: string, what: string): SigrelError =>
  new SigrelError('SRP_INTEGRITY_JSON', `${what} at ${path} cannot be written as canonical JSON`, {
    details: { path },
  });
