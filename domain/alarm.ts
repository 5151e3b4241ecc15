/** An alarm as it is recorded and told; domain/alarms.ts finds them. */
export type AlarmKind = 'store-unreadable' | 'windows-late' | 'evidence-unreadable' | 'lease-lapsed' | 'freeze-old';

export type Alarm = {
  /** The same as long as it is the same trouble. */
  readonly alarmId: string;
  readonly kind: AlarmKind;
  readonly family: string;
  readonly releaseId: string | null;
  /** When the limit was passed (ms). */
  readonly since: number;
  /** How old it is (ms). */
  readonly observed: number;
  readonly operator: '>';
  readonly limit: number;
  /** Partitions whose window is missing for the next tick; only of windows that are late. */
  readonly partitions: readonly number[];
  readonly words: string;
};
