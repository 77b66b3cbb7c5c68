import { createReadStream } from 'node:fs';
import { RowFault, type FaultList } from './faults.ts';
import { isObject, type Json } from './tokenizer-files.ts';

/** A row as its file has it, with the line or row number it is told by (from 1). */
export interface RawRow {
  readonly place: number;
  readonly row: Json;
}

const NEWLINE = 10;

/**
 * The lines of a file, as bytes without their `\n`, in groups of what one read brought: a file of any size passes
 * through one chunk of memory. (`node:readline` won't do: it also splits at U+2028, which JSON strings may hold.)
 */
async function* readLines(file: string): AsyncGenerator<Buffer[]> {
  let rest: Buffer[] = []; // the pieces of a line that goes on in the next chunk
  for await (const chunk of createReadStream(file, { highWaterMark: 1 << 18 }) as AsyncIterable<Buffer>) {
    const lines: Buffer[] = [];
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; start = end + 1, end = chunk.indexOf(NEWLINE, start)) {
      lines.push(Buffer.concat([...rest, chunk.subarray(start, end)]));
      rest = [];
    }
    if (start < chunk.length) rest.push(chunk.subarray(start));
    if (lines.length > 0) yield lines;
  }
  if (rest.length > 0) yield [Buffer.concat(rest)];
}

/** The rows of a .jsonl file. Blank lines are passed over; a byte order mark and CRLF are fine. */
export async function* readJsonl(file: string, faults: FaultList): AsyncGenerator<RawRow> {
  let place = 0;
  for await (const lines of readLines(file)) {
    for (const bytes of lines) {
      place++;
      try {
        const row = parseLine(bytes);
        if (row) yield { place, row };
      } catch (fault) {
        if (!(fault instanceof RowFault)) throw fault;
        faults.add(place, fault.message);
      }
    }
  }
}

function parseLine(bytes: Buffer): Json | null {
  const text = decodeUtf8(bytes).trim();
  if (text === '') return null;
  if (text === '[') throw new RowFault('must be one JSON object on each line (found the start of a JSON array; `jq -c .[]` makes lines of it)');
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new RowFault(`must be one JSON object on each line (${(cause as Error).message})`);
  }
  if (isObject(value)) return value;
  throw new RowFault(`must be one JSON object on each line (found ${Array.isArray(value) ? 'an array' : typeof value})`);
}

function decodeUtf8(bytes: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new RowFault('must be UTF-8 (found other bytes)');
  }
}
