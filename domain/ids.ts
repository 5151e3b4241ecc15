/** The workflow id of a release; the release id is the idempotency key of a start. */
export const releaseWorkflowId = (releaseId: string): string => `release/${releaseId}`;

/** The workflow that holds the freeze of a family. */
export const freezeWorkflowId = (family: string): string => `freeze/${family}`;

/** Its queue, which nothing else uses: a freeze waits for no work of releases. */
export const freezeQueue = 'freeze';
