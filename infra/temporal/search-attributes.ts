/** What an SRE can search releases by in Temporal's Web UI. Registered when the server starts; unencrypted, no secrets. */
export const searchAttributes = {
  SigrelReleaseId: 'Keyword',
  SigrelFamily: 'Keyword',
  SigrelState: 'Keyword',
  SigrelHaltReason: 'Keyword',
  SigrelStage: 'Int',
} as const;
