/** Who takes a device's word away, and who gives it back. A running gateway reads the list every second. */
import { SigrelError } from '../../domain/errors.ts';
import { isEnrolled } from '../../infra/postgres/inventory.ts';
import type { Pool } from '../../infra/postgres/pool.ts';
import { restoreDevice, revokeDevice } from '../../infra/postgres/revocations.ts';
import type { RevocationAnswer } from './contract.ts';

/** Throws SRP_RULE_REVOKED when it is revoked already, SRP_RULE_NOT_REVOKED when there is nothing to restore. */
export const changeRevocation = async (
  pool: Pool,
  kind: 'revoke' | 'restore',
  deviceId: string,
  said: { readonly by: string; readonly reason: string },
): Promise<RevocationAnswer> => {
  const change = kind === 'revoke' ? revokeDevice : restoreDevice;
  const revocation = await change(pool, deviceId, said);
  if (revocation !== null) return { revocation, known: await isEnrolled(pool, deviceId) };
  throw kind === 'revoke'
    ? new SigrelError('SRP_RULE_REVOKED', `device ${deviceId} is revoked already: sigrel device list`)
    : new SigrelError(
        'SRP_RULE_NOT_REVOKED',
        `device ${deviceId} is not revoked: sigrel device list shows those that are`,
      );
};
