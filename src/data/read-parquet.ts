import { LowrankError } from '../error.ts';
import type { RawRow } from './read-lines.ts';
import { COLUMNS } from './row-to-sample.ts';
import type { Json } from './tokenizer-files.ts';

/** The rows of a .parquet file, one row group in memory at a time, and only the columns that mean something. */
export async function* readParquet(file: string): AsyncGenerator<RawRow> {
  const { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects, parquetSchema } = await import('hyparquet');
  const { compressors } = await import('hyparquet-compressors');
  try {
    const source = await asyncBufferFromFile(file);
    const metadata = await parquetMetadataAsync(source);
    const present = parquetSchema(metadata).children.map((child) => child.element.name);
    const known = present.filter((name) => COLUMNS.has(name));
    // Without a known column the rows are read whole, so that the fault can say what they hold.
    const columns = known.length > 0 ? known : present;
    let rowStart = 0;
    for (const group of metadata.row_groups) {
      const rowEnd = rowStart + Number(group.num_rows);
      const rows = await parquetReadObjects({ file: source, metadata, compressors, columns, rowStart, rowEnd });
      for (const [i, row] of rows.entries()) yield { place: rowStart + i + 1, row: row as Json };
      rowStart = rowEnd;
    }
  } catch (cause) {
    if (cause instanceof LowrankError) throw cause;
    throw new LowrankError('ERR_FORMAT', `${file}: must be a Parquet file (${(cause as Error).message})`, { cause });
  }
}
