/**
 * The configuration of a process: read once at its start from SIGREL_* variables, frozen, passed down.
 * Addresses that are not given are those of the local servers recorded in the state folder.
 */
import { join } from 'node:path';
import { z } from 'zod';
import { SigrelError } from '../domain/errors.ts';
import type { Rate } from '../domain/rate.ts';

const port = z.coerce.number().int().min(0).max(65535);

/**
 * `deviceRate`: of each device. Far above a heartbeat with everything a device can have to say: only a device gone wild is
 * limited. `deadLetterRate`: of all; what is refused more often than this is counted and not kept.
 */
export type GatewayRates = { readonly deviceRate: Rate; readonly deadLetterRate: Rate };

export const defaultRates: GatewayRates = {
  deviceRate: { perSecond: 10, burst: 120 },
  deadLetterRate: { perSecond: 100, burst: 2_000 },
};

/** Below one report a second a device that is well could fall silent for it. */
const perSecond = z.coerce.number().min(1).max(1_000_000);
const atOnce = z.coerce.number().int().min(1).max(10_000_000);

const variables = z.strictObject({
  SIGREL_STATE_DIR: z.string().min(1).optional(),
  SIGREL_TEMPORAL_ADDRESS: z
    .string()
    .regex(/^[^\s:]+:\d+$/, 'expected host:port')
    .optional(),
  SIGREL_TEMPORAL_NAMESPACE: z.string().min(1).default('default'),
  SIGREL_KAFKA_BROKERS: z
    .string()
    .regex(/^[^\s,:]+:\d+(,[^\s,:]+:\d+)*$/, 'expected host:port[,host:port]')
    .optional(),
  SIGREL_TOPIC_PREFIX: z
    .string()
    .regex(/^[a-z0-9.-]*$/, 'expected lower-case letters, digits, dots and dashes')
    .default(''),
  SIGREL_POSTGRES_URL: z
    .string()
    .regex(/^postgres(ql)?:\/\//, 'expected postgres://user@host:port/database')
    .optional(),
  SIGREL_API_PORT: port.default(0),
  SIGREL_GATEWAY_PORT: port.default(0),
  SIGREL_REPOSITORY_PORT: port.default(0),
  // At most a third of what the aggregator takes for a gap (`longestQuietMs`): one late clock record is none.
  SIGREL_CLOCK_MS: z.coerce.number().int().min(50).max(20_000).default(1000),
  SIGREL_DEVICE_REPORTS_PER_SECOND: perSecond.default(defaultRates.deviceRate.perSecond),
  SIGREL_DEVICE_REPORTS_AT_ONCE: atOnce.default(defaultRates.deviceRate.burst),
  SIGREL_DEAD_LETTERS_PER_SECOND: perSecond.default(defaultRates.deadLetterRate.perSecond),
  SIGREL_DEAD_LETTERS_AT_ONCE: atOnce.default(defaultRates.deadLetterRate.burst),
  SIGREL_LOG_LEVEL: z.enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']).default('info'),
  // Read where they are used, before or beside a configuration; listed here so that a misspelt name is refused.
  SIGREL_API_URL: z.url().optional(),
  SIGREL_USER: z.string().min(1).optional(),
  SIGREL_DEBIAN_MIRROR: z.string().optional(),
  SIGREL_DEBIAN_SECURITY_MIRROR: z.string().optional(),
  SIGREL_SHARED: z.string().optional(),
});

export type Config = {
  /** Everything that is not a cache: data folders, keys, blobs, the TUF repository, logs. */
  readonly stateDir: string;
  readonly temporal: { readonly address: string | undefined; readonly namespace: string };
  readonly kafka: { readonly brokers: readonly string[] | undefined; readonly topicPrefix: string };
  readonly postgres: { readonly url: string | undefined };
  readonly apiPort: number;
  readonly gatewayPort: number;
  readonly repositoryPort: number;
  readonly clockMs: number;
  readonly gatewayRates: GatewayRates;
  readonly logLevel: string;
};

/** Throws SRP_INPUT_CONFIG naming the variable, what was expected and what was given. */
export const readConfig = (env: Readonly<Record<string, string | undefined>>, checkout: string): Config => {
  const given = Object.fromEntries(Object.entries(env).filter(([name, value]) => name.startsWith('SIGREL_') && value));
  const parsed = variables.safeParse(given);
  if (!parsed.success) {
    const lines = parsed.error.issues.map((issue) =>
      issue.code === 'unrecognized_keys'
        ? `unknown variable ${issue.keys.join(', ')}; known are ${Object.keys(variables.shape).join(', ')}`
        : `${issue.path.join('.')}=${given[String(issue.path[0])] ?? ''}: ${issue.message}`,
    );
    throw new SigrelError('SRP_INPUT_CONFIG', `the environment has an unusable setting: ${lines.join('; ')}`);
  }
  const v = parsed.data;
  return Object.freeze({
    stateDir: v.SIGREL_STATE_DIR ?? join(checkout, '.sigrel'),
    temporal: { address: v.SIGREL_TEMPORAL_ADDRESS, namespace: v.SIGREL_TEMPORAL_NAMESPACE },
    kafka: { brokers: v.SIGREL_KAFKA_BROKERS?.split(','), topicPrefix: v.SIGREL_TOPIC_PREFIX },
    postgres: { url: v.SIGREL_POSTGRES_URL },
    apiPort: v.SIGREL_API_PORT,
    gatewayPort: v.SIGREL_GATEWAY_PORT,
    repositoryPort: v.SIGREL_REPOSITORY_PORT,
    clockMs: v.SIGREL_CLOCK_MS,
    gatewayRates: {
      deviceRate: { perSecond: v.SIGREL_DEVICE_REPORTS_PER_SECOND, burst: v.SIGREL_DEVICE_REPORTS_AT_ONCE },
      deadLetterRate: { perSecond: v.SIGREL_DEAD_LETTERS_PER_SECOND, burst: v.SIGREL_DEAD_LETTERS_AT_ONCE },
    },
    logLevel: v.SIGREL_LOG_LEVEL,
  });
};
