/**
 * Exclusions and overrides: what two different people decide against the matrix, with a reason and an end. One person
 * proposes, another grants; until then, and after the end, nothing has changed. Any one person takes it back.
 */
import type { CellResult, Waiver } from './release.ts';

/** A waiver with how it came about and went. */
export type KnownWaiver = Waiver & {
  /** Until when each of `by` asked for it: the earlier end counts. */
  readonly askedUntil: readonly string[];
  /** null: nobody took it back. */
  readonly withdrawn: { readonly by: string; readonly reason: string; readonly at: string } | null;
};

export type WaiverState = 'proposed' | 'in force' | 'over' | 'withdrawn';

export type WaiverRequest = {
  readonly family: string;
  readonly kind: Waiver['kind'];
  readonly target: string;
  readonly sourceDigest: string | null;
  readonly by: string;
  readonly reason: string;
  /** ISO 8601: a day or a moment in UTC. */
  readonly expiresAt: string;
};

export type WaiverDecision = { readonly ok: true; readonly waiver: KnownWaiver; readonly granted: boolean } | Refused;

export type WithdrawalRequest = Pick<WaiverRequest, 'family' | 'target' | 'by' | 'reason'>;
export type Withdrawal = { readonly ok: true; readonly waivers: readonly KnownWaiver[] } | Refused;

type Refused = { readonly ok: false; readonly code: string; readonly message: string };

/** Longer than that nobody remembers why. */
const longestMs = 90 * 24 * 3_600_000;

/** Two people stand behind it and its end has not come. */
export const isInForce = (waiver: Waiver, now: number): boolean =>
  waiver.by.length >= 2 && Date.parse(waiver.expiresAt) > now;

export const stateOfWaiver = (waiver: KnownWaiver, now: number): WaiverState => {
  if (waiver.withdrawn !== null) return 'withdrawn';
  if (isInForce(waiver, now)) return 'in force';
  return Date.parse(waiver.expiresAt) > now ? 'proposed' : 'over';
};

const isOpen = (waiver: KnownWaiver, now: number): boolean =>
  ['proposed', 'in force'].includes(stateOfWaiver(waiver, now));

const isAbout = (waiver: Waiver, request: WaiverRequest, failures: readonly string[]): boolean =>
  waiver.family === request.family &&
  waiver.kind === request.kind &&
  waiver.target === request.target &&
  waiver.sourceDigest === request.sourceDigest &&
  JSON.stringify(waiver.failures ?? []) === JSON.stringify(failures);

/**
 * Nothing is let pass that was not looked at: no cell without a result, or where the engine loaded nothing, or took no
 * known-good rule, or in doubt.
 */
export const canBeOverridden = ({ verdict, rulesLoaded, gates }: CellResult): boolean =>
  verdict === 'fail' &&
  rulesLoaded !== null &&
  rulesLoaded > 0 &&
  gates.every((one) => one.gate !== 'controls' || one.verdict === 'pass');

/** A result names at least so many details of a gate, wherever it is read. */
const named = 3;

/** Measured anew in every release, and never the same twice. */
const isMeasured = ({ gate, observed }: CellResult['gates'][number]): boolean =>
  ['budget-load', 'budget-scan', 'budget-memory'].includes(gate) && typeof observed === 'number';

/**
 * What is wrong with a cell, for people to sign and for later results to be compared with: each gate that did not pass, with
 * its count and the first rules, inputs or words that it names. Times and sizes differ from run to run and are left out.
 */
export const failuresOf = ({ gates }: Pick<CellResult, 'gates'>): readonly string[] =>
  gates
    .filter(({ verdict }) => verdict !== 'pass')
    .map((one) => {
      if (isMeasured(one)) return one.gate;
      const places = one.details.slice(0, named).map(({ rule, vector, words }) => {
        if (rule === undefined) return vector ?? words;
        return `rule ${rule}${vector === undefined ? '' : ` on ${vector}`}`;
      });
      return [`${one.gate}: ${one.observed}`, ...places].join(', ');
    })
    .sort();

/** Whether the two people who signed had seen everything that is wrong now. */
export const covers = (waiver: Waiver, result: CellResult): boolean =>
  waiver.target === result.cellId && failuresOf(result).every((one) => waiver.failures?.includes(one));

/** Letter case and spaces make nobody a second person. */
export const isSamePerson = (a: string, b: string): boolean => plainName(a) === plainName(b);
const plainName = (name: string): string => name.normalize('NFKC').trim().replaceAll(/\s+/gu, ' ').toLowerCase();

const refuse = (code: string, message: string): Refused => ({ ok: false, code, message });

