/**
 * An error that a person can act on: names the input, what was expected and what to do.
 * Codes: `SRP_<AREA>_<REASON>`; areas INPUT (400), RULE (409), MISSING (404), DEP (503), ENGINE, INTEGRITY.
 * Outcomes (a red cell, a regression, a refusal by policy) are values and events, never this.
 */
export class SigrelError extends Error {
  readonly code: string;
  readonly details: Readonly<Record<string, string | number | boolean>>;

  constructor(
    code: string,
    message: string,
    options: { details?: Readonly<Record<string, string | number | boolean>>; cause?: unknown } = {},
  ) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined);
    this.name = 'SigrelError';
    this.code = code;
    this.details = options.details ?? {};
  }
}

/** Stops the build when a union gets a new member that a switch does not handle. */
export const assertNever = (value: never): never => {
  throw new SigrelError('SRP_BUG_UNHANDLED', `unhandled value ${JSON.stringify(value)}`);
};
