/** The api: JSON over HTTP on loopback, RFC 9457 problems. Reads come from PostgreSQL, the director from its store. */
import Fastify, { type FastifyError } from 'fastify';
import { serializerCompiler, validatorCompiler, type ZodTypeProvider } from 'fastify-type-provider-zod';
import { z } from 'zod';
import { alarmsOf, stopsOf } from '../../domain/alarms.ts';
import { SigrelError } from '../../domain/errors.ts';
import { releaseWorkflowId } from '../../domain/ids.ts';
import { engineId, segmentKey } from '../../domain/release.ts';
import { stateOfWaiver } from '../../domain/waiver.ts';
import type { Log } from '../../infra/kafka/client.ts';
import { readEvidence } from '../../infra/postgres/evidence.ts';
import { isAway } from '../../infra/postgres/pool.ts';
import { listReleases, readQuarantine, readRelease } from '../../infra/postgres/releases.ts';
import { listRevocations } from '../../infra/postgres/revocations.ts';
import { readWaivers } from '../../infra/postgres/waivers.ts';
import {
  type AlarmsAnswer,
  approveRequest,
  type CommandAnswer,
  commandKinds,
  commandRequest,
  deviceIdSchema,
  type EvidenceAnswer,
  evidenceQuery,
  excludeRequest,
  type FamilyAnswer,
  type FleetAnswer,
  type FreezeAnswer,
  familyRequest,
  freezeRequest,
  type ImportAnswer,
  importRequest,
  overrideRequest,
  type Problem,
  type ReleaseAnswer,
  type ReleasesAnswer,
  type RevocationAnswer,
  type RevocationsAnswer,
  releaseIdSchema,
  releaseQuery,
  releaseRequest,
  revokeRequest,
  type ThawAnswer,
  thawRequest,
  type WaiverAnswer,
  type WaiversAnswer,
  type WithdrawalAnswer,
  withdrawRequest,
} from './contract.ts';
import { changeRevocation } from './devices.ts';
import { freezeFamily, thawFamily } from './freeze.ts';
import { importDevices } from './inventory.ts';
import {
  type ApiPorts,
  commandRelease,
  initialiseFamily,
  missing,
  phasesOf,
  RefusedContent,
  startRelease,
} from './releases.ts';
import { excludeEngine, overrideCell, withdraw } from './waivers.ts';

/** A bundle is at most 64 MiB of files; base64 makes it a third longer. */
const bodyLimit = 96 * 2 ** 20;

const idOf = z.object({ id: releaseIdSchema });
const deviceOf = z.object({ id: deviceIdSchema });
const familyOf = z.object({ family: z.string().min(1).max(80) });

