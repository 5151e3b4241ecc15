/** Exclusions and overrides on request: who may decide what is domain/waiver.ts. */
import { randomUUID } from 'node:crypto';
import { SigrelError } from '../../domain/errors.ts';
import {
  decideWaiver,
  type WaiverDecision,
  type WaiverRequest,
  type Withdrawal,
  type WithdrawalRequest,
  withdrawWaivers,
} from '../../domain/waiver.ts';
import { readRelease } from '../../infra/postgres/releases.ts';
import { changeWaivers } from '../../infra/postgres/waivers.ts';
import type { WaiverAnswer, WithdrawalAnswer } from './contract.ts';
import { type ApiPorts, missing } from './releases.ts';

type Asked = Pick<WaiverRequest, 'by' | 'reason' | 'expiresAt'>;

/** Devices of an engine get no release of the family. Throws SRP_RULE_*, SRP_INPUT_*. */
export const excludeEngine = async (
  ports: ApiPorts,
  request: Asked & { readonly family: string; readonly engine: string },
): Promise<WaiverAnswer> => {
  const { family, engine, ...asked } = request;
  await ports.director.read(family);
  // What nobody has would be in force and exclude nobody.
  if (!/^[a-z][a-z-]*-.+-[0-9a-f]{8}$/.test(engine)) {
    const words = `"${engine}" is no engine's id: expected e.g. suricata-6.0.1-38aa2c1f, as in "fleet status" and "matrix show"`;
    throw new SigrelError('SRP_INPUT_ENGINE', words);
  }
  return decide(ports, { ...asked, family, kind: 'exclude', target: engine, sourceDigest: null }, null);
};

/** A red cell of a release does not stop a further release of the same content. Throws SRP_MISSING_RELEASE, SRP_RULE_*, SRP_INPUT_*. */
export const overrideCell = async (
  ports: ApiPorts,
  request: Asked & { readonly releaseId: string; readonly cell: string },
): Promise<WaiverAnswer> => {
  const { releaseId, cell, ...asked } = request;
  const row = await readRelease(ports.pool, releaseId);
  if (row === null) throw missing(releaseId);
  const { family, sourceDigest, matrix } = row.state;
  const result = matrix?.results.find(({ cellId }) => cellId === cell) ?? null;
  return decide(ports, { ...asked, family, kind: 'override', target: cell, sourceDigest }, result);
};

/** Throws SRP_MISSING_WAIVER. */
export const withdraw = async (ports: ApiPorts, request: WithdrawalRequest): Promise<WithdrawalAnswer> => {
  const { made } = await changeWaivers(ports.pool, request.family, (known) => {
    const withdrawal: Withdrawal = withdrawWaivers(known, request, ports.now());
    return { made: withdrawal, waivers: withdrawal.ok ? withdrawal.waivers : [] };
  });
  if (!made.ok) throw new SigrelError(made.code, made.message);
  return { withdrawn: made.waivers };
};

const decide = async (
  ports: ApiPorts,
  request: WaiverRequest,
  result: Parameters<typeof decideWaiver>[2]['result'],
): Promise<WaiverAnswer> => {
  const context = { now: ports.now(), waiverId: randomUUID(), result };
  const { decision } = await changeWaivers(ports.pool, request.family, (known) => {
    const made: WaiverDecision = decideWaiver(known, request, context);
    return { decision: made, waivers: made.ok ? [made.waiver] : [] };
  });
  if (!decision.ok) throw new SigrelError(decision.code, decision.message);
  return { waiver: decision.waiver, inForce: decision.granted };
};
