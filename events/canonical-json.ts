/** RFC 8785 (JSON Canonicalization Scheme): the same data gives the same bytes, so that a hash of it means something. */
import { SigrelError } from '../domain/errors.ts';

/**
 * Keys in UTF-16 order, numbers and strings as ECMAScript writes them. Properties that are `undefined` are left out, as in
 * JSON.stringify; throws SRP_INTEGRITY_JSON with the path of anything else that JSON cannot hold.
 */
export const canonicalJson = (value: unknown): string => write(value, []);

/** `path`: where in the whole the value stands, for whoever has to be told what is wrong with it. */
const write = (value: unknown, path: (string | number)[]): string => {
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
      return writeObject(value as Readonly<Record<string, unknown>>, path);
    default:
      throw refuse(path, `a ${typeof value}`);
  }
};

// One string that grows and one path for all: this is most of the work of checking a report.
const writeArray = (items: readonly unknown[], path: (string | number)[]): string => {
  let text = '[';
  for (let index = 0; index < items.length; index += 1) {
    path.push(index);
    text += `${index === 0 ? '' : ','}${write(items[index], path)}`;
    path.pop();
  }
  return `${text}]`;
};

const writeObject = (value: Readonly<Record<string, unknown>>, path: (string | number)[]): string => {
  let text = '{';
  // The default order of strings is by UTF-16 code units, which is what section 3.2.3 asks for.
  for (const key of Object.keys(value).sort()) {
    const item = value[key];
    if (item === undefined) continue;
    path.push(key);
    text += `${text.length === 1 ? '' : ','}${write(key, path)}:${write(item, path)}`;
    path.pop();
  }
  return `${text}}`;
};

const refuse = (places: readonly (string | number)[], what: string): SigrelError => {
  const path = `$${places.map((place) => (typeof place === 'number' ? `[${place}]` : `.${place}`)).join('')}`;
  return new SigrelError('SRP_INTEGRITY_JSON', `${what} at ${path} cannot be written as canonical JSON`, {
    details: { path },
  });
};