export const startApi = async (options: {
  readonly ports: ApiPorts;
  readonly port: number;
  readonly log: Log;
  /** Temporal's Web UI, where there is one. */
  readonly temporalUi: { readonly url: string; readonly namespace: string } | null;
}): Promise<{ readonly url: string; stop(): Promise<void> }> => {
  const { ports, log, temporalUi } = options;
  const { pool, director } = ports;
  const server = Fastify({ bodyLimit, forceCloseConnections: true }).withTypeProvider<ZodTypeProvider>();
  server.setValidatorCompiler(validatorCompiler);
  server.setSerializerCompiler(serializerCompiler);
  server.setErrorHandler<FastifyError>((error, request, reply) => {
    const problem = problemOf(error);
    if (problem.status >= 500) {
      log('error', { method: request.method, url: request.url, code: problem.code, error: String(error.stack) }, 'api');
    }
    return reply.code(problem.status).type('application/problem+json').send(problem);
  });
  server.setNotFoundHandler((request, reply) =>
    reply
      .code(404)
      .type('application/problem+json')
      .send(toProblem('SRP_MISSING_PATH', `there is no ${request.method} ${request.url}`)),
  );

  server.get('/v1/health', async () => {
    await pool.query('select 1');
    return { status: 'ok' };
  });

  server.get('/v1/families', async () => ({ families: await director.families() }));

  server.post('/v1/families', { schema: { body: familyRequest } }, async (request, reply): Promise<FamilyAnswer> => {
    const { family, content } = await initialiseFamily(ports, request.body);
    reply.code(201);
    return {
      family,
      contentVersion: content.contentVersion,
      engines: content.artefacts.map((artefact) => artefact.engine),
    };
  });

  server.post('/v1/releases', { schema: { body: releaseRequest } }, async (request, reply) => {
    const started = await startRelease(ports, request.body);
    log('info', started, 'release started');
    reply.code(201);
    return started;
  });

  server.get('/v1/releases', { schema: { querystring: releaseQuery } }, async (request): Promise<ReleasesAnswer> => {
    const { family, phase, limit } = request.query;
    return { releases: await listReleases(pool, { family, phases: phasesOf(phase), limit }) };
  });

  server.get('/v1/releases/:id', { schema: { params: idOf } }, async (request): Promise<ReleaseAnswer> => {
    const { id } = request.params;
    const row = await readRelease(pool, id);
    if (row === null) throw missing(id);
    const { state } = row;
    const current = await director.read(state.family).catch(() => null);
    const path = `/namespaces/${temporalUi?.namespace}/workflows/${encodeURIComponent(releaseWorkflowId(id))}`;
    return {
      now: ports.now(),
      release: state,
      judge: await ports.evidence.judgeStatus(id),
      workflowUrl: temporalUi && `${temporalUi.url}${path}`,
      quarantined: (await readQuarantine(pool, id)).length,
      director: current && {
        mode: current.document.mode,
        directorVersion: current.document.directorVersion,
        expiresAt: current.expiresAt,
        stopped: current.stopped,
        freeze: current.freeze,
      },
    };
  });

  server.get(
    '/v1/releases/:id/evidence',
    { schema: { params: idOf, querystring: evidenceQuery } },
    async (request): Promise<EvidenceAnswer> => {
      const { id } = request.params;
      const { from, limit } = request.query;
      const row = await readRelease(pool, id);
      if (row === null) throw missing(id);
      const { policy, rollout } = row.state;
      const ticks = await readEvidence(pool, id, { from, limit });
      const judge = await ports.evidence.judgeStatus(id);
      return {
        ...{ releaseId: id, policy, stages: rollout?.stages.map(({ name }) => name) ?? [], ticks },
        next: ticks.length < limit ? null : (ticks.at(-1)?.tick ?? 0) + 1,
        ...{ holds: judge?.holds ?? [], clearedCells: rollout?.clearedCells ?? [], halt: judge?.halt ?? null },
      };
    },
  );

  for (const kind of commandKinds) {
    const path = `/v1/releases/:id/${kind}`;
    const note = async (answer: Promise<CommandAnswer>): Promise<CommandAnswer> => {
      const done = await answer;
      log('info', { ...done, kind }, 'a person asked, and it was done');
      return done;
    };
    if (kind === 'approve') {
      server.post(path, { schema: { params: idOf, body: approveRequest } }, (request) =>
        note(commandRelease(ports, request.params.id, { kind, ...request.body })),
      );
    } else {
      server.post(path, { schema: { params: idOf, body: commandRequest } }, (request) =>
        note(commandRelease(ports, request.params.id, { kind, ...request.body })),
      );
    }
  }

  server.get(
    '/v1/families/:family/waivers',
    { schema: { params: familyOf } },
    async (request): Promise<WaiversAnswer> => {
      const waivers = await readWaivers(pool, request.params.family);
      return { waivers: waivers.map((waiver) => ({ ...waiver, state: stateOfWaiver(waiver, ports.now()) })) };
    },
  );

  server.post(
    '/v1/families/:family/waivers/withdraw',
    { schema: { params: familyOf, body: withdrawRequest } },
    async (request): Promise<WithdrawalAnswer> => {
      const answer = await withdraw(ports, { ...request.body, family: request.params.family });
      log('info', { ...answer }, 'a person took waivers back');
      return answer;
    },
  );

  server.post(
    '/v1/families/:family/exclusions',
    { schema: { params: familyOf, body: excludeRequest } },
    (request): Promise<WaiverAnswer> => {
      const { until, ...asked } = request.body;
      return excludeEngine(ports, { ...asked, expiresAt: until, family: request.params.family });
    },
  );

  server.post(
    '/v1/releases/:id/overrides',
    { schema: { params: idOf, body: overrideRequest } },
    (request): Promise<WaiverAnswer> => {
      const { until, ...asked } = request.body;
      return overrideCell(ports, { ...asked, expiresAt: until, releaseId: request.params.id });
    },
  );

  for (const kind of ['revoke', 'restore'] as const) {
    const schema = { params: deviceOf, body: revokeRequest };
    server.post(`/v1/devices/:id/${kind}`, { schema }, async (request): Promise<RevocationAnswer> => {
      const answer = await changeRevocation(pool, kind, request.params.id, request.body);
      log('info', { ...answer.revocation, kind }, 'a person decided about a device');
      return answer;
    });
  }

  server.get('/v1/devices/revocations', async (): Promise<RevocationsAnswer> => {
    return { revocations: await listRevocations(pool) };
  });

  server.post(
    '/v1/families/:family/freeze',
    { schema: { params: familyOf, body: freezeRequest } },
    async (request): Promise<FreezeAnswer> => {
      const frozen = await freezeFamily(ports, request.params.family, request.body);
      log('warn', frozen, 'a person froze a family');
      return frozen;
    },
  );

  server.post(
    '/v1/families/:family/thaw',
    { schema: { params: familyOf, body: thawRequest } },
    async (request): Promise<ThawAnswer> => {
      const thawed = await thawFamily(ports, request.params.family, request.body);
      log('warn', { ...thawed, ...request.body }, 'a person thawed a family');
      return thawed;
    },
  );

  server.get('/v1/alarms', async (): Promise<AlarmsAnswer> => {
    const now = ports.now();
    const facts = await ports.facts();
    // Without PostgreSQL nobody can tell: that evidence cannot be read is an alarm of its own.
    const releases = await listReleases(pool, { phases: ['held', 'paused'], limit: 1_000 }).catch(() => []);
    return { alarms: facts.flatMap((one) => alarmsOf(one, now)), stops: stopsOf(facts, releases, now) };
  });

  server.post(
    '/v1/fleet',
    { schema: { body: importRequest } },
    (request): Promise<ImportAnswer> => importDevices(ports, request.body.devices),
  );

  server.get('/v1/fleet', async (): Promise<FleetAnswer> => {
    const groups = await ports.inventory.groups();
    const segments = new Map<string, FleetAnswer['segments'][number] & { contentVersions: Record<string, number> }>();
    for (const { engine, failMode, contentVersion, devices } of groups) {
      const id = engineId(engine);
      const segment = segmentKey(id, failMode);
      const known = segments.get(segment) ?? { segment, engine: id, failMode, devices: 0, contentVersions: {} };
      known.contentVersions[contentVersion] = (known.contentVersions[contentVersion] ?? 0) + devices;
      segments.set(segment, { ...known, devices: known.devices + devices });
    }
    return {
      devices: groups.reduce((sum, { devices }) => sum + devices, 0),
      segments: [...segments.values()].sort((a, b) => (a.segment < b.segment ? -1 : 1)),
    };
  });

  const url = await server.listen({ host: '127.0.0.1', port: options.port });
  return { url, stop: () => server.close() };
};

