import { closeSync, mkdirSync, openSync, writeSync } from 'node:fs';
import { hostname } from 'node:os';
import path from 'node:path';
import { LowrankError } from '../error.ts';
import { maskedCrc32c } from '../io/crc32c.ts';

/** A TensorBoard event file that is open for more. */
export interface EventFile {
  readonly file: string;
  /** Appends the values of one step, each under its tag (`'train/loss'`); what is not finite is written too. */
  scalars(step: number, values: Readonly<Record<string, number>>): void;
  close(): void;
}

/**
 * Starts a TensorBoard event file in `folder`. A file is only ever appended to, one record a write, so that a kill costs
 * no step that was written; a resumed run opens a new one beside it, and TensorBoard joins them.
 *
 * @param now milliseconds since 1970, for the records and the file's name.
 * @throws `ERR_FILE` if the file can't be made or written, `ERR_DISPOSED` after `close`.
 * @example
 * ```ts
 * const events = openEventFile('out/runs');
 * events.scalars(1, { 'train/loss': 2.31, 'train/lr': 2e-4 });
 * events.close();
 * ```
 */
export function openEventFile(folder: string, now: () => number = Date.now): EventFile {
  const { file, descriptor } = create(folder, Math.floor(now() / 1000));
  let open = true;
  const append = (event: Uint8Array) => {
    if (!open) throw new LowrankError('ERR_DISPOSED', `${file}: is closed`);
    attempt(file, () => writeSync(descriptor, record(event)));
  };
  append(Buffer.concat([wallTime(now()), text(3, 'brain.Event:2')]));
  return {
    file,
    scalars: (step, values) => append(Buffer.concat([wallTime(now()), key(2, varintType), varint(step), bytes(5, summary(values))])),
    close() {
      if (open) closeSync(descriptor);
      open = false;
    },
  };
}

function create(folder: string, seconds: number): { file: string; descriptor: number } {
  // TensorBoard reads files in the order of their names, so the time comes first, ten digits wide.
  const stem = path.join(folder, `events.out.tfevents.${String(seconds).padStart(10, '0')}.${hostname()}.${process.pid}`);
  return attempt(folder, () => {
    mkdirSync(folder, { recursive: true });
    for (let nth = 0; ; nth++) {
      const file = `${stem}.${nth}`;
      try {
        return { file, descriptor: openSync(file, 'ax') };
      } catch (cause) {
        if ((cause as NodeJS.ErrnoException).code !== 'EEXIST') throw cause;
      }
    }
  });
}

function attempt<T>(file: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    throw new LowrankError('ERR_FILE', `${file}: events can't be written (${(cause as NodeJS.ErrnoException).code ?? cause})`, { cause });
  }
}

/** TFRecord: length u64, its checksum u32, data, its checksum u32; all little-endian. */
function record(data: Uint8Array): Uint8Array {
  const framed = Buffer.alloc(12 + data.length + 4);
  framed.writeBigUInt64LE(BigInt(data.length), 0);
  framed.writeUInt32LE(maskedCrc32c(framed.subarray(0, 8)), 8);
  framed.set(data, 12);
  framed.writeUInt32LE(maskedCrc32c(data), 12 + data.length);
  return framed;
}

// Protocol buffers by hand. Fields (tensorflow/core/util/event.proto, framework/summary.proto):
//   Event   1 wall_time double   2 step int64   3 file_version string   5 summary Summary
//   Summary 1 value Value (repeated)
//   Value   1 tag string         2 simple_value float
const [varintType, doubleType, bytesType, floatType] = [0, 1, 2, 5];

function summary(values: Readonly<Record<string, number>>): Uint8Array {
  return Buffer.concat(Object.entries(values).map(([tag, value]) => bytes(1, Buffer.concat([text(1, tag), float(2, value)]))));
}

function key(field: number, type: number): Uint8Array {
  return Uint8Array.of((field << 3) | type);
}

/** Seven bits a byte, low ones first. Divides, because `>>>` would cut at 32 bits. */
function varint(value: number): Uint8Array {
  if (!Number.isSafeInteger(value) || value < 0) throw new LowrankError('ERR_ARGUMENT', `events: step must be a whole number of at least 0 (it is ${value})`);
  const out: number[] = [];
  for (; value >= 128; value = Math.floor(value / 128)) out.push((value % 128) | 128);
  return Uint8Array.from([...out, value]);
}

function bytes(field: number, content: Uint8Array): Uint8Array {
  return Buffer.concat([key(field, bytesType), varint(content.length), content]);
}

function text(field: number, content: string): Uint8Array {
  return bytes(field, Buffer.from(content));
}

function float(field: number, value: number): Uint8Array {
  return Buffer.concat([key(field, floatType), new Uint8Array(littleEndian(4, (view) => view.setFloat32(0, value, true)))]);
}

function wallTime(milliseconds: number): Uint8Array {
  return Buffer.concat([key(1, doubleType), new Uint8Array(littleEndian(8, (view) => view.setFloat64(0, milliseconds / 1000, true)))]);
}

function littleEndian(length: number, fill: (view: DataView) => void): ArrayBuffer {
  const buffer = new ArrayBuffer(length);
  fill(new DataView(buffer));
  return buffer;
}
