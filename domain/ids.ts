/** The workflow id of a release; the release id is the idempotency key of a start. */
export const releaseWorkflowId = (releaseId: string): string => `release/${releaseId}`;
