/** A line of a table by column; columns may differ between rows, null is an empty cell. */
export type Row = Readonly<Record<string, string | number | null>>;

const cell = (value: string | number | null | undefined): string => (value === null || value === undefined || Number.isNaN(value) ? '' : String(value));

/** Rows as a Markdown table with aligned columns, in the order in which columns first appear; '' without rows. */
export function renderTable(rows: readonly Row[]): string {
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  if (columns.length === 0) return '';
  const widths = columns.map((column) => Math.max(3, column.length, ...rows.map((row) => cell(row[column]).length)));
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  const padded = (text: string, i: number, right: boolean): string => (right ? text.padStart(widths[i] ?? 0) : text.padEnd(widths[i] ?? 0));
  const isNumber = columns.map((column) => rows.every((row) => row[column] === null || row[column] === undefined || typeof row[column] === 'number'));
  return [
    line(columns.map((column, i) => padded(column, i, isNumber[i] ?? false))),
    line(widths.map((width, i) => (isNumber[i] ? `${'-'.repeat(width - 1)}:` : '-'.repeat(width)))),
    ...rows.map((row) => line(columns.map((column, i) => padded(cell(row[column]), i, isNumber[i] ?? false)))),
  ].join('\n');
}

/** A number with so many digits behind the point, as a number; null stays null, NaN becomes null. */
export function digits(value: number | null, behind: number): number | null {
  return value === null || !Number.isFinite(value) ? null : Number(value.toFixed(behind));
}

/** "1.04 (1.03–1.05)": a median with its quartiles. */
export function withQuartiles({ median, low, high }: { median: number; low: number; high: number }, behind: number): string {
  return `${median.toFixed(behind)} (${low.toFixed(behind)}–${high.toFixed(behind)})`;
}
