/** Stable codes of everything `lowrank` throws; compare these, never the text. */
export type ErrorCode =
  | 'ERR_SHAPE' // operands of an op don't fit each other
  | 'ERR_DTYPE' // an operand has a dtype the op doesn't take
  | 'ERR_DEVICE' // a device can't be opened, or operands live on different ones
  | 'ERR_DISPOSED' // a tensor, model or device was used after its release
  | 'ERR_ARGUMENT' // an option or argument is out of range or unknown
  | 'ERR_RANGE' // an index (a token id, say) is outside its table; found while running
  | 'ERR_MEMORY' // no memory for a tensor
  | 'ERR_FORMAT' // a file's content breaks its format
  | 'ERR_FILE' // a file can't be read or written
  | 'ERR_DATA' // a row of a data file is wrong
  | 'ERR_UNSUPPORTED' // a well-formed request for something lowrank doesn't do
  | 'ERR_NONFINITE' // loss or gradients stopped being finite
  | 'ERR_ADDON' // the native addon can't be loaded
  | 'ERR_INTERNAL'; // a defect of lowrank itself

/**
 * The one error class of this package. The text reads `<op or file>: <what is required> (<what was found>)`.
 *
 * @example
 * ```ts
 * import { LowrankError } from 'lowrank';
 * try { throw new LowrankError('ERR_FILE', 'config.json: not found'); }
 * catch (e) { if (e instanceof LowrankError && e.code === 'ERR_FILE') console.log('missing'); }
 * ```
 */
export class LowrankError extends Error {
  override readonly name = 'LowrankError';
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

/** Throws one error that lists every fault found in `subject`; returns when there is none. */
export function throwFaults(code: ErrorCode, subject: string, faults: readonly string[]): void {
  if (faults.length === 0) return;
  const text = faults.length === 1 ? ` ${faults[0]}` : faults.map((fault) => `\n  - ${fault}`).join('');
  throw new LowrankError(code, `${subject}:${text}`);
}
