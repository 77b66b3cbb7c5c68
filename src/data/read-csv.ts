import { createReadStream } from 'node:fs';
import { pipeline } from 'node:stream';
import type { CsvError, Info } from 'csv-parse';
import type { FaultList } from './faults.ts';
import type { RawRow } from './read-lines.ts';
import type { Json } from './tokenizer-files.ts';

/** Columns that hold lists, written as JSON in their cell. */
const LISTS = new Set(['messages', 'tools', 'input_ids', 'labels', 'attention_mask']);

/**
 * The rows of a .csv file with a header line. An empty cell is one that isn't there, so rows of different kinds can
 * share a file; `place` is the line on which the row ends.
 */
export async function* readCsv(file: string, faults: FaultList): AsyncGenerator<RawRow> {
  const { parse } = await import('csv-parse');
  const parser = parse({ columns: true, bom: true, info: true, skip_empty_lines: true });
  // `pipeline` hands an error of the file on to the parser, where the loop below meets it.
  pipeline(createReadStream(file), parser, () => {});
  try {
    for await (const { record, info } of parser as AsyncIterable<{ record: Record<string, string>; info: Info }>) {
      const place = info.lines;
      const row = readCells(record, (fault) => faults.add(place, fault));
      if (row) yield { place, row };
    }
  } catch (error) {
    if (!isCsvError(error)) throw error;
    // The parser can't go on behind a broken row, so this is the last fault of the file.
    faults.add(typeof error['lines'] === 'number' ? error['lines'] : 1, `must be CSV with a header line (${error.message})`);
  }
}

function isCsvError(error: unknown): error is CsvError {
  return error instanceof Error && 'code' in error && String(error.code).startsWith('CSV_');
}

function readCells(record: Record<string, string>, fault: (text: string) => void): Json | null {
  const row: Record<string, unknown> = {};
  for (const [name, cell] of Object.entries(record)) {
    if (cell === '') continue;
    if (!LISTS.has(name)) row[name] = cell;
    else {
      try {
        row[name] = JSON.parse(cell) as unknown;
      } catch {
        fault(`"${name}" must be a list, written as JSON (found ${JSON.stringify(cell.slice(0, 40))})`);
        return null;
      }
    }
  }
  return row;
}