const statusOf: readonly (readonly [RegExp, number, string])[] = [
  [/^SRP_(INPUT_|INTEGRITY_BUNDLE)/, 400, 'the request cannot be used'],
  [/^SRP_RULE_/, 409, 'a rule forbids it'],
  [/^SRP_MISSING_/, 404, 'not found'],
  [/^SRP_DEP_/, 503, 'something that is needed does not answer'],
];

const toProblem = (code: string, detail: string): Problem => {
  const [, status = 500, title = 'internal error'] = statusOf.find(([pattern]) => pattern.test(code)) ?? [];
  return { type: 'about:blank', title, status, code, detail };
};

export const problemOf = (error: Error & Partial<FastifyError>): Problem => {
  if (error instanceof RefusedContent) {
    return { ...toProblem(error.code, error.message), findings: error.findings };
  }
  if (error instanceof SigrelError) return toProblem(error.code, error.message);
  if (error.validation) {
    const places = error.validation.map((issue) => `${issue.instancePath.slice(1) || 'body'}: ${issue.message}`);
    return toProblem('SRP_INPUT_REQUEST', places.join('; '));
  }
  if (error.code === 'FST_ERR_CTP_BODY_TOO_LARGE') {
    return toProblem('SRP_INPUT_SIZE', `the request is larger than ${bodyLimit} bytes`);
  }
  if (error.statusCode !== undefined && error.statusCode < 500) return toProblem('SRP_INPUT_REQUEST', error.message);
  return isAway(error)
    ? toProblem('SRP_DEP_POSTGRES', `PostgreSQL does not answer: ${error.message || error.code}`)
    : toProblem('SRP_BUG_INTERNAL', `${error.message} (see the log of the api)`);
};
