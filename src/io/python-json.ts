/**
 * A value as Python's `json.dumps(value, indent=2, sort_keys=True)` prints it, so that files of PEFT's come out as PEFT
 * writes them: ASCII only, keys by code point, no final newline.
 *
 * @param floats keys, at any depth, whose numbers are floats in Python and keep their `.0`.
 * @param unsorted keys whose objects keep the order they were given in.
 * @example
 * ```ts
 * pythonJson({ r: 8, lora_dropout: 0 }, { floats: ['lora_dropout'] }); // '{\n  "lora_dropout": 0.0,\n  "r": 8\n}'
 * ```
 */
export function pythonJson(value: unknown, { floats = [], unsorted = [] }: { floats?: readonly string[]; unsorted?: readonly string[] } = {}): string {
  return print(value, '', '\n', { floats: new Set(floats), unsorted: new Set(unsorted) });
}

interface Style {
  floats: ReadonlySet<string>;
  unsorted: ReadonlySet<string>;
}

function print(value: unknown, key: string, newline: string, style: Style): string {
  if (typeof value === 'number') return printNumber(value, style.floats.has(key));
  if (typeof value === 'string') return printString(value);
  if (value === null || typeof value !== 'object') return JSON.stringify(value) ?? 'null';
  const inner = `${newline}  `;
  const items = Array.isArray(value)
    ? value.map((item) => print(item, key, inner, style))
    : inOrder(value, style.unsorted.has(key)).map(([name, entry]) => `${printString(name)}: ${print(entry, name, inner, style)}`);
  const [open, close] = Array.isArray(value) ? '[]' : '{}';
  return items.length === 0 ? `${open}${close}` : `${open}${inner}${items.join(`,${inner}`)}${newline}${close}`;
}

function inOrder(value: object, asGiven: boolean): [string, unknown][] {
  const entries = Object.entries(value).filter(([, entry]) => entry !== undefined);
  // UTF-8 sorts by code point; JavaScript's own order of strings is by UTF-16 unit.
  return asGiven ? entries : entries.sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
}

function printString(text: string): string {
  return JSON.stringify(text).replace(/[\u007f-\uffff]/g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

/** Both languages print the shortest digits that read back; they part on when to use an exponent. */
function printNumber(value: number, isFloat: boolean): string {
  if (Number.isInteger(value) && !isFloat) return Number.isSafeInteger(value) ? String(value) : BigInt(value).toString();
  if (!Number.isFinite(value)) return Number.isNaN(value) ? 'NaN' : value < 0 ? '-Infinity' : 'Infinity';
  const [digits = '', exponent = '0'] = value.toExponential().split('e');
  const power = Number(exponent);
  if (value !== 0 && (power < -4 || power >= 16)) return `${digits}e${power < 0 ? '-' : '+'}${String(Math.abs(power)).padStart(2, '0')}`;
  const plain = Object.is(value, -0) ? '-0' : String(value);
  return plain.includes('.') ? plain : `${plain}.0`;
}
