/** The repository as static files. Any web server or CDN can stand here: nothing that devices trust depends on this one. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import fastifyStatic from '@fastify/static';
import Fastify from 'fastify';

/** Serves `<storeDir>/repository`. */
export const startRepository = async (options: {
  readonly storeDir: string;
  readonly port: number;
}): Promise<{ readonly url: string; stop(): Promise<void> }> => {
  const root = join(options.storeDir, 'repository');
  await mkdir(root, { recursive: true });
  const server = Fastify({ forceCloseConnections: true });
  // The files change under the server, and a stale timestamp is a stale lease: nothing is cached.
  await server.register(fastifyStatic, { root, cacheControl: false, dotfiles: 'deny' });
  const url = await server.listen({ host: '127.0.0.1', port: options.port });
  return { url, stop: () => server.close() };
};
