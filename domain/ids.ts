/** The workflow id of a release; the release id is the idempotency key of a start. */
export const releaseWorkflowId = (releaseId: string): string => `release/${releaseId}`;

/** One stop of a release: `seq` is where its stream stood, so that a later stop has a greater one. */
export const stopIdOf = (releaseId: string, seq: number): string => `${releaseId}/${seq}`;

/** Both are stops of the same release, and `other` came first. */
export const isLaterStop = (stopId: string, other: string): boolean => {
  const [releaseId, seq] = splitStop(stopId);
  const [otherRelease, otherSeq] = splitStop(other);
  return releaseId === otherRelease && seq > otherSeq;
};

const splitStop = (stopId: string): readonly [releaseId: string, seq: number] => {
  const slash = stopId.lastIndexOf('/');
  return [stopId.slice(0, Math.max(0, slash)), slash < 0 ? Number.NaN : Number(stopId.slice(slash + 1))];
};

/** The workflow that holds the freeze of a family. */
export const freezeWorkflowId = (family: string): string => `freeze/${family}`;

/** Its queue, which nothing else uses: a freeze waits for no work of releases. */
export const freezeQueue = 'freeze';