/**
 * What a request makes of what there is: a proposal, or with a second person a waiver in force. `result`: the red cell that
 * an override is for; a proposal for what was wrong before is another one. `waiverId` names a new one.
 */
export const decideWaiver = (
  known: readonly KnownWaiver[],
  request: WaiverRequest,
  context: { readonly now: number; readonly waiverId: string; readonly result: CellResult | null },
): WaiverDecision => {
  const { kind, target, by, reason } = request;
  const what = kind === 'exclude' ? `the exclusion of ${target}` : `the override of ${target}`;
  if (by.trim() === '') return refuse('SRP_INPUT_BY', `${what} needs the name of who asks`);
  if (reason.trim() === '') return refuse('SRP_INPUT_REASON', `${what} needs a reason`);
  const ends = Date.parse(request.expiresAt);
  if (!Number.isFinite(ends))
    return refuse(
      'SRP_INPUT_EXPIRY',
      `"${request.expiresAt}" is no time; expected e.g. 2027-01-31 or 2027-01-31T12:00:00Z`,
    );
  // A day alone would be another moment in a database session of another time zone.
  const expiresAt = new Date(ends).toISOString();
  if (ends <= context.now) return refuse('SRP_INPUT_EXPIRY', `${what} would have ended already, at ${expiresAt}`);
  if (ends > context.now + longestMs)
    return refuse('SRP_INPUT_EXPIRY', `${what} would last until ${expiresAt}; expected at most 90 days`);
  if (kind === 'override') {
    const { result } = context;
    if (result === null) return refuse('SRP_MISSING_CELL', `the release has no result of a cell ${target}`);
    if (result.verdict === 'pass')
      return refuse('SRP_RULE_WAIVER', `cell ${target} passed: there is nothing to override`);
    if (result.verdict === 'void') {
      const why =
        'a control came out wrong, so that nothing is known about the content: mend the engine and release again';
      return refuse('SRP_RULE_WAIVER', `cell ${target} is void and cannot be overridden: ${why}`);
    }
    if (!canBeOverridden(result))
      return refuse(
        'SRP_RULE_WAIVER',
        `cell ${target} loaded nothing that could be tested and cannot be overridden: exclude its engine instead`,
      );
  }
  const failures = kind === 'override' && context.result ? failuresOf(context.result) : [];
  const open = known.find((waiver) => isAbout(waiver, request, failures) && isOpen(waiver, context.now));
  if (!open) {
    const { family, sourceDigest } = request;
    const { waiverId } = context;
    const signed = kind === 'override' ? { failures } : {};
    const waiver = { waiverId, family, kind, target, ...signed, sourceDigest, reason, expiresAt, by: [by.trim()] };
    return { ok: true, waiver: { ...waiver, askedUntil: [expiresAt], withdrawn: null }, granted: false };
  }
  if (open.by.length >= 2) return refuse('SRP_RULE_WAIVER', `${what} is in force already, until ${open.expiresAt}`);
  if (open.by.some((one) => isSamePerson(one, by)))
    return refuse('SRP_RULE_FOUR_EYES', `${by} proposed ${what}: somebody else has to grant it`);
  // What both stand behind: the earlier end, and the reasons of both.
  const [end] = [open.expiresAt, expiresAt].sort((a, b) => Date.parse(a) - Date.parse(b));
  const reasons = open.reason === reason ? reason : `${open.reason}; ${reason}`;
  const askedUntil = [...open.askedUntil, expiresAt];
  const both = { ...open, reason: reasons, expiresAt: end ?? expiresAt, askedUntil };
  return { ok: true, waiver: { ...both, by: [...open.by, by.trim()] }, granted: true };
};

/**
 * What is about a target, proposed or in force, as taken back. One person is enough: nothing passes by it that would not pass
 * without a waiver. A release under way is held for a cell whose override is gone, and an excluded engine is tested again: with
 * green cells it grows with the next stage when it missed none, as after a pause that one person ends. What was granted before
 * is proposed and granted anew when it is wanted again.
 */
export const withdrawWaivers = (
  known: readonly KnownWaiver[],
  { family, target, by, reason }: WithdrawalRequest,
  now: number,
): Withdrawal => {
  const open = known.filter((waiver) => waiver.target === target && isOpen(waiver, now));
  if (open.length === 0) {
    const message = `family ${family} has no exclusion or override of ${target} that is proposed or in force; look at those it has with: sigrel matrix waivers ${family}`;
    return refuse('SRP_MISSING_WAIVER', message);
  }
  const withdrawn = { by, reason, at: new Date(now).toISOString() };
  return { ok: true, waivers: open.map((waiver) => ({ ...waiver, withdrawn })) };
};
